"""Files are read in other processes: what one of them does costs that one alone."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckptsel.checkpoints import guard
from ckptsel.checkpoints.guard import Limits
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.checkpoints.walk import find_checkpoint_files
from ckptsel.checkpoints.weights import read_weights
from ckptsel.errors import CheckpointError

HOSTILE = Path(__file__).parents[2] / "shared" / "hostile"
LIMITS = Limits(memory=1 << 30, seconds=2)


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(3, 2, generator=generator) for name in ("conv.weight", "fc.bias")}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends a reader is the file, however busy this machine is."""
    monkeypatch.setattr(guard, "PATIENCE", 1000)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Three good checkpoints, between which odd files come to lie."""
    folder = tmp_path / "ckpts"
    folder.mkdir()
    for epoch in (1, 5, 9):
        torch.save(weights(epoch), folder / f"model_{epoch}.pth")
    return folder


def torch_zip(pkl: bytes, **records: bytes) -> bytes:
    """A file of torch.save around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", pkl)
        for name, data in records.items():
            archive.writestr(f"a/data/{name}", data)
    return buffer.getvalue()


def nested_key(depth: int) -> bytes:
    """A dict whose key is a tuple of a tuple of ...: 200 bytes whose hash takes 2^depth steps."""
    pairs = b"".join(b"q%c0h%ch%c\x86" % (i, i, i) for i in range(depth))
    return b"\x80\x02})" + pairs + b"K\x01s."


def problem_of(folder: Path, data: bytes, limits: Limits = LIMITS) -> str:
    """What is said of a file that lies among good ones, which must not be harmed."""
    (folder / "model_3.pth").write_bytes(data)
    found = {c.name: c for c in scan_checkpoints(folder, limits=limits)}
    odd = found.pop("model_3")
    assert [c.problem for c in found.values()] == [None] * 3
    assert len({c.digest for c in found.values()}) == 3
    return odd.problem or ""


def test_a_file_that_takes_for_ever_is_stopped(good: Path) -> None:
    assert pickle.loads(nested_key(3))
    said = problem_of(good, torch_zip(nested_key(60)))
    assert "took more than 2 s of computing and was stopped" in said
    assert "--read-timeout" in said


def waiting(path_holds: str, seconds: float) -> str:
    """The start of a child that waits before it reads some files, as where the disk is slow, or where
    other programs take the processor."""
    return (
        "import sys; sys.path[:] = {path!r}\n"
        "import time, ckptsel.checkpoints.child as c; read = c.inspect_checkpoint\n"
        "def wait(path, *rest):\n"
        f"    if {path_holds!r} in path.name: time.sleep({seconds})\n"
        "    return read(path, *rest)\n"
        "c.inspect_checkpoint = wait; c.main({memory})"
    )


def test_what_waits_without_computing_has_longer(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "START", waiting("5", 1.6))
    found = scan_checkpoints(good, limits=Limits(seconds=0.5))
    assert {c.problem for c in found} == {None}


def test_what_waits_for_ever_is_stopped(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "PATIENCE", 2)
    monkeypatch.setattr(guard, "START", waiting("5", 1000))
    found = scan_checkpoints(good, limits=Limits(seconds=3))
    problems = {c.name: c.problem for c in found}
    assert "took more than 6 s and was stopped" in (problems.pop("model_5") or "")
    assert set(problems.values()) == {None}


def test_a_file_that_asks_for_all_memory_is_refused(good: Path) -> None:
    """The place of a memo decides how large the table of memos is."""
    said = problem_of(good, torch_zip(b"\x80\x02}r\xff\xff\xff\x03."))
    assert "needs more memory than a file of its size may take" in said
    assert "--read-memory" in said


