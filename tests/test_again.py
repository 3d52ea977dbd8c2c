"""What is not done a second time, and that nothing stale is ever taken for it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ckptsel
from ckptsel.checkpoints import scan as scan_module
from ckptsel.checkpoints.guard import Limits, close
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.common import states
from ckptsel.common.cache import CacheFolder
from ckptsel.common.states import state_of
from ckptsel.ranking import again
from ckptsel.target.images import files_as_image_set
from ckptsel.target.samples import FileSamples
from ckptsel.target.target import load_target
from tests.conftest import make_data, save_checkpoint, save_images

SAID = "as they were: this is the ranking of"


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a test are a moment old."""
    monkeypatch.setattr(states, "SETTLED_NS", 0)


def overwrite(path: Path, data: bytes) -> None:
    """In place, of the same size and with the old time of writing: as like the old file as can be."""
    about = path.stat()
    assert len(data) == about.st_size
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def with_last_byte_changed(path: Path) -> bytes:
    data = path.read_bytes()
    return data[:-1] + bytes([data[-1] ^ 1])


# ------------------------------------------------------------------------------- whole rankings


@pytest.fixture
def rank(run, trajectory: Path, images: Path) -> Callable[..., tuple[dict, str]]:
    """Rank the made run; gives (the ranking, stderr)."""

    def call(*options: object, data: Path = images, root: Path = trajectory) -> tuple[dict, str]:
        fixed = ("--scores", "linear_probe", "-f", "json")
        code, out, err = run("rank", root, "-d", data, *fixed, *options)
        assert code == 0, err
        return json.loads(out), err

    return call


def test_the_same_again_is_the_same_ranking(rank) -> None:
    first, said = rank()
    assert SAID not in said
    second, said = rank()
    assert SAID in said and second == first
    third, said = rank("--verify")
    assert SAID not in said and third["checkpoints"] == first["checkpoints"]
    assert SAID not in rank()[1], "what was verified takes the place of what was kept"
    assert SAID in rank()[1]


def change_checkpoint(run: Path, images: Path) -> None:
    path = run / "checkpoint-005.safetensors"
    overwrite(path, with_last_byte_changed(path))


def change_image(run: Path, images: Path) -> None:
    path = images / "train" / "class0" / "0.png"
    other = images.parent / "other" / "class0" / "0.png"
    save_images(images.parent / "other", 1, seed=9)
    path.write_bytes(other.read_bytes())


def rename_image(run: Path, images: Path) -> None:
    (images / "train" / "class0" / "0.png").rename(images / "train" / "class1" / "x.png")


def add_checkpoint(run: Path, images: Path) -> None:
    save_checkpoint(run / "checkpoint-020.safetensors", 7, 20, 0.5)


