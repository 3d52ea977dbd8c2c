"""WebDataset: tar files in which files of one name make a sample, 0001.jpg beside 0001.cls.

They are read as plain files on this disk, with Python's own tarfile. Nothing in a path is run or
fetched, as the webdataset package does with `pipe:` and addresses; members that are links are left out.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ckptsel.errors import DataError, listed
from ckptsel.target.columns import LABEL_COLUMNS, usual_column
from ckptsel.target.images import ImageSet
from ckptsel.target.labels import encode_labels
from ckptsel.target.layout import NOT_OURS, PICTURE_SUFFIXES, split_of_file
from ckptsel.target.samples import Files

TAR_SUFFIX = ".tar"
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST_TARS = 100_000
LABEL_KEY, JSON_KEY = "cls", "json"
MOST_LABEL_BYTES = 2**20
"""Of a member that holds a label: it is read whole."""


@dataclass(frozen=True)
class Member:
    """A file in a tar: its tar, and where its bytes are."""

    path: str
    start: int
    size: int

    def read(self) -> bytes:
        """Raises OSError where the tar is not what it was."""
        with Path(self.path).open("rb") as file:
            file.seek(self.start)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(f"{self.path} has changed since its members were listed")
        return data


@dataclass(frozen=True, eq=False)
class TarSamples:
    """One member of a tar an image. keys: its name in the tar.

    starts, sizes: (N,) int64, bytes. tars: (N,) int64, numbers in `paths`.
    """

    paths: tuple[str, ...]
    tars: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    keys: tuple[str, ...]

    def read(self, index: int) -> bytes:
        path = self.paths[int(self.tars[index])]
        return Member(path, int(self.starts[index]), int(self.sizes[index])).read()

    def open(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self.read(index)))

    def locate(self, index: int) -> str:
        return f"{self.keys[index]} in {self.paths[int(self.tars[index])]}"

    def take(self, indices: NDArray[np.int64]) -> "TarSamples":
        return TarSamples(
            self.paths,
            self.tars[indices],
            self.starts[indices],
            self.sizes[indices],
            tuple(self.keys[i] for i in indices),
        )

    def files(self) -> Files:
        places = (self.tars, self.starts, self.sizes)
        where = hashlib.sha256(b"".join(each.tobytes() for each in places)).hexdigest()
        return Files(self.paths, where)


class TarSource:
    """Tar files; the split of each is told by its name or its folder."""

    kind = "webdataset"

    def __init__(
        self,
        where: str,
        tars: Sequence[tuple[str, Path]],
        image_column: str | None,
        label_column: str | None,
    ) -> None:
        """tars: (what its split is told by, path). image_column, label_column: keys of a sample."""
        self._where, self._image, self._label = where, image_column, label_column
        self._tars: dict[str, list[Path]] = {}
        for name, path in tars:
            self._tars.setdefault(split_of_file(name), []).append(path)

    def splits(self) -> list[str]:
        return list(self._tars)

    def read(self, split: str) -> ImageSet:
        paths = self._tars[split]
        labels: list[Any] = []
        rows: list[tuple[int, int, int]] = []
        keys: list[str] = []
        for number, path in enumerate(paths):
            for name, parts in _samples_of(path):
                image, label = self._read_sample(path, name, parts)
                labels.append(label)
                rows.append((number, image.start, image.size))
                keys.append(name)
        if not rows:
            raise DataError(
                f"no samples in {listed([str(path) for path in paths], 3)}: looked for an image and a "
                "label of one name, such as 0001.jpg and 0001.cls."
            )
        encoded, class_names = encode_labels(labels, lambda i: f"sample {keys[i]} of {self._where}")
        columns = np.array(rows, dtype=np.int64).T
        samples = TarSamples(
            tuple(map(str, paths)), columns[0], columns[1], columns[2], tuple(keys)
        )
        return ImageSet(split, encoded, class_names, samples)

    def _read_sample(self, path: Path, name: str, parts: dict[str, Member]) -> tuple[Member, Any]:
        """(image, label as written). Raises DataError where one of them is not there."""
        images = [key for key in parts if f".{key}" in PICTURE_SUFFIXES]
        image = images[0] if self._image is None and images else self._image
        if image not in parts:
            raise DataError(
                f"sample {name} of {path} has no image: it has {listed(list(parts))}. Images are "
                "members such as .jpg or .png; name another key with --image-column."
            )
        if len(images) > 1 and self._image is None:
            raise DataError(
                f"sample {name} of {path} has several images: {listed(images)}. Name the key of the one "
                "that counts with --image-column."
            )
        asked = self._label
        if asked in parts or (asked is None and LABEL_KEY in parts):
            return parts[image], _text_in(path, name, parts[asked or LABEL_KEY])
        record = _record_in(path, name, parts[JSON_KEY]) if JSON_KEY in parts else {}
        key = (
            asked if asked is not None else usual_column(list(record), (LABEL_KEY, *LABEL_COLUMNS))
        )
        if key not in record:
            inside = f", with {listed(list(record))} in its json" if record else ""
            raise DataError(
                f"sample {name} of {path} has no label that ckptsel knows: it has {listed(list(parts))}"
                f"{inside}. A label is a member .cls, or a key such as label in .json; name another "
                "with --label-column."
            )
        return parts[image], record[key]


def tars_of_pattern(spec: str) -> list[Path]:
    """Paths for `data-{000..003}.tar`: each number in turn, as wide as the first is written.

    Raises DataError where one of them is not there.
    """
    names = [spec]
    while match := RANGE.search(names[0]):
        first, last = int(match[1]), int(match[2])
        numbers = range(first, last + 1)
        if not numbers or len(names) * len(numbers) > MOST_TARS:
            raise DataError(
                f"{spec} stands for {len(names) * len(numbers):,} files. A range counts upwards, "
                f"{{000..003}}, to at most {MOST_TARS:,}."
            )
        width = len(match[1])
        names = [RANGE.sub(f"{i:0{width}d}", name, count=1) for name in names for i in numbers]
    missing = [name for name in names if not Path(name).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(names)} files of {spec} are not there: {listed(missing, 3)}. "
            "Only files on this machine are read."
        )
    return [Path(name) for name in names]


def _samples_of(path: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """(name, members by key) of each sample: members that follow each other and are called alike up to
    the first dot. Raises DataError where the file is no whole tar."""
    name, parts = "", dict[str, Member]()
    for member_name, member in _members_of(path):
        folder, slash, file = member_name.rpartition("/")
        stem, dot, key = file.partition(".")
        if not stem or not dot or not NOT_OURS.isdisjoint(member_name.split("/")):
            continue
        if folder + slash + stem != name:
            if parts:
                yield name, parts
            name, parts = folder + slash + stem, {}
        parts[key.lower()] = member
    if parts:
        yield name, parts


def _members_of(path: Path) -> Iterator[tuple[str, Member]]:
    """Ordinary files in a tar, in its order."""
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:", errorlevel=1) as tar:
            for member in tar:
                if not member.isreg() or member.issparse():
                    continue
                if not 0 <= member.offset_data <= member.offset_data + member.size <= size:
                    raise DataError(f"{path} is cut: {member.name!r} goes beyond its end.")
                yield member.name, Member(str(path), member.offset_data, member.size)
    except (DataError, GeneratorExit):
        raise
    except Exception as error:  # a damaged file can end in an error of any type
        raise DataError(
            f"cannot read {path} as a tar file: {str(error).splitlines()[0][:200] if str(error) else ''}"
            f" ({type(error).__name__}). Is it whole, and not compressed? Unpack .tar.gz with gunzip."
        ) from error


def _text_in(path: Path, name: str, member: Member) -> str:
    data = _small(path, name, member)
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"the label of sample {name} of {path} is not text in UTF-8.") from error


def _record_in(path: Path, name: str, member: Member) -> dict[str, Any]:
    try:
        value = json.loads(_small(path, name, member))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"the json of sample {name} of {path} cannot be read: {str(error)[:200]}."
        ) from error
    return value if isinstance(value, dict) else {}


def _small(path: Path, name: str, member: Member) -> bytes:
    if member.size > MOST_LABEL_BYTES:
        raise DataError(
            f"the label of sample {name} of {path} has {member.size:,} bytes, too many for one."
        )
    try:
        return member.read()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}.") from error