def test_what_ends_the_reader_is_named(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a fault in a library would: the second file is the one that does it."""
    crash = (
        "import os, signal, ckptsel.checkpoints.child as c; read = c.inspect_checkpoint\n"
        "def die(path, *rest):\n"
        "    if '5' in path.name: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return read(path, *rest)\n"
        "c.inspect_checkpoint = die; c.main({memory})"
    )
    monkeypatch.setattr(guard, "START", "import sys; sys.path[:] = {path!r}\n" + crash)
    found = scan_checkpoints(good, limits=Limits(seconds=9))
    problems = {c.name: c.problem for c in found}
    assert problems.pop("model_5") == (
        "reading it ended the reader (SIGSEGV): it is damaged, made to break programs, or was changed "
        "while it was read."
    )
    assert set(problems.values()) == {None}


def test_an_unexpected_error_in_the_reader_fails_its_file(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = (
        "import ckptsel.checkpoints.reading as r; name = r.format_of\n"
        "def fail(payload, facts, path):\n"
        "    return 1 / 0 if '5' in path.name else name(payload, facts, path)\n"
        "r.format_of = fail; import ckptsel.checkpoints.child as c; c.main({memory})"
    )
    monkeypatch.setattr(guard, "START", "import sys; sys.path[:] = {path!r}\n" + odd)
    problems = {c.name: c.problem for c in scan_checkpoints(good, limits=Limits(seconds=8))}
    assert problems.pop("model_5") == "unexpected ZeroDivisionError: division by zero"
    assert set(problems.values()) == {None}


def test_files_that_are_too_large_are_not_opened(good: Path) -> None:
    said = problem_of(good, b"x" * 5000, Limits(size=4000))
    assert "--max-file-size" in said


@pytest.mark.parametrize(
    "pkl",
    [
        pytest.param(
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}U\x08__call__K\x01sb.", id="a function"
        ),
        pytest.param(
            b"\x80\x02ccollections\nOrderedDict\n}U\x0c__setstate__K\x01sb.", id="a class"
        ),
        pytest.param(
            b"\x80\x02cargparse\nNamespace\nN}U\x08__init__K\x01s\x86b.", id="slots of a class"
        ),
        pytest.param(
            b"\x80\x02cforeign\nNet\n}U\tfull_nameU\x01xsb.", id="a class that is not known"
        ),
        pytest.param(
            b"\x80\x02cforeign\nNet\nN}U\tfull_nameU\x01xs\x86b.", id="slots of such a class"
        ),
        pytest.param(b"\x80\x02cnumpy\ndtype\n}U\x07numbersK\x01sb.", id="numpy's type"),
        pytest.param(b"\x80\x02cos\nsystem\nU\x04true\x85R.", id="a call"),
        pytest.param(b"\x80\x02ccollections\nOrderedDict.update\n}\x85R.", id="dotted"),
        pytest.param(
            b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.", id="size"
        ),
    ],
)
def test_no_pickle_changes_how_the_next_file_is_read(good: Path, pkl: bytes) -> None:
    before = [(c.name, c.digest) for c in scan_checkpoints(good)]
    (good / "model_0.pth").write_bytes(torch_zip(pkl))  # read first, by the same child
    first, *after = scan_checkpoints(good)
    assert first.problem is not None
    assert [(c.name, c.digest) for c in after] == before


def test_compressed_archives_are_not_unpacked(good: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("a/data/0", bytes(10_000_000))
    assert "compressed, which torch.save never does" in problem_of(good, buffer.getvalue())


def test_the_reader_needs_no_torch_and_starts_at_once(tmp_path: Path) -> None:
    code = "import sys, ckptsel.checkpoints.scan; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "timm", "torchvision", "scipy", "safetensors", "PIL"}


def test_pipes_are_not_opened(good: Path) -> None:
    for name in ("a_2.pt", "a_3.safetensors"):
        os.mkfifo(good / name)
    odd = {c.name: c.problem for c in scan_checkpoints(good) if c.problem}
    assert set(odd) == {"a_2", "a_3"}
    assert all("no regular file" in problem for problem in odd.values())


def test_links_in_circles_and_out_of_the_folder(good: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    torch.save(weights(7), elsewhere / "secret_7.pth")
    (good / "here").symlink_to(".")
    (good / "there").symlink_to(".")
    (good / "root").symlink_to("/")
    (good / "last.pth").symlink_to("model_9.pth")
    (good / "stolen_7.pth").symlink_to(elsewhere / "secret_7.pth")
    (good / "self.pth").symlink_to("self.pth")
    found = {c.name: c for c in scan_checkpoints(good)}
    assert set(found) == {"model_1", "model_5", "model_9", "last", "root", "stolen_7", "self"}
    assert (found["last"].problem, found["last"].copy_of) == (None, "model_9")
    assert f"leads out of the folder, to {elsewhere}" in found["stolen_7"].problem
    assert "leads out of the folder, to /:" in found["root"].problem
    assert found["self"].problem == "a link to self.pth, where no file is."


def test_a_folder_that_is_itself_a_link_is_fine(good: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(good)
    assert [c.problem for c in scan_checkpoints(tmp_path / "link")] == [None] * 3
    assert [c.problem for c in scan_checkpoints(tmp_path / "link" / "model_1.pth")] == [None]


def test_the_cache_of_the_hub_is_read_through_its_links(tmp_path: Path) -> None:
    model = tmp_path / "models--a--b"
    snapshot = model / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (model / "blobs").mkdir()
    save_file(weights(), model / "blobs" / "f00d")
    (snapshot / "model.safetensors").symlink_to("../../blobs/f00d")
    (found,) = scan_checkpoints(snapshot)
    assert found.problem is None
    (model / "blobs" / "f00d").unlink()
    (model / "blobs" / "f00d").symlink_to("/etc/passwd")
    assert "leads out of the folder" in (scan_checkpoints(snapshot)[0].problem or "")


@pytest.mark.parametrize(
    "shard", ["../secret.safetensors", "/etc/passwd", "x" * 5000, "a\0b", ".."]
)
def test_an_index_of_shards_does_not_lead_out_of_its_folder(good: Path, shard: str) -> None:
    save_file(weights(), good / "secret.safetensors")
    folder = good / "checkpoint-7"
    folder.mkdir()
    index = json.dumps({"weight_map": {"a": shard}})
    (folder / "model.safetensors.index.json").write_text(index)
    found = {c.name: c for c in scan_checkpoints(good)}
    assert "names" in (found["checkpoint-7"].problem or "")
    assert sum(c.problem is None for c in found.values()) == 4


def test_names_that_are_no_text(good: Path) -> None:
    torch.save(weights(3), os.fsdecode(os.fsencode(good) + b"/caf\xe9_3.pth"))
    found = {c.name: c.problem for c in scan_checkpoints(good)}
    assert found["caf\\udce9_3"] is None


def test_numbers_and_folders_without_end(good: Path) -> None:
    torch.save(weights(3), good / ("9" * 200 + ".pth"))
    (good / "checkpoint-5²").mkdir()
    save_file(weights(4), good / "checkpoint-5²" / "model.safetensors")
    here = Path.cwd()
    os.chdir(good)
    try:
        for _ in range(1200):
            Path("d").mkdir()
            os.chdir("d")
    finally:
        os.chdir(here)
    assert len(find_checkpoint_files(good)) == 5
    assert [c.problem for c in scan_checkpoints(good)] == [None] * 5
    subprocess.run(["rm", "-rf", str(good / "d")], check=True)


def test_several_readers_say_what_one_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for epoch in range(12):
        torch.save({"state_dict": weights(epoch), "epoch": epoch}, tmp_path / f"m{epoch}.pth")
    (tmp_path / "m12.pth").write_bytes(torch_zip(nested_key(60)))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    by_one = scan_checkpoints(tmp_path, limits=LIMITS)
    monkeypatch.setattr(guard, "BYTES_A_CHILD", 1)
    assert scan_checkpoints(tmp_path, limits=LIMITS) == by_one
    assert sum(c.problem is not None for c in by_one) == 1


def test_relative_paths_are_those_of_now(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that was started in another folder is used again."""
    for folder in (good, tmp_path):
        monkeypatch.chdir(folder)
        found = scan_checkpoints(good.relative_to(folder))
        assert [c.problem for c in found] == [None] * 3
        assert read_weights(found[0])


def test_a_file_that_is_gone_fails_by_name(good: Path) -> None:
    found = scan_checkpoints(good)
    (good / "model_1.pth").unlink()
    with pytest.raises(CheckpointError, match="cannot open the file"):
        read_weights(found[0])
    assert read_weights(found[1])


def test_an_interrupted_scan_leaves_no_reader_behind(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (good / "model_3.pth").write_bytes(torch_zip(nested_key(60)))
    answers = guard.inspect_all(find_checkpoint_files(good), good, "auto", Limits(seconds=500))
    assert "found" in next(answers)
    with pytest.raises(KeyboardInterrupt):
        answers.throw(KeyboardInterrupt)
    assert not guard._busy


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="the hostile files are not there")
def test_the_hostile_files_are_read_or_refused_in_a_second() -> None:
    found = {c.name: c.problem for c in scan_checkpoints(HOSTILE, limits=Limits(seconds=1))}
    refused = {name for name, problem in found.items() if problem}
    assert refused == {"expanded", "hang_punycode", "surrogate"}
    assert all("stopped" not in (problem or "") for problem in found.values())
