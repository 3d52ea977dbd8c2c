"""The nine targets of the paper by name, with its splits: `--data paper/flowers102 --data-root DATA`.

Deng et al., arXiv 2203.04668, section 3. Nothing is downloaded: where data is missing, the message says
what to fetch and where to put it. Each is also taken from `DATA/<name>` where that is a folder of
parquet files or of images in `train/` and `test/`.

Where the paper does not spell out a split, it is the one that the data's authors publish; that of the
102 Flowers joins their training and validation images, as transfer benchmarks do (Kornblith et al.,
CVPR 2019), and so does that of Aircraft. Of the X-rays a stratified 30 % is for training, drawn with
seed 0.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset

from ckptsel.errors import DataError, UsageError, did_you_mean
from ckptsel.target.images import ImageSet, Source, dataset_as_image_set, files_as_image_set
from ckptsel.target.splits import stratified_sample

SHENZHEN_TRAIN = 0.3
"""The part of the chest X-rays that is for training."""

Read = Callable[[Path, str], ImageSet]
"""(data root, train or test) -> images. Raises OSError or RuntimeError where they are not there."""


@dataclass(frozen=True)
class PaperTarget:
    """title: its full name. fetch: what to get, from where. place: where it is looked for, below the
    data root."""

    title: str
    fetch: str
    place: str
    read: Read


class PaperSource:
    """One of the paper's targets, in its two splits. open_folder: opens one that lies there as an
    image folder or parquet files."""

    kind = "paper target"

    def __init__(
        self, spec: str, data_root: Path | None, open_folder: Callable[[str], Source]
    ) -> None:
        self.name = spec.removeprefix("paper/")
        if self.name not in TARGETS:
            raise UsageError(
                f"unknown target {spec!r}. Known: {', '.join(f'paper/{name}' for name in TARGETS)}."
                + did_you_mean(self.name, TARGETS)
            )
        if data_root is None:
            raise UsageError(f"{spec} is looked for below a data root: give --data-root.")
        self.root, self._open_folder = data_root, open_folder
        self._target = TARGETS[self.name]

    def splits(self) -> list[str]:
        return ["train", "test"]

    def read(self, split: str) -> ImageSet:
        try:
            generic = self._generic_source()
            if generic is not None:
                return generic.read(split)
            return self._target.read(self.root, split)
        except (OSError, RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f"{self._target.title} is not there: {reason.rstrip('.')}. Fetch {self._target.fetch} "
                f"and put it at {self.root / self._target.place}; or give the images as parquet "
                f"files or class folders in {self.root / self.name}/train and "
                f"{self.root / self.name}/test."
            ) from error

    def _generic_source(self) -> Source | None:
        folder = self.root / self.name
        if not folder.is_dir():
            return None
        try:
            source = self._open_folder(str(folder))
        except DataError:
            return None
        return source if {"train", "test"} <= set(source.splits()) else None


def _torchvision(class_name: str, **splits: tuple[dict[str, Any], ...]) -> Read:
    """Through torchvision; `splits` are the options of the parts that make up each split."""

    def read(root: Path, split: str) -> ImageSet:
        from torchvision import datasets

        parts = [getattr(datasets, class_name)(root, **options) for options in splits[split]]
        names = tuple(str(name) for name in getattr(parts[0], "classes", ()))
        samples: Any = parts[0] if len(parts) == 1 else _Joined(parts)
        return dataset_as_image_set(samples, names, class_name, split)

    return read


class _Joined(ConcatDataset[Any]):
    """Parts of one dataset, whose labels are known without decoding."""

    def __init__(self, parts: list[Any]) -> None:
        super().__init__(parts)
        self.targets = [label for part in parts for label in part._labels]


def _read_cub(root: Path, split: str) -> ImageSet:
    folder = root / "CUB_200_2011"

    def table(name: str) -> dict[str, str]:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        return dict(line.split(maxsplit=1) for line in lines if line.strip())

    paths, labels = table("images.txt"), table("image_class_labels.txt")
    in_train = table("train_test_split.txt")
    names = tuple(table("classes.txt").values())
    chosen = [i for i in paths if (in_train[i].strip() == "1") == (split == "train")]
    return files_as_image_set(
        split,
        [folder / "images" / paths[i].strip() for i in chosen],
        [int(labels[i]) - 1 for i in chosen],
        names,
    )


def _read_indoor67(root: Path, split: str) -> ImageSet:
    folder = root / "indoor67"
    lists = {"train": "TrainImages.txt", "test": "TestImages.txt"}

    def paths_of(name: str) -> list[str]:
        lines = (folder / lists[name]).read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip()]

    names = sorted({path.split("/")[0] for part in lists for path in paths_of(part)})
    paths = paths_of(split)
    labels = [names.index(path.split("/")[0]) for path in paths]
    files = [folder / "Images" / path for path in paths]
    return files_as_image_set(split, files, labels, tuple(names))


def _read_shenzhen(root: Path, split: str) -> ImageSet:
    folder = root / "shenzhen"
    found = sorted(_xrays(folder))
    if not found:
        raise FileNotFoundError(f"no CHNCXR_*.png below {folder}")
    paths, labels = [path for path, _ in found], np.array([label for _, label in found])
    train = stratified_sample(labels, round(SHENZHEN_TRAIN * len(labels)), 0)
    chosen = train if split == "train" else np.setdiff1d(np.arange(len(labels)), train)
    return files_as_image_set(
        split,
        [paths[i] for i in chosen],
        [int(labels[i]) for i in chosen],
        ("normal", "tuberculosis"),
    )


def _xrays(folder: Path) -> Iterator[tuple[Path, int]]:
    for path in folder.rglob("CHNCXR_*.png"):
        match = re.fullmatch(r"CHNCXR_\d+_([01])", path.stem)
        if match:
            yield path, int(match[1])


TARGETS = {
    "cifar10": PaperTarget(
        "CIFAR-10",
        "cifar-10-python.tar.gz from www.cs.toronto.edu/~kriz/cifar.html, unpacked,",
        "cifar-10-batches-py",
        _torchvision("CIFAR10", train=({"train": True},), test=({"train": False},)),
    ),
    "cifar100": PaperTarget(
        "CIFAR-100",
        "cifar-100-python.tar.gz from www.cs.toronto.edu/~kriz/cifar.html, unpacked,",
        "cifar-100-python",
        _torchvision("CIFAR100", train=({"train": True},), test=({"train": False},)),
    ),
    "food101": PaperTarget(
        "Food-101",
        "food-101.tar.gz from data.vision.ee.ethz.ch/cvl/datasets_extra/food-101, unpacked,",
        "food-101",
        _torchvision("Food101", train=({"split": "train"},), test=({"split": "test"},)),
    ),
    "aircraft": PaperTarget(
        "FGVC Aircraft",
        "fgvc-aircraft-2013b.tar.gz from www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft, unpacked,",
        "fgvc-aircraft-2013b",
        _torchvision("FGVCAircraft", train=({"split": "trainval"},), test=({"split": "test"},)),
    ),
    "cars": PaperTarget(
        "Stanford Cars",
        "cars_train, cars_test, devkit and cars_test_annos_withlabels.mat of Stanford Cars",
        "stanford_cars",
        _torchvision("StanfordCars", train=({"split": "train"},), test=({"split": "test"},)),
    ),
    "cub200": PaperTarget(
        "CUB-200-2011",
        "CUB_200_2011.tgz from www.vision.caltech.edu/datasets/cub_200_2011, unpacked,",
        "CUB_200_2011",
        _read_cub,
    ),
    "flowers102": PaperTarget(
        "Oxford 102 Flowers",
        "102flowers.tgz (unpacked), imagelabels.mat and setid.mat from "
        "www.robots.ox.ac.uk/~vgg/data/flowers/102",
        "flowers-102",
        _torchvision(
            "Flowers102",
            train=({"split": "train"}, {"split": "val"}),
            test=({"split": "test"},),
        ),
    ),
    "indoor67": PaperTarget(
        "MIT Indoor 67",
        "indoorCVPR_09.tar (unpacked, its folder Images), TrainImages.txt and TestImages.txt from "
        "web.mit.edu/torralba/www/indoor.html",
        "indoor67",
        _read_indoor67,
    ),
    "shenzhen": PaperTarget(
        "NIH Shenzhen CXR",
        "the PNG files of ChinaSet_AllFiles (Shenzhen chest X-ray set of the U.S. National Library of "
        "Medicine)",
        "shenzhen",
        _read_shenzhen,
    ),
}
"""By name."""
