"""The cache: what is damaged is made anew, what cannot be kept costs nothing, what is old goes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptsel
from ckptsel.common import cache as cache_module
from ckptsel.common import cache_files, states
from ckptsel.common.cache import CacheFolder
from ckptsel.common.quantities import bytes_of, seconds_of, size_text
from ckptsel.errors import OutputError
from ckptsel.features.packing import pack, unpack
from ckptsel.features.store import Cache
from ckptsel.results.scores import ScoreResult
from ckptsel.target import pixels
from ckptsel.target.pixels import Preprocessing, prepare_all
from ckptsel.target.sources import open_source
from tests.conftest import largest_file

resource = pytest.importorskip("resource", reason="limits of files are POSIX")

KEY = "0123456789abcdef" * 4
FEATURES = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
SCORE = ScoreResult(
    0.1,
    np.array([0.25, -0.5]),
    np.array([[1, 2]]),
    ("odd",),
    {"C": 1e-3, "k": None},
    {"s": FEATURES},
)
RECORD = {
    "points": [(1, 0.1, float("inf"))],
    "predictions": {3: torch.tensor([1, 2])},
    "empty": torch.zeros(0, 4),
    "none": None,
}
SETTINGS = Preprocessing((3, 8, 8), "bilinear", (0.5,) * 3, (0.2,) * 3, 1.0)


def same(a: Any, b: Any) -> bool:
    """The same values of the same types, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if dataclasses.is_dataclass(a):
        return same(vars(a), vars(b))
    return a == b


@dataclasses.dataclass(frozen=True)
class Kind:
    put: Callable[[Cache, str], None]
    get: Callable[[Cache, str], Any]
    value: Any


KINDS = {
    "features": Kind(
        lambda c, key: c.put_features(key, FEATURES), lambda c, key: c.get_features(key), FEATURES
    ),
    "scores": Kind(lambda c, key: c.put_score(key, SCORE), lambda c, key: c.get_score(key), SCORE),
    "transfers": Kind(
        lambda c, key: c.put_record("transfers", key, RECORD),
        lambda c, key: c.get_record("transfers", key),
        RECORD,
    ),
    "pixels": Kind(
        lambda c, key: c.write("pixels", key, np.arange(24, dtype=np.uint8)),
        lambda c, key: c.read("pixels", key),
        bytearray(range(24)),
    ),
}


def entry_of(folder: Path, kind: str) -> Path:
    (path,) = (folder / cache_files.LAYOUT / kind).glob("*.entry")
    return path


@pytest.fixture(params=KINDS)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Kind, Path, Path]:
    """A kind, a folder with one entry of it, and its file."""
    kind = KINDS[request.param]
    cache = Cache(tmp_path / "kept")
    kind.put(cache, KEY)
    assert same(kind.get(cache, KEY), kind.value) and cache.notes() == []
    return kind, tmp_path / "kept", entry_of(tmp_path / "kept", request.param)


def test_no_damaged_byte_gives_other_numbers(kept: tuple[Kind, Path, Path]) -> None:
    """Every byte of the file in turn, the seal too."""
    kind, folder, path = kept
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        cache = Cache(folder)
        assert kind.get(cache, KEY) is None, position
        assert cache.n_discarded == 1 and not path.exists()
    path.write_bytes(whole)
    assert same(kind.get(Cache(folder), KEY), kind.value)


def test_no_cut_or_longer_file_is_read(kept: tuple[Kind, Path, Path]) -> None:
    kind, folder, path = kept
    whole = path.read_bytes()
    for data in (*(whole[:n] for n in range(len(whole))), whole + b"\0", whole + whole):
        path.write_bytes(data)
        assert kind.get(Cache(folder), KEY) is None


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", os.urandom(500)])
def test_a_foreign_file_is_made_anew(kept: tuple[Kind, Path, Path], content: bytes) -> None:
    kind, folder, path = kept
    path.write_bytes(content)
    cache = Cache(folder)
    assert kind.get(cache, KEY) is None
    kind.put(cache, KEY)
    assert same(kind.get(cache, KEY), kind.value)
    assert cache.notes() == [f"1 entry was damaged in the cache at {folder}, and made anew"]


def test_a_folder_in_its_place_is_made_anew(kept: tuple[Kind, Path, Path]) -> None:
    kind, folder, path = kept
    path.unlink()
    (path / "inside").mkdir(parents=True)
    cache = Cache(folder)
    assert kind.get(cache, KEY) is None
    kind.put(cache, KEY)
    assert same(kind.get(cache, KEY), kind.value) and cache.n_discarded == 1


