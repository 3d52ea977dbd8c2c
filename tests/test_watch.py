"""`ckptsel watch`: a folder that a trainer writes to, looked at again and again.

Rounds are driven one by one: a look is a call, and the clock is a number.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

from ckptsel.errors import DataError, InputError, ModelError, NothingToRank, UsageError
from ckptsel.results.estimate import Estimate
from ckptsel.results.files import read_ranking
from ckptsel.results.ranking import Ranking
from ckptsel.settings.rank import RankSettings
from ckptsel.settings.watch import WatchSettings
from ckptsel.watching import memory
from ckptsel.watching import watch as module
from ckptsel.watching.ending import Ending
from ckptsel.watching.peak import Peak
from ckptsel.watching.watch import Job, Watch
from tests.conftest import TINY_MODEL, largest_file, save_checkpoint


class Driven:
    """A watch whose looks are calls, and whose time is a number. events: paths that commands got."""

    def __init__(self, root: Path, data: Path, out: Path) -> None:
        self.root, self.data, self.out = root, data, out
        self.now_s = 0.0
        self.n_rounds, self.said = 0, ""

    def start(
        self,
        strict: bool = False,
        model: str | None = TINY_MODEL,
        scores: tuple[str, ...] = ("linear_probe",),
        **options: object,
    ) -> None:
        settings = RankSettings(scores=scores, device="cpu", workers=0, strict=strict, model=model)
        job = Job(self.root, str(self.data), self.out, settings, WatchSettings(**options))
        self.ending = Ending(is_attached=False, sleep=self._sleep)
        self.ending.wait = self._sleep  # type: ignore[method-assign]
        self.watch = Watch(job, self.ending, quiet=False, show=self._show, now=lambda: self.now_s)

    def look(self, n: int = 2) -> None:
        for _ in range(n):
            self.watch.step()
            self.now_s += 1

    @property
    def names(self) -> list[str]:
        assert self.watch.ranking is not None
        return sorted(row.name for row in self.watch.ranking if row.status == "ok")

    @property
    def failed(self) -> list[str]:
        assert self.watch.ranking is not None
        return sorted(row.name for row in self.watch.ranking if row.status == "failed")

    def _show(self, ranking: Ranking, new: list[str]) -> None:
        self.n_rounds += 1
        self.said = module.news(ranking, new)

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def driven(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> Driven:
    monkeypatch.setattr(module, "draw_report", lambda *_: None)
    return Driven(tmp_path / "run", images, tmp_path / "ranking")


def save(driven: Driven, name: str, seed: int) -> Path:
    path = driven.root / f"{name}.safetensors"
    save_checkpoint(path, seed, seed, 0.5)
    return path


def logged(tmp_path: Path) -> tuple[str, Callable[[], list[str]]]:
    """A command that writes down its arguments, and what it wrote."""
    log = tmp_path / "log.txt"
    code = f"import sys; open({str(log)!r}, 'a').write('|'.join(sys.argv[1:]) + '\\n')"
    command = f'{sys.executable} -c "{code}" it is'
    return command, lambda: log.read_text().splitlines() if log.exists() else []


def test_a_checkpoint_counts_when_it_is_written_to_the_end(driven: Driven) -> None:
    driven.start()
    driven.look()  # there is not even a folder
    first = save(driven, "checkpoint-001", 1)
    whole = save(driven, "checkpoint-002", 2).read_bytes()
    half = driven.root / "checkpoint-002.safetensors"
    half.write_bytes(whole[: len(whole) // 2])
    driven.look(1)
    half.write_bytes(whole[: len(whole) // 2 + 100])
    driven.look(1)
    assert driven.names == ["checkpoint-001"] and driven.failed == []
    half.write_bytes(whole)
    driven.look(1)
    assert driven.n_rounds == 1
    driven.look(1)
    assert driven.names == ["checkpoint-001", "checkpoint-002"]
    assert (
        driven.said.startswith("new: checkpoint-002 is ") and " of 2; checkpoint-00" in driven.said
    )
    driven.look(3)
    assert driven.n_rounds == 2
    os.utime(first)  # the same tensors again
    driven.look(2)
    assert driven.names == ["checkpoint-001", "checkpoint-002"]


def test_a_marker_says_that_it_is_whole(driven: Driven) -> None:
    path = save(driven, "checkpoint-001", 1)
    marker = path.with_name(path.name + ".done")
    marker.touch()
    os.utime(marker, ns=(0, 0))  # of a file that was written over
    driven.start()
    driven.look(1)
    assert driven.n_rounds == 0
    driven = Driven(driven.root, driven.data, driven.out)
    driven.start()
    marker.touch()
    driven.look(1)
    assert driven.names == ["checkpoint-001"]


def test_a_folder_is_whole_when_all_its_files_are(driven: Driven, tmp_path: Path) -> None:
    path = save(driven, "model", 1)
    folder = driven.root / "checkpoint-7"
    folder.mkdir()
    path.rename(folder / "model.safetensors")
    (folder / "trainer_state.json").write_text("{")
    driven.start()
    driven.look(1)
    (folder / "trainer_state.json").write_text("{}")  # the folder itself is not changed by that
    driven.look(1)
    assert driven.n_rounds == 0
    driven.look(1)
    assert driven.names == ["checkpoint-7"]


def test_what_was_ranked_and_deleted_stays_and_costs_nothing(driven: Driven, monkeypatch) -> None:
    for i in (1, 2):
        save(driven, f"checkpoint-00{i}", i)
    driven.start()
    driven.look()
    (driven.root / "checkpoint-001.safetensors").unlink()
    reads = []
    read_each = memory.read_each
    monkeypatch.setattr(
        memory, "read_each", lambda paths, *more: reads.extend(paths) or read_each(paths, *more)
    )
    monkeypatch.setattr(
        "ckptsel.ranking.workspace.extract_features", lambda *_: pytest.fail("extracted again")
    )
    driven.look(1)
    assert driven.names == ["checkpoint-001", "checkpoint-002"] and reads == []
    assert any("checkpoint-001: deleted" in note for note in driven.watch.ranking.notes)
    driven = Driven(driven.root, driven.data, driven.out)  # another process goes on
    driven.start()
    driven.look()
    assert driven.names == ["checkpoint-001", "checkpoint-002"] and reads == []
    assert [row.name for row in read_ranking(driven.out)[0]] == [
        row.name for row in driven.watch.ranking
    ]


def test_a_file_that_is_written_over_keeps_its_former_selves(driven: Driven) -> None:
    driven.start()
    save(driven, "last", 1)
    driven.look()
    former = driven.watch.ranking["last"].digest
    save(driven, "last", 2)
    driven.look()
    assert driven.names == ["last", f"last~{former[:8]}"]
    assert [r.epoch for r in sorted(driven.watch.ranking, key=lambda r: r.order)] == [1, 2]


def test_former_selves_without_an_epoch_are_in_the_order_in_which_they_were_written(
    driven: Driven,
) -> None:
    driven.start()
    digests = []
    driven.root.mkdir()
    for seed in range(4):
        torch.manual_seed(seed)
        torch.save(timm.create_model(TINY_MODEL).state_dict(), driven.root / "model.pth")
        driven.look()
        digests.append(driven.watch.ranking["model"].digest)
        driven.start()  # in another process
    driven.look()
    rows = sorted(driven.watch.ranking, key=lambda row: row.order)
    assert [row.digest for row in rows] == digests
    assert driven.watch.ranking.references["last"].name == "model"


def test_a_last_that_repeats_others_leaves_no_traces(driven: Driven) -> None:
    driven.start()
    for i in (1, 2):
        shutil.copy(save(driven, f"checkpoint-00{i}", i), driven.root / "last.safetensors")
        driven.look()
    assert driven.names == ["checkpoint-001", "checkpoint-002", "last"]
    (driven.root / "checkpoint-002.safetensors").unlink()
    driven.look()
    # It is still known by the name that says more, and can be read from the other file.
    row = driven.watch.ranking["checkpoint-002"]
    assert row.path == str(driven.root / "last.safetensors")
    assert driven.watch.ranking["last"].copy_of == "checkpoint-002"
    save(driven, "last", 3)
    driven.look()
    assert driven.names == ["checkpoint-001", "checkpoint-002", "last"]


def test_a_failure_is_tried_again_with_growing_pauses(driven: Driven, capsys) -> None:
    save(driven, "checkpoint-001", 1)
    path = save(driven, "checkpoint-002", 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    driven.start(poll=1)
    driven.look(2)
    assert driven.failed == ["checkpoint-002"]
    err = capsys.readouterr().err
    assert "checkpoint-002.safetensors failed (" in err and "tried again in 1 s" in err
    rounds = []
    for _ in range(60):
        driven.look(1)
        rounds.append(driven.n_rounds)
    assert rounds[-1] == 5 and "failed 5 times, and is left" in capsys.readouterr().err
    tries = [i for i in range(1, 60) if rounds[i] > rounds[i - 1]]
    assert tries == sorted(tries) and tries[-1] - tries[-2] > tries[1] - tries[0]
    path.write_bytes(whole)
    driven.look(2)
    assert driven.failed == [] and len(driven.names) == 2


def test_what_fails_for_a_moment_is_ranked_when_it_no_longer_does(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device had no memory left, say."""
    from ckptsel.ranking import workspace

    extract, is_full = workspace.extract_features, [True]

    def failing(*arguments: object) -> object:
        if is_full:
            raise MemoryError("CUDA out of memory")
        return extract(*arguments)

    monkeypatch.setattr(workspace, "extract_features", failing)
    save(driven, "checkpoint-001", 1)
    driven.start(poll=1)
    driven.look(2)
    assert driven.watch.ranking is None
    with pytest.raises(NothingToRank, match="CUDA out of memory"):
        driven.watch._result()
    is_full.clear()
    driven.look(3)
    assert driven.names == ["checkpoint-001"] and driven.watch._result() is driven.watch.ranking


