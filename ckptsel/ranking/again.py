"""The same ranking again: taken from the cache, where nothing that it depends on has changed.

Neither torch is imported, nor a file of checkpoints or images opened: all are as they were, by their
states (`ckptsel.common.states`), and so are options, packages and machine. What else a ranking could
depend on, such as code of the user's own, is not kept here at all.
"""

import dataclasses
import json
import os
import platform
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptsel.common.cache import DAMAGED, CacheFolder
from ckptsel.common.places import is_url
from ckptsel.common.states import known_by, states_of
from ckptsel.common.streams import say
from ckptsel.errors import InputError
from ckptsel.results.ranking import Ranking
from ckptsel.settings.rank import RankSettings
from ckptsel.target.layout import list_files

PACKAGE = Path(__file__).parents[1]
"""Whoever works on it wants to see what a change does."""

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ranked = tuple[Ranking, dict[str, NDArray[Any]]]

KIND = "rankings"

WHOLE_KINDS = ("image folder", "parquet", "saved dataset", "webdataset")
"""Of data that lie below what --data names, and nowhere else: a list may name any file."""

MOST_BYTES = 256 * 2**20
"""Of predictions: more are not kept a second time, beside the scores."""

MACHINE = ("CUDA_", "HIP_", "MKL_", "NVIDIA_", "OMP_", "OPENBLAS_", "PYTORCH_", "ROCR_", "TORCH")
"""Beginnings of the names of variables that say what computes, and how."""


def rank_again(
    checkpoints: str | Path, data: str, settings: RankSettings, quiet: bool = True
) -> "Ranked":
    """As `ckptsel.ranking.rank.rank_with_predictions`; from the cache where that gave it before."""
    cache = CacheFolder.open(
        settings.cache, settings.cache_dir, settings.cache_size, settings.verify
    )
    # Before anything is read: what changes meanwhile is in another state then.
    key = None if cache.folder is None else _key_of(checkpoints, data, settings)
    found = None if key is None else _kept(cache, key)
    if found is not None:
        if not quiet:
            say(
                f"note: checkpoints and images are as they were: this is the ranking of "
                f"{found[0].created} (--verify reads all again)"
            )
        return found

    from ckptsel.ranking.rank import rank_with_predictions

    ranking, predictions = rank_with_predictions(checkpoints, data, settings, quiet)
    if key is not None:
        _keep(cache, key, ranking, predictions)
    return ranking, predictions


def _key_of(checkpoints: str | Path, data: str, settings: RankSettings) -> str | None:
    """None where a ranking depends on more than what a key can hold."""
    if is_url(checkpoints) or is_url(data) or settings.engine != "local":
        return None
    if settings.budget is not None:
        return None  # of a time: what is kept is passed fast, and the same call again looks further
    if ":" in (settings.model or "").removeprefix("torchvision:"):
        return None  # code or a folder of the user's
    if any(entry_points(group=f"ckptsel.{kind}") for kind in ("scores", "encoders")):
        return None
    root = Path(checkpoints)
    place = Path(data)
    if settings.data_root is not None and not place.exists():
        place = Path(settings.data_root) / data
    states = states_of([*_below(root), *_images_below(place)])
    if states is None:
        return None
    options = dataclasses.asdict(dataclasses.replace(settings, verify=False))
    where = [str(checkpoints), data, str(Path.cwd()), *map(os.path.realpath, (root, place))]
    return known_by(states, repr(options), *where, *_links(root), *_machine())


def _below(root: Path) -> Iterator[str]:
    """Every file below a folder of checkpoints, by its path; folders that are links are not entered.
    Of a file all that lies beside it, since its parts may."""
    folder = root if root.is_dir() else root.parent
    for parent, folders, files in os.walk(folder):
        folders.sort()
        yield from (f"{parent}/{name}" for name in sorted(files))
        if folder is not root:
            return


def _links(root: Path) -> Iterator[str]:
    """Where links below a folder lead, out of it or not."""
    for parent, folders, files in os.walk(root):
        for name in sorted([*folders, *files]):
            path = f"{parent}/{name}"
            if os.path.islink(path):  # noqa: PTH114 - a million of them
                yield f"{path} {os.path.realpath(path)}"


def _images_below(place: Path) -> list[str]:
    """The place itself, which is no file where there is nothing, and all that is read below it."""
    files = list_files(place) if place.is_dir() else []
    return [str(place), *(f"{place}/{name}" for name in files)]


def _machine() -> list[str]:
    """What numbers may depend on besides: whether there is a GPU, what was installed since, and what was
    changed in this package."""
    devices = [str(path) for name in ("nvidia*", "kfd") for path in Path("/dev").glob(name)]
    variables = [f"{k}={v}" for k, v in os.environ.items() if k.startswith(MACHINE)]
    places = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    packages = [f"{place} {place.stat().st_mtime_ns}" for place in places if place.exists()]
    return [
        platform.node(),
        platform.platform(),
        platform.python_version(),
        str(os.cpu_count()),
        str(max(path.stat().st_mtime_ns for path in PACKAGE.rglob("*.py"))),
        *sorted([*devices, *variables, *packages]),
    ]


def _keep(cache: CacheFolder, key: str, ranking: Ranking, predictions: Mapping[str, Any]) -> None:
    """What failed may go well the next time, so that only what is whole is kept.

    A ranking that was verified records that, and is none of a later call: that makes its own.
    """
    cache.remove(KIND, key)
    originals = [row for row in ranking if row.copy_of is None]
    n_kinds = len({(row.layer, *sorted(row.scores)) for row in originals})
    is_whole = all(row.status == "ok" for row in ranking)
    is_whole = is_whole and n_kinds == len({row.layer for row in originals})
    is_sound = not any(DAMAGED in note for note in ranking.notes)
    is_small = sum(array.nbytes for array in predictions.values()) <= MOST_BYTES
    is_below = ranking.target.get("kind") in WHOLE_KINDS
    if cache.verify or not (is_whole and is_sound and is_small and is_below):
        return

    from safetensors.numpy import save

    text = json.dumps(ranking.to_dict(), allow_nan=False)
    cache.write(KIND, key, save(dict(predictions), {"ranking": text}))


def _kept(cache: CacheFolder, key: str) -> "Ranked | None":
    data = cache.recall(KIND, key)
    if data is None:
        return None

    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        ranking = Ranking.from_dict(json.loads(header["__metadata__"]["ranking"]))
        return ranking, load(bytes(data))
    except (SafetensorError, InputError, LookupError, TypeError, ValueError):
        cache.discard(KIND, key)  # whole, but laid out by another version
        return None