def test_an_entry_under_another_name_is_noticed(kept: tuple[Kind, Path, Path]) -> None:
    """Renamed, or swapped with another that is whole."""
    kind, folder, path = kept
    other = path.with_name("f" * 40 + ".entry")
    path.rename(other)
    cache = Cache(folder)
    assert kind.get(cache, KEY) is None and cache.n_discarded == 0
    assert kind.get(cache, "f" * 64) is None and cache.n_discarded == 1


def test_an_entry_of_another_kind_is_noticed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put_record("transfers", KEY, RECORD)
    path = entry_of(tmp_path, "transfers")
    (tmp_path / cache_files.LAYOUT / "training").mkdir()
    path.rename(path.parent.with_name("training") / path.name)
    assert cache.get_record("training", KEY) is None and cache.n_discarded == 1


def test_a_whole_entry_of_another_layout_is_made_anew(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for data in (b"", b"no tensors", pack({"value": 1.0, "colour": "red"}), pack([1])):
        cache.write("scores", KEY, data)
        assert cache.get_score(KEY) is None
    assert cache.n_discarded == 4


def test_chunks_are_all_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries of many chunks, read whole and mapped, and one that ends with a chunk."""
    monkeypatch.setattr(cache_module, "CHUNK", 10)
    monkeypatch.setattr(cache_module, "CHUNKS_AT_ONCE", 3)
    for size in (0, 9, 10, 11, 95, 100):
        data = bytes(range(size))
        cache = CacheFolder(tmp_path)
        with cache.writing("pixels", KEY) as file:
            for start in range(0, size, 7):
                file.write(data[start : start + 7])
        assert cache.read("pixels", KEY) == data
        assert bytes(cache.map("pixels", KEY))[:size] == data
        path = entry_of(tmp_path, "pixels")
        whole = path.read_bytes()
        for position in range(0, len(whole), 3):
            for read in (cache.read, cache.map):
                path.write_bytes(
                    whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :]
                )
                assert read("pixels", KEY) is None


def test_what_is_packed_comes_back_as_it_was() -> None:
    shared = torch.arange(6.0)
    value = {
        "tuple": (1, (2.5, None), [True, "\u00e9"]),
        3: {0.5: "half", None: -0.0},
        "numbers": [float("inf"), 0.1, 2**60],
        "arrays": [np.array(2.0), np.zeros((0, 3)), np.arange(6)[::2], FEATURES.T],
        "tensors": [torch.tensor(1, dtype=torch.bfloat16), torch.zeros(2, 0), shared, shared[:3]],
        "strided": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    assert same(unpack(pack(value)), value)
    assert np.isnan(unpack(pack(float("nan"))))
    assert unpack(pack(FEATURES)).flags.writeable


def rank_of(trajectory: Path, images: Path, **options: Any) -> tuple[list, tuple[str, ...]]:
    ranking = ckptsel.rank(trajectory, images, scores=("linear_probe", "logme"), **options)
    rows = [(row.name, row.rank, row.p_best, row.scores, row.reason) for row in ranking]
    return rows, ranking.notes


def test_a_run_on_damaged_entries_gives_the_same_numbers_and_says_so(
    trajectory: Path, images: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "SETTLED_NS", 0)
    first, notes = rank_of(trajectory, images)
    entries = cache_files.list_entries(own_cache)
    assert {entry.kind for entry in entries} == {
        *("pixels", "features", "scores", "duplicates"),
        *("inspections", "fingerprints", "matches"),
    }
    for entry in entries:
        data = bytearray(entry.path.read_bytes())
        data[len(data) // 2] ^= 1
        entry.path.write_bytes(data)
    again, notes_again = rank_of(trajectory, images)
    assert again == first
    said = f"{len(entries)} entries were damaged in the cache at {own_cache}, and made anew"
    assert notes_again == (*notes, said)
    assert rank_of(trajectory, images) == (first, notes)


def test_a_full_disk_costs_only_what_is_kept(
    trajectory: Path, images: Path, own_cache: Path
) -> None:
    expected, _ = rank_of(trajectory, images, cache=False)
    with largest_file(2000):
        rows, notes = rank_of(trajectory, images)
    assert rows == expected
    (note,) = (note for note in notes if "not kept" in note)
    assert "what was computed is not kept for the next run: cannot write" in note
    assert "Make room there" in note
    assert all(entry.n_bytes <= 2000 for entry in cache_files.list_entries(own_cache))
    assert cache_files.list_leftovers(own_cache, 0) == []


def test_a_folder_that_cannot_be_written_costs_only_what_is_kept(
    trajectory: Path, images: Path, tmp_path: Path
) -> None:
    expected, _ = rank_of(trajectory, images, cache=False)
    (tmp_path / "file").write_text("")
    rows, notes = rank_of(trajectory, images, cache_dir=str(tmp_path / "file"))
    assert rows == expected
    assert sum("not kept for the next run: cannot write" in note for note in notes) == 1


def test_a_user_without_a_home_is_ranked_for(
    trajectory: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = rank_of(trajectory, images, cache=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CKPTSEL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    rows, notes = rank_of(trajectory, images)
    assert rows == expected and any("no home folder" in note for note in notes)


def test_confirm_goes_on_where_nothing_can_be_kept(
    trajectory: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rungs go on from states that then lie in a temporary folder: nothing is trained twice."""
    from ckptsel.confirmation.confirm import confirm_ranking
    from ckptsel.confirmation.runs import Transfer
    from ckptsel.settings.confirm import ConfirmSettings

    trained: list[str] = []
    train_to = Transfer._train_to

    def counted(transfer: Transfer, stop: int, training: Any) -> Any:
        trained.append(f"{transfer.candidate.name} {stop}")
        return train_to(transfer, stop, training)

    monkeypatch.setattr(Transfer, "_train_to", counted)

    ranking = ckptsel.rank(trajectory, images, scores=("linear_probe",))
    (tmp_path / "file").write_text("")
    settings = ConfirmSettings(
        n_candidates=2, n_seeds=1, steps=16, lr=(0.1,), full=True, batch_size=8
    )
    kept = confirm_ranking(ranking, settings)
    first, trained[:] = tuple(trained), []
    blocked = dataclasses.replace(settings, cache_dir=str(tmp_path / "file"))
    found = confirm_ranking(ranking, blocked)
    assert tuple(trained) == first and len(set(first)) == len(first) > 4
    assert found.outcomes["fe"].summary == kept.outcomes["fe"].summary
    assert found.outcomes["fe"].runs == kept.outcomes["fe"].runs
    assert sum("not kept" in note for note in found.ranking.notes) == 1
    assert not any("not kept" in note for note in kept.ranking.notes)


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small arrays are kept as large ones are."""
    monkeypatch.setattr(pixels, "MAPPED_FROM", 0)


def test_mapped_pixels_are_those_in_memory(images: Path, tmp_path: Path, mapped: None) -> None:
    train = open_source(str(images)).read("train")
    expected = prepare_all(train, SETTINGS, None, quiet=True)
    cache = CacheFolder(tmp_path / "kept")
    first = prepare_all(train, SETTINGS, cache, quiet=True)
    cache_files.clear(tmp_path / "kept")  # another process
    assert np.array_equal(first, expected)
    again = prepare_all(train, SETTINGS, cache, n_workers=1, quiet=True)
    path = entry_of(tmp_path / "kept", "pixels")
    whole = path.read_bytes()
    assert np.array_equal(again, expected)
    again[:] = 0  # torch may write to it
    assert path.read_bytes() == whole
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 4]) + whole[101:])
    assert np.array_equal(prepare_all(train, SETTINGS, cache, quiet=True), expected)
    assert cache.n_discarded == 1


def test_pixels_too_large_for_the_disk_end_in_a_sentence(
    images: Path, tmp_path: Path, mapped: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = open_source(str(images)).read("train")
    cache = CacheFolder(tmp_path / "kept")
    with largest_file(3000), pytest.raises(OutputError, match="File too large.*--no-cache"):
        prepare_all(train, SETTINGS, cache, quiet=True)
    disk = type("disk", (), {"free": 5000})
    monkeypatch.setattr("ckptsel.common.cache.shutil.disk_usage", lambda _: disk)
    with pytest.raises(OutputError, match=r"the 6.9 kB of decoded pixels .* has 5.0 kB left"):
        prepare_all(train, SETTINGS, cache, quiet=True)
    assert cache_files.list_leftovers(tmp_path / "kept", 0) == []


WRITE_FOR_EVER = """
import sys, itertools
from pathlib import Path
from ckptsel.common.cache import CacheFolder
cache = CacheFolder(Path(sys.argv[1]))
print("ready", flush=True)
for i in itertools.count():
    cache.write("features", str(i % 5) * 40, bytes([i % 256]) * 3_000_000)
"""


def test_a_killed_process_leaves_whole_entries_or_none(tmp_path: Path) -> None:
    for wait in (0.02, 0.05, 0.11):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        cache = CacheFolder(tmp_path)
        for i in range(5):
            data = cache.read("features", str(i) * 40)
            assert data is None or (len(data) == 3_000_000 and len(set(data)) == 1)
        assert cache.n_discarded == 0
    for entry in cache_files.list_leftovers(tmp_path, 0):
        os.utime(entry.path, (0, 0))
    cache_files.prune(tmp_path)
    assert cache_files.list_leftovers(tmp_path, 0) == []


def test_a_cache_may_be_cleared_at_any_moment(tmp_path: Path) -> None:
    """Readers and a writer beside one that clears: no error, and no entry that is not whole."""
    over = threading.Event()

    def clear() -> None:
        while not over.is_set():
            cache_files.clear(tmp_path)

    thread = threading.Thread(target=clear)
    thread.start()
    try:
        for i in range(200):
            cache = CacheFolder(tmp_path)  # one that could not keep something keeps nothing more
            cache.write("features", KEY, bytes([i]) * 1000)
            assert cache.read("features", KEY) in (None, bytes([i]) * 1000)
            assert cache.n_discarded == 0
    finally:
        over.set()
        thread.join()


RANK_WITH_A_JUMPING_CLOCK = """
import itertools, json, sys, time
import ckptsel
days = itertools.cycle([0, 400, -400, 2, -20_000])
true = time.time
time.time = lambda: true() + 86_400 * next(days)
checkpoints, images, cache = sys.argv[1:]
ranking = ckptsel.rank(
    checkpoints, images, image_size=32, workers=0, cache_dir=cache, cache_size="200kB", quiet=True
)
print(json.dumps({r.name: {n: s.value for n, s in r.scores.items()} for r in ranking}))
"""


@pytest.mark.slow
def test_two_rankings_share_a_cache_and_a_clock_that_jumps(
    trajectory: Path, images: Path, tmp_path: Path
) -> None:
    """Each takes what the other writes for leftovers of another year."""
    command = [sys.executable, "-c", RANK_WITH_A_JUMPING_CLOCK]
    arguments = [str(trajectory), str(images), str(tmp_path / "cache")]
    both = [subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE) for _ in range(2)]
    found = [json.loads(process.communicate()[0]) for process in both]
    alone = ckptsel.rank(trajectory, images, image_size=32, workers=0, cache=False, quiet=True)
    expected = {r.name: {n: s.value for n, s in r.scores.items()} for r in alone}
    assert found == [expected, expected]


def fill(folder: Path, names: str, size: int = 1000) -> dict[str, Path]:
    """Entries that were used one after the other, in hours before now."""
    cache = CacheFolder(folder)
    paths = {}
    for age, name in enumerate(reversed(names), 1):
        cache.write("features", name * 40, bytes(size - cache_module.SEAL))
        paths[name] = folder / cache_files.LAYOUT / "features" / f"{name * 40}.entry"
        os.utime(paths[name], (time.time() - 3600 * age,) * 2)
    return paths


def left(paths: dict[str, Path]) -> str:
    return "".join(sorted(name for name, path in paths.items() if path.exists()))


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    paths = fill(tmp_path, "abcde")
    gone = cache_files.prune(tmp_path, max_bytes=3000)
    assert left(paths) == "cde" and sum(entry.n_bytes for entry in gone) == 2000
    cache_files.prune(tmp_path, older_than_s=2.5 * 3600)
    assert left(paths) == "de"
    cache_files.prune(tmp_path)
    assert left(paths) == "de"


def test_a_run_keeps_within_its_size_and_keeps_what_it_uses(tmp_path: Path) -> None:
    paths = fill(tmp_path, "abcd")
    cache = CacheFolder(tmp_path, max_bytes=4000)
    assert cache.read("features", "a" * 40) is not None
    cache.write("features", "x" * 40, bytes(1000 - cache_module.SEAL))
    assert left(paths) == "acd"
    cache.write("features", "y" * 40, bytes(3000 - cache_module.SEAL))
    assert left(paths) == "a"
    assert cache.read("features", "x" * 40) is not None, "in use by this run"
    assert CacheFolder(tmp_path).read("features", "y" * 40) is not None


def test_a_size_of_the_cache_changes_no_number(
    trajectory: Path, images: Path, own_cache: Path
) -> None:
    expected, _ = rank_of(trajectory, images)
    old = fill(own_cache, "ab", 100_000)
    size = sum(entry.n_bytes for entry in cache_files.list_entries(own_cache))
    # Neither score depends on the energy, but both are scored again, and kept.
    rows, _ = rank_of(trajectory, images, cache_size=f"{size - 150_000}B", energy=0.7)
    assert left(old) == "" and rows == expected


def test_features_that_are_scored_make_room_for_the_next(
    trajectory: Path, images: Path, own_cache: Path, tmp_path: Path
) -> None:
    expected, _ = rank_of(trajectory, images)
    entries = cache_files.list_entries(own_cache)
    features = [entry.n_bytes for entry in entries if entry.kind == "features"]
    size = sum(entry.n_bytes for entry in entries) - sum(features) // 2
    small = tmp_path / "small"
    rows, _ = rank_of(trajectory, images, cache_dir=str(small), cache_size=f"{size}B")
    left_over = cache_files.list_entries(small)
    assert sum(entry.n_bytes for entry in left_over) <= size
    assert 0 < sum(entry.kind == "features" for entry in left_over) < len(features)
    assert rows == expected


def test_reading_is_use(tmp_path: Path) -> None:
    paths = fill(tmp_path, "ab")
    CacheFolder(tmp_path).read("features", "a" * 40)
    cache_files.prune(tmp_path, max_bytes=1000)
    assert left(paths) == "a"


def test_leftovers_go_when_they_are_a_day_old(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    folder = tmp_path / cache_files.LAYOUT / "features"
    for name, hours in ((".new.tmp", 23), (".old.tmp", 25)):
        (folder / name).write_bytes(b"12345")
        os.utime(folder / name, (time.time() - 3600 * hours,) * 2)
    cache_files.prune(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [".new.tmp", "a" * 40 + ".entry"]


def test_clear_removes_what_is_ours_and_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path, "ab")
    ours = [
        tmp_path / "features" / f"{'0' * 40}.npy",
        tmp_path / "pixels" / ("0" * 32) / "pixels.npy",
        tmp_path / "pixels" / ".decoding-abc" / "part" / "pixels.npy",
    ]
    theirs = [tmp_path / "features" / "mine.npy", tmp_path / "notes.txt"]
    for path in (*ours, *theirs):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1234567")
    assert len(cache_files.clear(tmp_path)) == 5
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(theirs)


def test_the_command(run, tmp_path: Path) -> None:
    paths = fill(tmp_path, "abc")
    code, out, _ = run("cache", "info", "--cache-dir", tmp_path)
    lines = out.splitlines()
    assert code == 0 and lines[0] == str(tmp_path)
    assert lines[1].split() == ["kind", "entries", "size", "oldest", "use", "newest", "use"]
    assert lines[2].split()[:4] == ["features", "3", "3.0", "kB"]
    code, out, _ = run("cache", "info", "--cache-dir", tmp_path, "-f", "json")
    value = json.loads(out)
    assert value["folder"] == str(tmp_path)
    assert value["kinds"][-1]["bytes"] == 3000 and value["kinds"][-1]["kind"] == "all"
    assert value["kinds"][0]["oldest_use"] < value["kinds"][0]["newest_use"]
    code, out, _ = run("cache", "prune", "--max-size", "2kB", "--cache-dir", tmp_path)
    assert (code, out) == (0, f"1 entry removed from {tmp_path}, 1.0 kB.\n")
    run("cache", "prune", "--older-than", "90m", "--cache-dir", tmp_path)
    assert left(paths) == "c"
    assert run("cache", "clear", "--cache-dir", tmp_path)[0] == 0
    assert left(paths) == ""
    assert run("cache", "info", "--cache-dir", tmp_path / "nowhere")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "--max-size", "5GiB"), "--max-size is for prune, not for info."),
        (("clear", "--older-than", "1d"), "--older-than is for prune, not for clear."),
        (("prune", "--max-size", "5"), "it must be a size such as 5GiB or 500MB"),
        (("prune", "--older-than", "5 years"), "it must be an age such as 30d or 12h"),
        (("prun",), "it must be one of info, prune, clear. Did you mean prune?"),
    ],
)
def test_wrong_options_of_the_command(run, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run("cache", *arguments)
    assert (code, out) == (2, "") and message in err


def test_sizes_and_ages() -> None:
    sizes = ("5GiB", "500MB", "1.5 kB", "7B", "0B", "2KiB", "1kiB")
    assert [bytes_of(s) for s in sizes] == [5 * 2**30, 500 * 10**6, 1500, 7, 0, 2048, 1024]
    assert [seconds_of(a) for a in ("30d", "12h", "0.5m", "2w")] == [2592000, 43200, 30, 1209600]
    shown = [size_text(n) for n in (0, 999, 1000, 999_949, 999_999, 5 * 10**9, 10**15)]
    assert shown == ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "5.0 GB", "1000.0 TB"]


def test_features_of_another_layout_are_made_anew(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write("features", KEY, pack(FEATURES))
    assert cache.get_features(KEY) is None
    cache.put_features(KEY, FEATURES)
    assert same(cache.get_features(KEY), FEATURES) and cache.notes() == []