def test_wrong_data_is_said_at_once_and_a_disk_that_comes_back_is_no_end(
    driven: Driven, tmp_path: Path, capsys
) -> None:
    with pytest.raises(DataError, match="no data at"):
        wrong = Driven(driven.root, tmp_path / "imges", driven.out)
        wrong.start()
    save(driven, "checkpoint-001", 1)
    driven.start(poll=1)
    driven.look()
    away = driven.data.rename(tmp_path / "away")
    save(driven, "checkpoint-002", 2)
    driven.look()
    assert "no data at" in capsys.readouterr().err and driven.names == ["checkpoint-001"]
    away.rename(driven.data)
    driven.look(3)
    assert driven.names == ["checkpoint-001", "checkpoint-002"]


def test_names_that_nobody_knows_are_said_before_any_checkpoint_comes(driven: Driven) -> None:
    with pytest.raises(ModelError, match=r"unknown model 'resnet5x'.* Did you mean resnet50"):
        driven.start(model="resnet5x")
    with pytest.raises(UsageError, match=r"unknown score 'lgme'.* Did you mean logme"):
        driven.start(scores=("lgme",))
    driven.start(
        model="module_that:comes_later"
    )  # what is the user's own is asked when it is built


def test_ends(driven: Driven, capsys) -> None:
    for what in ("is not there", "no checkpoint lies below"):
        driven.start(poll=1, stop_after=0)
        with pytest.raises(InputError, match="no checkpoint came below"):
            driven.watch.run()
        err = capsys.readouterr().err
        assert what in err and err.endswith("yet: it is looked for every 1 s\n")
        driven.root.mkdir(exist_ok=True)
    for i in (1, 2):
        save(driven, f"checkpoint-00{i}", i)
    driven.start(poll=1, until=2)
    assert len(driven.watch.run()) == 2
    driven.start(poll=1, stop_after=5)
    before = driven.now_s
    driven.watch.run()
    assert 5 <= driven.now_s - before <= 8
    (driven.root / "checkpoint-003.pth").write_bytes(b"")
    driven.start(poll=1, stop_after=0, strict=True)
    before = driven.now_s
    with pytest.raises(InputError, match="1 of 3 checkpoints cannot be used, and --strict"):
        driven.watch.run()
    assert driven.now_s - before >= 1 + 2 + 4 + 8  # what fails is tried again first
    assert len(read_ranking(driven.out)[0]) == 3


