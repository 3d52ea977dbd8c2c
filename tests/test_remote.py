"""Checkpoints, images and results in object storage: the ranking of what lies here, and broken lines."""

import importlib.util
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import ckptsel
from ckptsel.common import places, remote
from ckptsel.errors import InputError, OutputError
from ckptsel.results.files import read_ranking, write_ranking
from ckptsel.results.sending import open_outbox

SCORES = ("linear_probe",)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFileSystem]:
    """Storage in memory, empty; lines that break are tried again at once."""
    monkeypatch.setattr(remote, "PAUSES_S", (0.0,) * 4)
    monkeypatch.setattr(places, "mirrors", set())
    monkeypatch.setattr(remote, "mirrors", places.mirrors)
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    yield fsspec.filesystem("memory")


@pytest.fixture
def lab(storage: MemoryFileSystem, trajectory: Path, images: Path) -> MemoryFileSystem:
    """A run and a target in storage."""
    storage.put(str(trajectory), "/lab/run", recursive=True)
    storage.put(str(images), "/lab/images", recursive=True)
    return storage


class Reads:
    """Which files were opened for reading, by their names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        opened = MemoryFileSystem._open

        def noted(fs: Any, path: str, mode: str = "rb", **options: Any) -> Any:
            if mode == "rb":
                self.names.append(path.rpartition("/")[2])
            return opened(fs, path, mode, **options)

        monkeypatch.setattr(MemoryFileSystem, "_open", noted)


def numbers(ranking: Any) -> list:
    return [
        (row.name, row.p_best, {k: v.value for k, v in row.scores.items()})
        for row in ranking.checkpoints
    ]


def test_what_lies_there_is_ranked_as_what_lies_here(
    lab: MemoryFileSystem, run, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    here = ckptsel.rank(trajectory, images, scores=SCORES, cache=False)
    code, _, said = run(
        *("rank", "memory://lab/run", "--data", "memory://lab/images", "--scores", "linear_probe"),
        *("--out", "memory://lab/out"),
    )
    assert code == 0 and "fetch" in said
    names = {path.rpartition("/")[2] for path in lab.find("/lab/out")}
    assert names == {"ranking.json", "ranking.csv", "predictions.safetensors", "report.html"}
    lab.get("/lab/out", str(tmp_path / "out"), recursive=True)
    there, _ = read_ranking(tmp_path / "out")
    assert numbers(here) == numbers(there)
    best = next(iter(there))
    assert best.path == f"memory://lab/run/{best.name}.safetensors"
    assert there.settings["checkpoints"] == "memory://lab/run"
    assert there.target["data"] == "memory://lab/images"
    assert run("pick", tmp_path / "out")[1] == best.path + "\n"


def test_only_what_has_changed_is_fetched_again(
    lab: MemoryFileSystem, trajectory: Path, tmp_path: Path, monkeypatch
) -> None:
    reads = Reads(monkeypatch)
    lab.pipe_file("/lab/run/optimizer.pt", b"large")
    found = remote.local_path("memory://lab/run", str(tmp_path / "c"), skip=ckptsel_skip())
    assert sorted(reads.names) == [f"checkpoint-{e:03d}.safetensors" for e in (1, 5, 10)]
    reads.names.clear()
    assert remote.local_path("memory://lab/run", str(tmp_path / "c"), skip=ckptsel_skip()) == found
    assert reads.names == []
    lab.rm_file("/lab/run/checkpoint-001.safetensors")
    data = (trajectory / "checkpoint-005.safetensors").read_bytes()
    lab.pipe_file("/lab/run/checkpoint-005.safetensors", data)  # of the same size
    (found / "checkpoint-010.safetensors").write_bytes(b"damaged")
    remote.local_path("memory://lab/run", str(tmp_path / "c"), skip=ckptsel_skip())
    assert sorted(reads.names) == [f"checkpoint-{e:03d}.safetensors" for e in (5, 10)]
    assert sorted(path.name for path in found.iterdir()) == sorted(reads.names)
    assert (found / "checkpoint-010.safetensors").read_bytes() == (
        trajectory / "checkpoint-010.safetensors"
    ).read_bytes()


def test_processes_that_share_a_cache_share_the_fetching(
    lab: MemoryFileSystem, tmp_path: Path, monkeypatch
) -> None:
    reads = Reads(monkeypatch)
    copied, begun = remote._copy, []

    def let_another_fetch_meanwhile(*file: Any) -> None:
        begun.append(file)
        if len(begun) == 1:
            fetch("memory://lab/run")
            fetch("memory://lab/images")
        copied(*file)

    def fetch(address: str) -> None:
        remote.local_path(address, str(tmp_path / "c"))

    monkeypatch.setattr(remote, "AT_ONCE", 1)
    monkeypatch.setattr(remote, "_copy", let_another_fetch_meanwhile)
    fetch("memory://lab/run")
    checkpoints = [name for name in reads.names if name.startswith("checkpoint-")]
    assert len(checkpoints) == 4 and len(set(checkpoints)) == 3  # both had begun with the first
    reads.names.clear()
    fetch("memory://lab/run")
    fetch("memory://lab/images")
    assert reads.names == []  # neither has lost the other's tags


def ckptsel_skip():
    from ckptsel.checkpoints.walk import NOT_NEEDED

    return NOT_NEEDED


class Line:
    """A file that is read over a line which breaks in its middle, as often as `n_breaks` says."""

    n_breaks = 0

    def __init__(self, file: Any) -> None:
        self._file, self._n_read = file, 0

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, n: int) -> bytes:
        self._n_read += 1
        if self._n_read == 3 and Line.n_breaks:
            Line.n_breaks -= 1
            raise ConnectionResetError("the other side is gone")
        return self._file.read(n)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> type[Line]:
    opened = MemoryFileSystem.open
    monkeypatch.setattr(remote, "CHUNK", 1000)
    monkeypatch.setattr(
        MemoryFileSystem, "open", lambda fs, *args, **options: Line(opened(fs, *args, **options))
    )
    monkeypatch.setattr(Line, "n_breaks", 0)
    return Line


def test_a_line_that_breaks_is_tried_again(storage: MemoryFileSystem, line: type[Line]) -> None:
    storage.pipe_file("/lab/a.pt", bytes(range(250)) * 20)
    line.n_breaks = 4
    assert remote.local_path("memory://lab/a.pt").read_bytes() == bytes(range(250)) * 20
    assert line.n_breaks == 0


def test_a_line_that_goes_on_breaking_is_a_sentence(
    storage: MemoryFileSystem, line: type[Line], run, own_cache: Path
) -> None:
    storage.pipe_file("/lab/run/a.pt", bytes(5000))
    line.n_breaks = 100
    code, _, said = run("rank", "memory://lab/run", "--data", "d", "--quiet")
    assert code == 3
    assert said == (
        "error: memory://lab/run/a.pt cannot be read: ConnectionResetError: the other side is gone "
        "(5 tries).\n"
    )
    left = [path.name for path in own_cache.rglob("*") if path.is_file()]
    assert left == [remote.TAGS_NAME]


def test_a_file_that_ends_early_is_not_taken_for_whole(
    storage: MemoryFileSystem, monkeypatch
) -> None:
    storage.pipe_file("/lab/a.pt", bytes(5000))
    found = MemoryFileSystem.find
    monkeypatch.setattr(
        MemoryFileSystem,
        "find",
        lambda *args, **options: {
            path: {**about, "size": 6000} for path, about in found(*args, **options).items()
        },
    )
    with pytest.raises(InputError, match=r"it ended after 5,000 of 6,000 bytes \(5 tries\)"):
        remote.local_path("memory://lab/a.pt")


@pytest.mark.parametrize(
    ("place", "code", "message"),
    [
        ("memory://lab/none", 3, "error: nothing at memory://lab/none: no such file or folder.\n"),
        ("nope://lab/run", 2, "error: nope://lab/run: nope is no protocol of fsspec"),
        ("memory://lab/../run", 3, "has a file that no path here can have: 'lab/../run'"),
    ],
)
def test_places_that_are_none(storage, run, place: str, code: int, message: str) -> None:
    found, _, said = run("rank", place, "--data", "d")
    assert found == code and message in said


def test_a_library_that_is_missing(storage, run, monkeypatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    code, _, said = run("rank", "s3://lab/run", "--data", "d")
    assert code == 2 and said == "error: s3://lab/run needs the package s3fs: pip install s3fs.\n"


def test_names_that_lead_elsewhere_are_refused(storage: MemoryFileSystem, monkeypatch) -> None:
    about = {"/lab/run/../../evil.pt": {"type": "file", "size": 1, "created": 1}}
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *args, **options: about)
    with pytest.raises(InputError, match="a file that no path here can have"):
        remote.local_path("memory://lab/run")


def test_a_problem_names_the_address(lab: MemoryFileSystem, run) -> None:
    lab.rm("/lab/images/train/class2", recursive=True)
    code, _, said = run("rank", "memory://lab/run", "--data", "memory://lab/images")
    assert code == 3 and "memory://lab/images" in said and "/remote/" not in said


def test_a_ranking_does_not_name_what_is_fetched(
    lab: MemoryFileSystem, run, tmp_path: Path, own_cache: Path
) -> None:
    out = tmp_path / "out"
    ranked = ("rank", "memory://lab/run", "--scores", "linear_probe", "--out", out)
    assert run(*ranked, "--data", "memory://lab/images")[0] == 0
    assert run("pick", out, "--to", tmp_path / "b.safetensors")[0] == 0  # still in the cache
    code, _, said = run("confirm", out)
    assert code == 3 and "A file may not name what is downloaded" in said
    shutil.rmtree(own_cache)
    for command in (("pick", out, "--to", tmp_path / "c.safetensors"), ("confirm", out)):
        code, _, said = run(*command)
        assert code == 3 and "is not fetched since a file names it" in said
    assert not own_cache.joinpath("remote").exists()


def test_the_cache_knows_its_mirrors(lab: MemoryFileSystem, run, own_cache: Path) -> None:
    remote.local_path("memory://lab/run")
    assert "remote" in run("cache", "info")[1]
    assert "0 entries" in run("cache", "prune", "--max-size", "1B")[1]
    assert run("cache", "clear")[0] == 0
    assert list((own_cache / "remote" / "memory").iterdir()) == []


class Fault(Exception):
    """The line is gone for good."""


def failing(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """From the operation after so many others on, storage takes nothing any more."""
    left = [after]
    for name in ("put_file", "copy", "rm_file"):
        work = getattr(MemoryFileSystem, name)

        def tried(fs: Any, *args: Any, work: Any = work, **options: Any) -> Any:
            if left[0] <= 0:
                raise Fault("gone")
            left[0] -= 1
            return work(fs, *args, **options)

        monkeypatch.setattr(MemoryFileSystem, name, tried)


def test_a_fault_at_any_moment_leaves_the_old_results_or_the_new(
    storage: MemoryFileSystem, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    new, arrays = read_ranking(make(tmp_path / "a", trajectory, images, 0))
    old, before = read_ranking(make(tmp_path / "b", trajectory, images, 1))
    seen, ended = set(), False
    for after in range(30):
        storage.rm("/", recursive=True) if storage.store else None
        send(old, before)
        with pytest.MonkeyPatch.context() as patch:
            failing(patch, after)
            try:
                send(new, arrays)
                ended = True
            except OutputError as error:
                assert "memory://lab/out/" in str(error) and "cannot be written" in str(error)
        target = tmp_path / f"found{after}"
        storage.get("/lab/out", str(target), recursive=True)
        found, with_arrays = read_ranking(target)
        assert found.settings["seed"] in (0, 1) and with_arrays
        seen.add(found.settings["seed"])
        if ended:
            break
    assert ended and seen == {0, 1} and after > 5
    assert not [path for path in storage.find("/lab/out") if "/." in path]


def make(folder: Path, trajectory: Path, images: Path, seed: int) -> Path:
    from ckptsel.ranking.rank import rank_with_predictions

    write_ranking(folder, *rank_with_predictions(trajectory, images, scores=SCORES, seed=seed))
    return folder


def send(ranking: Any, arrays: Any) -> None:
    with open_outbox(Path("memory://lab/out")) as outbox:
        write_ranking(outbox.folder, ranking, arrays)
        outbox.send()


@pytest.fixture
def s3(storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket of moto's server on this machine."""
    if not all(map(importlib.util.find_spec, ("s3fs", "moto", "flask"))):
        pytest.skip("s3fs and moto[server] are not installed")
    from moto.server import ThreadedMotoServer

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "made-up")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    fs.mkdir("lab")
    yield fs
    server.stop()
    fs.clear_instance_cache()


@pytest.mark.filterwarnings("ignore")  # of libraries of others
def test_s3(s3: Any, run, trajectory: Path, images: Path, tmp_path: Path, monkeypatch) -> None:
    s3.put(str(trajectory), "lab/run", recursive=True)
    s3.put(str(images), "lab/images", recursive=True)
    here = ckptsel.rank(trajectory, images, scores=SCORES, cache=False)
    ranked = ("rank", "s3://lab/run", "--data", "s3://lab/images", "--scores", "linear_probe")
    code, _, said = run(*ranked, "--out", "s3://lab/out")
    assert code == 0, said
    s3.invalidate_cache()
    s3.get("lab/out", str(tmp_path / "out"), recursive=True)
    assert numbers(read_ranking(tmp_path / "out")[0]) == numbers(here)
    assert not [path for path in s3.find("lab/out") if "/." in path]
    code, _, said = run(*ranked, "--out", "s3://lab/out")
    assert code == 0 and "fetch" not in said  # nothing has changed
    assert run("rank", "s3://lab/none", "--data", "d")[0] == 3