CHANGES = [
    change_checkpoint,
    change_image,
    rename_image,
    add_checkpoint,
    lambda run, images: (run / "checkpoint-005.safetensors").unlink(),
    lambda run, images: os.utime(run / "checkpoint-005.safetensors"),
    lambda run, images: os.utime(images / "val" / "class2" / "3.png"),
    lambda run, images: (run / "note.txt").write_text("another file, which is counted"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_changed_ends_it(rank, trajectory: Path, images: Path, change) -> None:
    first, _ = rank()
    change(trajectory, images)
    second, said = rank()
    assert SAID not in said
    fresh, _ = rank("--no-cache")
    for key in ("checkpoints", "target", "notes"):
        assert second[key] == fresh[key]
    if change is change_checkpoint:
        assert second["checkpoints"] != first["checkpoints"]
    if change is change_image:
        assert second["target"]["fingerprint"] != first["target"]["fingerprint"]


def test_other_options_are_another_ranking(rank, monkeypatch: pytest.MonkeyPatch) -> None:
    rank()
    for options in (["--seed", 1], ["--by", "linear_probe"], ["--order", "name"]):
        assert SAID not in rank(*options)[1], options
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert SAID not in rank()[1]


def test_a_link_that_leads_elsewhere_ends_it(rank, trajectory: Path) -> None:
    target = trajectory / "checkpoint-001.safetensors"
    (trajectory / "checkpoint-002.safetensors").symlink_to(target)
    rank()
    assert SAID in rank()[1]
    (trajectory / "checkpoint-002.safetensors").unlink()
    (trajectory / "checkpoint-002.safetensors").symlink_to(
        trajectory / "checkpoint-005.safetensors"
    )
    found, said = rank()
    copies = {row["name"]: row["copy_of"] for row in found["checkpoints"]}
    assert SAID not in said and copies["checkpoint-005"] == "checkpoint-002"


def test_what_was_changed_a_moment_ago_may_change_again(
    rank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "SETTLED_NS", 10**12)
    rank()
    assert SAID not in rank()[1]


def test_what_may_depend_on_more_is_not_kept(
    rank, trajectory: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = images.parent / "list.csv"
    files = sorted((images / "train").rglob("*.png"))
    table.write_text("path,label\n" + "".join(f"{p},{p.parent.name}\n" for p in files))
    for _ in range(2):
        assert SAID not in rank(data=table)[1], "a list names files anywhere"
    for _ in range(2):
        assert SAID not in rank("--no-cache")[1]
    (trajectory / "broken.pth").write_bytes(b"PK\x03\x04")
    for _ in range(2):
        assert SAID not in rank()[1], "what failed may go well the next time"
    (trajectory / "broken.pth").unlink()
    monkeypatch.setattr(again, "entry_points", lambda group: ["a plug-in"])
    for _ in range(2):
        assert SAID not in rank()[1]


def test_own_code_is_run_every_time(rank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_network_again.py").write_text(
        "import timm\ndef make():\n    return timm.create_model('cifar_resnet18_w16_s2')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for _ in range(2):
        _, said = rank("--model", "own_network_again:make", "--image-size", 32)
        assert SAID not in said


def test_a_change_of_the_package_itself_ends_it(
    rank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "package" / "scores" / "mine.py"
    source.parent.mkdir(parents=True)
    source.write_text("1")
    monkeypatch.setattr(again, "PACKAGE", tmp_path / "package")
    rank()
    assert SAID in rank()[1]
    os.utime(source, ns=(0, source.stat().st_mtime_ns + 1))
    assert SAID not in rank()[1]


def test_a_damaged_ranking_is_made_anew(rank, own_cache: Path) -> None:
    first, _ = rank()
    (entry,) = (own_cache / "v2" / again.KIND).iterdir()
    entry.write_bytes(with_last_byte_changed(entry))
    second, said = rank()
    assert SAID not in said and second["checkpoints"] == first["checkpoints"]


def test_results_that_lie_there_are_left_alone(rank, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rank("-o", out)

    def times() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in out.iterdir()}

    before = times()
    rank("-o", out)
    assert times() == before
    (out / "report.html").unlink()
    rank("-o", out)
    assert (out / "report.html").is_file()
    text = (out / "ranking.json").read_text()
    (out / "ranking.json").write_text(text.replace("checkpoint-005", "checkpoint-006"))
    rank("-o", out)
    assert (out / "ranking.json").read_text() == text


def test_the_second_call_needs_neither_torch_nor_a_reader(
    rank, trajectory: Path, images: Path
) -> None:
    rank()
    close()
    words = ["rank", str(trajectory), "-d", str(images), "--scores", "linear_probe", "-f", "json"]
    code = f"""
import sys
import ckptsel.common.states as states
states.SETTLED_NS = 0
sys.argv = ["ckptsel", *{words!r}]
from ckptsel.cli import main
try:
    main()
finally:
    heavy = {{"torch", "timm", "scipy", "altair", "ckptsel.checkpoints.guard"}} & set(sys.modules)
    print("heavy:", sorted(heavy), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert SAID in done.stderr and "heavy: []" in done.stderr


# ---------------------------------------------------------------------------------- checkpoints


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[list, list[str]]]:
    """Scan with a cache; gives (checkpoints, names of the files that were read)."""
    asked: list[str] = []
    inspect_all = scan_module.inspect_all

    def noted(paths, *rest):
        asked.extend(path.name for path in paths)
        return inspect_all(paths, *rest)

    monkeypatch.setattr(scan_module, "inspect_all", noted)

    def call(root: Path, *options, verify: bool = False) -> tuple[list, list[str]]:
        asked.clear()
        cache = CacheFolder(tmp_path / "kept", verify=verify)
        return scan_checkpoints(root, *options, cache=cache), list(asked)

    return call


def test_only_new_checkpoints_are_read(read, trajectory: Path) -> None:
    first, names = read(trajectory)
    assert len(names) == 3
    assert read(trajectory) == (first, [])
    assert len(read(trajectory, verify=True)[1]) == 3
    change_checkpoint(trajectory, trajectory)
    second, names = read(trajectory)
    assert names == ["checkpoint-005.safetensors"]
    assert second[1].digest != first[1].digest
    assert second == scan_checkpoints(trajectory)


def test_other_ways_to_read_are_other_answers(read, trajectory: Path) -> None:
    read(trajectory)
    assert len(read(trajectory, "raw")[1]) == 3
    found, names = read(trajectory, "auto", Limits(size=10))
    assert len(names) == 3 and "--max-file-size" in found[0].problem
    assert len(read(trajectory, "auto", Limits(size=10))[1]) == 3, "a problem is not kept"


def test_a_folder_is_read_again_when_a_file_in_it_changes(read, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoint-10"
    save_checkpoint(folder / "model.safetensors", 0, 1, 0.5)
    (folder / "trainer_state.json").write_text('{"epoch": 3.0, "global_step": 10}')
    first, _ = read(tmp_path / "run")
    assert first[0].epoch == 3 and read(tmp_path / "run")[1] == []
    overwrite(folder / "trainer_state.json", b'{"epoch": 4.0, "global_step": 10}')
    second, names = read(tmp_path / "run")
    assert names == ["checkpoint-10"] and second[0].epoch == 4
    (folder / "config.json").write_text('{"architectures": ["X"]}')
    assert read(tmp_path / "run")[1] == ["checkpoint-10"]


def test_a_part_whose_neighbours_count_is_always_read(read, tmp_path: Path) -> None:
    path = tmp_path / "run" / "mp_rank_00" / "weights.safetensors"
    save_checkpoint(path, 0, 1, 0.5)
    for _ in range(2):
        found, names = read(tmp_path / "run")
        assert names and found[0].problem is None
    (tmp_path / "run" / "mp_rank_01").mkdir()
    assert "tensor or pipeline" in read(tmp_path / "run")[0][0].problem


def test_a_link_out_of_the_folder_is_seen(read, trajectory: Path, tmp_path: Path) -> None:
    """A file that led out of the folder is not taken for one that does not, nor the other way."""
    inside, outside = trajectory / "checkpoint-001.safetensors", tmp_path / "outside.safetensors"
    os.link(inside, outside)  # one file, by two names
    (trajectory / "linked.safetensors").symlink_to(inside)
    assert all(c.problem is None for c in read(trajectory)[0])
    (trajectory / "linked.safetensors").unlink()
    (trajectory / "linked.safetensors").symlink_to(outside)
    found = {c.name: c.problem for c in read(trajectory)[0]}
    assert "leads out of the folder" in found["linked"]


def test_a_fitting_checkpoint_is_not_read_to_be_matched(
    trajectory: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"data": images, "scores": ["linear_probe"]}
    first = ckptsel.rank(trajectory, **options)

    def no_more(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("ckptsel.checkpoints.weights.read_weights", no_more)
    second = ckptsel.rank(trajectory, **options)
    assert [row.weights_key for row in second] == [row.weights_key for row in first]
    assert [row.scores for row in second] == [row.scores for row in first]


# --------------------------------------------------------------------------------------- images


def no_reading(self: object, index: int) -> bytes:
    raise AssertionError("read again")


def test_images_are_digested_once(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fingerprint(verify: bool = False) -> str:
        cache = CacheFolder(tmp_path / "kept", verify=verify)
        return load_target(str(images), cache=cache).image_sets[0].fingerprint

    first = fingerprint()
    with monkeypatch.context() as patch:
        patch.setattr(FileSamples, "read", no_reading)
        assert fingerprint() == first
        with pytest.raises(AssertionError, match="read again"):
            fingerprint(verify=True)
    path = images / "train" / "class1" / "4.png"
    overwrite(path, with_last_byte_changed(path))
    assert fingerprint() == load_target(str(images)).image_sets[0].fingerprint != first


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_rows_and_members_are_told_apart(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "parquet":
        make_data(tmp_path / "data", "train", 40, "RGB")
    else:
        import tarfile

        save_images(tmp_path / "loose", 10)
        (tmp_path / "data").mkdir()
        with tarfile.open(tmp_path / "data" / "train.tar", "w") as tar:
            for i, path in enumerate(sorted((tmp_path / "loose").rglob("*.png"))):
                label = tmp_path / f"{i}.cls"
                label.write_text(path.parent.name)
                tar.add(path, f"{i}.png")
                tar.add(label, f"{i}.cls")
    cache = CacheFolder(tmp_path / "kept")
    some, others = np.arange(10), np.arange(10, 20)  # of the same labels
    if kind == "tar":
        some, others = np.arange(5), np.arange(5, 10)
    images = load_target(str(tmp_path / "data"), cache=cache).image_sets[0]
    assert np.array_equal(images.labels[some], images.labels[others])
    first, half = images.fingerprint, images.subset(some).fingerprint
    same = load_target(str(tmp_path / "data"), cache=cache).image_sets[0]
    monkeypatch.setattr(type(same.samples), "read", no_reading)
    assert (same.fingerprint, same.subset(some).fingerprint) == (first, half)
    with pytest.raises(AssertionError, match="read again"):
        same.subset(others).fingerprint  # noqa: B018


def test_what_could_not_be_read_is_not_kept(images: Path, tmp_path: Path) -> None:
    cache = CacheFolder(tmp_path / "kept")
    paths = [*sorted((images / "train").rglob("*.png")), images / "train"]  # a folder cannot be
    images_set = files_as_image_set("train", paths, [0] * len(paths), ("a",))
    found = ckptsel.target.target.dataclasses.replace(images_set, cache=cache)
    assert found.fingerprint == images_set.fingerprint
    assert not list((tmp_path / "kept").rglob("*.entry"))


# --------------------------------------------------------------------------------------- states


def test_a_state_is_of_a_file_that_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    assert state_of(path) is not None
    monkeypatch.setattr(states, "SETTLED_NS", 2 * 10**9)
    assert state_of(path) is None, "another byte could be written within the same tick"
    os.utime(path, (1, 1))
    assert state_of(path) is None, "the time of writing can be set, that of the change cannot"
    assert state_of(tmp_path / "nothing") is None
    assert state_of("\0") is None