def test_the_folder_of_another_run_is_refused(driven: Driven, tmp_path: Path) -> None:
    save(driven, "checkpoint-001", 1)
    driven.start()
    driven.look()
    driven.root = tmp_path / "other"
    with pytest.raises(UsageError, match="holds the watch of another run, .*run"):
        driven.start()
    (driven.out / "watch.json").write_text("{")
    driven.start()  # what is broken is made anew


def test_commands_run_once_for_each_best_and_cannot_fail_the_watch(
    driven: Driven, tmp_path: Path, capsys
) -> None:
    command, log = logged(tmp_path)
    for i in (1, 2, 3):
        save(driven, f"checkpoint-00{i}", i)
        driven.start(on_best=command)  # each time another process
        driven.look(2)
    told = log()
    assert told[0] == f"it|is|{driven.root / 'checkpoint-001.safetensors'}"
    assert told[-1] == f"it|is|{driven.watch.ranking[driven.watch.ranking.best].path}"
    assert len(told) == len(set(told))
    broken = tmp_path / "broken"
    broken.write_text("no program, though it may be executed")
    broken.chmod(0o700)
    for command, problem in (
        (f"{sys.executable} -c 'import sys; sys.exit(7)'", "ended with exit code 7"),
        (str(broken), f"{broken} could not be run"),
    ):
        driven.start(on_best=command)
        driven.watch._memory.told.clear()
        driven.look(2)
        assert f"--on-best: {problem}" in capsys.readouterr().err.replace(f"{sys.executable} ", "")
    with pytest.raises(UsageError, match="--on-best is .* cannot be parted into words"):
        driven.start(on_best="echo '")
    with pytest.raises(UsageError, match="--on-peak is .* there is no program 'no-such-program'"):
        driven.start(on_peak="no-such-program {path}")


def test_the_place_of_the_path_may_be_named(tmp_path: Path) -> None:
    from ckptsel.watching.commands import run_command

    command, log = logged(tmp_path)
    assert run_command(f"{command} --file={{path}} end", "a b; rm x") is None
    assert log() == ["it|is|--file=a b; rm x|end"]
    slow = f"{sys.executable} -c 'import time; time.sleep(60)'"
    assert "was ended after 0 s" in (run_command(slow, "x", limit_s=0.2) or "")


def test_copies_of_the_best_outlive_their_files(driven: Driven, run) -> None:
    driven.out = driven.root / "ranking"  # inside the run: not taken for its checkpoints
    for i in (1, 2, 3):
        save(driven, f"checkpoint-00{i}", i)
    driven.start(keep_best=2)
    driven.look()
    order = [row.name for row in driven.watch.ranking]
    kept = sorted(path.stem for path in driven.out.glob("kept/*/*"))
    assert kept == sorted(order[:2])
    for path in driven.root.glob("*.safetensors"):
        path.unlink()
    save(driven, "checkpoint-004", 4)
    driven.look()
    assert len(driven.names) == 4
    best = list(driven.watch.ranking)[:2]
    for row in best:
        assert Path(row.path).is_file() and row.name in {
            p.stem for p in driven.out.glob("kept/*/*")
        }
    assert len(list(driven.out.glob("kept/*"))) == 2 and not list(driven.out.glob("kept/.*"))
    # What the ranking names can be picked, though the trainer has deleted it.
    kept_row = next(row for row in best if "kept" in row.path)
    code, out, err = run("pick", driven.out, "--checkpoint", kept_row.name)
    assert (code, out.strip()) == (0, kept_row.path), err


def test_what_is_kept_and_what_is_removed(driven: Driven, tmp_path: Path) -> None:
    from ckptsel.watching.arrivals import state_of
    from ckptsel.watching.keeping import keep

    path = save(driven, "last", 1)
    state = state_of(path)
    save(driven, "last", 2)
    os.utime(path, ns=(1, 1))
    (tmp_path / "kept" / "mine").mkdir(parents=True)
    assert keep(tmp_path / "kept", {"a" * 64: (path, state)}) == [
        f"{path} could not be kept: it changed after it was ranked"
    ]
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["mine"]
    for digest in ("a" * 64, "b" * 64):
        assert keep(tmp_path / "kept", {digest: (path, state_of(path))}) == []
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["b" * 16, "mine"]
    assert keep(tmp_path / "kept", {"b" * 64: None}) == []  # the file is gone, its copy is not
    assert (tmp_path / "kept" / ("b" * 16) / path.name).is_file()


def test_another_network_is_matched_again(driven: Driven) -> None:
    save(driven, "checkpoint-001", 1)
    driven.start()
    driven.look()
    driven.start(model="resnet10t", poll=1, stop_after=0)
    with pytest.raises(NothingToRank, match="do not fit resnet10t"):
        driven.watch.run()


def test_other_options_leave_what_is_gone_without_scores(driven: Driven, own_cache: Path) -> None:
    for i in (1, 2):
        save(driven, f"checkpoint-00{i}", i)
    driven.start()
    driven.look()
    (driven.root / "checkpoint-001.safetensors").unlink()
    driven.look(1)
    shutil.rmtree(own_cache)
    driven.start()
    driven.look()
    assert driven.names == ["checkpoint-002"]
    assert (
        "its file is gone, and the cache does not hold"
        in driven.watch.ranking["checkpoint-001"].reason
    )
    assert not driven.watch._retries.is_waiting


def test_all_files_may_go(driven: Driven) -> None:
    driven.start(keep_best=1, model=None)  # the network is known from the files
    save(driven, "checkpoint-001", 1)
    driven.look()
    shutil.rmtree(driven.root)
    driven.look()
    assert driven.watch.ranking is not None
    kept = Path(driven.watch.ranking["checkpoint-001"].path)
    assert kept.is_relative_to(driven.out) and kept.is_file()
    n = driven.n_rounds
    driven.start(keep_best=1, model=None, poll=1, stop_after=0)
    assert driven.watch.run().best == "checkpoint-001" and driven.n_rounds == n + 1


def test_a_crash_of_a_later_round_is_said_and_tried_again(
    driven: Driven, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    driven.start(poll=1)
    save(driven, "checkpoint-001", 1)
    driven.look()
    with monkeypatch.context() as patched:
        patched.setattr(module, "rank_found", lambda *_, **__: 1 / 0)
        save(driven, "checkpoint-002", 2)
        driven.look()
    assert "warning: unexpected ZeroDivisionError" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        driven.watch._result()
    driven.look(3)
    assert driven.names == ["checkpoint-001", "checkpoint-002"]
    assert driven.watch._result() is driven.watch.ranking


def test_a_disk_of_results_that_is_full_for_a_while_is_no_end(driven: Driven, capsys) -> None:
    driven.start(poll=1, keep_best=1)
    save(driven, "checkpoint-001", 1)
    driven.look()
    stored = (driven.out / "ranking.json").read_bytes()
    save(driven, "checkpoint-002", 2)
    with largest_file(1000):
        driven.look()
    err = capsys.readouterr().err
    assert "warning: cannot write" in err and "watch.json" in err
    assert (driven.out / "ranking.json").read_bytes() == stored  # of before, whole
    driven.look(3)
    assert len(read_ranking(driven.out)[0]) == 2
    driven.start()
    driven.look()
    assert driven.names == ["checkpoint-001", "checkpoint-002"]


def test_a_link_to_elsewhere_is_not_followed(driven: Driven, tmp_path: Path) -> None:
    save(driven, "checkpoint-001", 1)
    (tmp_path / "elsewhere").mkdir()
    save_checkpoint(tmp_path / "elsewhere" / "other.safetensors", 3, 3, 0.5)
    (driven.root / "link").symlink_to(tmp_path / "elsewhere")
    driven.start()
    driven.look()
    assert driven.names == ["checkpoint-001"] and driven.failed == ["link"]
    assert driven.watch._arrivals.look().states[driven.root / "link"] == (("link", 0, 0),)


def test_the_peak_is_said_and_told_once(
    driven: Driven, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = Estimate(0.05, 0.03, 0.07)
    monkeypatch.setattr(
        module,
        "find_peak",
        lambda ranking, *_: Peak(ranking.best, "epoch 1", lead, 0.02, True, "accuracy"),
    )
    command, log = logged(tmp_path)
    driven.start(on_peak=command)
    path = save(driven, "checkpoint-001", 1)
    driven.look()
    os.utime(path)
    driven.start(on_peak=command)
    driven.look()
    assert log() == [f"it|is|{path}"]
    assert driven.watch.ranking is not None
    assert driven.watch.ranking.notes[-1] == (
        "epoch 1 is ahead of the last 5 by 5.0 points [3.0, 7.0]; the chance that a later one passes "
        "it, were training to go on for as long again: 2 %, so the peak is past (the chance is a rule "
        "of thumb)"
    )


def test_what_a_stranger_wrote_into_the_memory_is_no_name_of_a_folder(
    driven: Driven, capsys
) -> None:
    save(driven, "checkpoint-001", 1)
    driven.start(keep_best=1)
    driven.look()
    stored = json.loads((driven.out / "watch.json").read_text())
    stored["present"][0]["checkpoint"]["digest"] = "../../../../up" + "0" * 50
    (driven.out / "watch.json").write_text(json.dumps(stored))
    driven.start(keep_best=1)
    assert "is no digest); every checkpoint is read anew" in capsys.readouterr().err
    driven.look()
    assert driven.names == ["checkpoint-001"]


# ---- the command ---------------------------------------------------------------------------------

FAST = ("--nice", 0, "--poll", 0.05, "--scores", "linear_probe", "--workers", 0)


def test_the_command_prints_one_ranking_and_leaves_a_page_that_rests(
    run, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    where = (trajectory, "-d", images, "-o", tmp_path / "out")
    code, out, err = run("watch", *where, *FAST, "--stop-after", 0, "--format", "json")
    assert code == 0, err
    assert len(json.loads(out)["checkpoints"]) == 3
    assert "location.reload" not in (tmp_path / "out/report.html").read_text()
    assert not (tmp_path / "out/tensorboard").exists()
    assert run("watch", *where, *FAST, "--stop-after", 0, "--log-to", "tensorboard")[0] == 0
    assert list((tmp_path / "out/tensorboard/ranking").iterdir())
    for missing, words in (
        ("no data given", (trajectory,)),
        ("no folder for the results given", (trajectory, "-d", images)),
        ("leave out --no-cache", (*where, "--no-cache")),
        ("--devices is 'cuda:999'; ", (*where, "--devices", "cuda:999")),
        ("s3://bucket/run is an address", ("s3://bucket/run", *where[1:])),
        ("s3://bucket/out is an address", (*where[:3], "-o", "s3://bucket/out")),
    ):
        code, _, err = run("watch", *words)
        assert code == 2 and missing in err


def test_a_log_says_again_only_what_is_new(run, trajectory, images, tmp_path: Path) -> None:
    """What fails is tried five times; the ranking of the others is the same each time."""
    (trajectory / "checkpoint-020.safetensors").write_bytes(b"cut")
    code, _, err = run(
        "watch", trajectory, "-d", images, "-o", tmp_path / "out", *FAST, "--stop-after", 0
    )
    assert code == 0 and "failed 5 times, and is left" in err
    assert err.count(" is recommended, ") == 1


TRAINER = """
import shutil, sys, time
from pathlib import Path
source, run = map(Path, sys.argv[1:])
run.mkdir()
for i, path in enumerate(sorted(source.iterdir())):
    data = path.read_bytes()
    with open(run / path.name, "wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        time.sleep(0.2)
        file.write(data[len(data) // 2 :])
    shutil.copy(run / path.name, run / "last.safetensors")
    time.sleep(0.5)
    (run / path.name).unlink()
"""


@pytest.mark.slow
def test_beside_a_trainer_that_deletes(trajectory: Path, images: Path, tmp_path: Path) -> None:
    """Real processes: the page loads itself again while they run, and a signal leaves all whole."""
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "ckptsel", "watch", tmp_path / "run", "-d", images, "-o", out),
        *(*FAST, "--format", "csv"),
    ]
    command = [str(word) for word in command]
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert wait_for(out.exists)
    subprocess.run([sys.executable, "-c", TRAINER, trajectory, tmp_path / "run"], check=True)
    page = out / "report.html"
    assert wait_for(lambda: page.is_file() and "location.reload" in page.read_text())
    watch.send_signal(signal.SIGTERM)
    assert watch.wait(60) == 143
    assert "terminated: what was finished is kept" in watch.stderr.read()
    assert "location.reload" not in page.read_text()
    rows = list(read_ranking(out)[0])
    assert rows and {row.status for row in rows} == {"ok"}


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux alone has it")
def test_it_steps_back_for_the_trainer() -> None:
    code = (
        "import os; from ckptsel.cli.watch import step_back; step_back(3)\n"
        "print(os.nice(0), open('/proc/self/oom_score_adj').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(os.nice(0) + 3), "1000"]


def wait_for(is_so: Callable[[], bool], seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.1)
    return is_so()
