"""ImageNet as it is handed out: class folders in train/, a flat val/, and the devkit that names classes.

Where torchvision has sorted val/ into class folders, it is an image folder like any other.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from ckptsel.errors import DataError
from ckptsel.target.images import ImageSet, files_as_image_set
from ckptsel.target.layout import is_picture
from ckptsel.target.matlab import read_structs

TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
WORDNET_ID = re.compile(r"n\d{8}")
VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+", re.IGNORECASE)
FOLDERS = {
    "train": ("train", "ILSVRC2012_img_train"),
    "validation": ("val", "validation", "ILSVRC2012_img_val"),
}


def open_imagenet(root: Path, files: Sequence[str]) -> "ImageNetSource | None":
    """The source of a folder with flat validation images; None where it is no such folder.

    files: all below root that count, relative to it. Raises DataError where the devkit is missing.
    """
    flat = [name for name in files if name.count("/") == 1 and _number_of(name) is not None]
    flat = [name for name in flat if name.split("/")[0] in FOLDERS["validation"]]
    return ImageNetSource(root, files, flat) if flat else None


class ImageNetSource:
    """ILSVRC2012: 1,000 classes by their WordNet ids."""

    kind = "ImageNet"

    def __init__(self, root: Path, files: Sequence[str], flat: Sequence[str]) -> None:
        """flat: the validation images."""
        self.root, self._flat = root, flat
        self._train = [name for name in files if _is_training_image(name)]
        self._devkit = next((root / name for name in files if Path(name).name == TRUTH), None)

    def splits(self) -> list[str]:
        return [*(["train"] if self._train else []), "validation"]

    def read(self, split: str) -> ImageSet:
        if split == "train":
            classes = [name.split("/")[1] for name in self._train]
            return self._images(split, self._train, classes)
        truth = self._read_truth()
        numbers = [_number_of(name) or 0 for name in self._flat]
        beyond = [name for name, i in zip(self._flat, numbers, strict=True) if i > len(truth)]
        if beyond:
            raise DataError(
                f"{self._devkit} has {len(truth):,} lines, and none for {self.root / beyond[0]}: line n "
                "is the class of image n. Is the file whole?"
            )
        return self._images(split, self._flat, [truth[i - 1] for i in numbers])

    def _images(self, split: str, names: Sequence[str], classes: Sequence[str]) -> ImageSet:
        class_names = tuple(sorted(set(classes)))
        number = {name: i for i, name in enumerate(class_names)}
        paths = [f"{self.root}/{name}" for name in names]
        return files_as_image_set(split, paths, [number[name] for name in classes], class_names)

    def _read_truth(self) -> list[str]:
        """The WordNet id of each validation image, in their order."""
        if self._devkit is None:
            raise DataError(
                f"the validation images of ImageNet lie in {self.root} without class folders, and "
                f"{TRUTH} is not below it. Unpack ILSVRC2012_devkit_t12.tar.gz there, or let "
                "torchvision's ImageNet sort the images into class folders."
            )
        ids = _wordnet_ids(self._devkit.parent / META)
        try:
            lines = self._devkit.read_text(encoding="utf-8").split()
            return [ids[int(line)] for line in lines]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"cannot read {self._devkit}: {str(error)[:200]}. Each line is the number of a class, "
                f"as {META} beside it has it (ILSVRC2012_ID)."
            ) from error


def _wordnet_ids(path: Path) -> dict[int, str]:
    """WordNet ids by ILSVRC2012_ID, from the table `synsets` of the devkit."""
    try:
        synsets = read_structs(path, "synsets", ("ILSVRC2012_ID", "WNID"))
        return {int(row["ILSVRC2012_ID"] or 0): str(row["WNID"]) for row in synsets}
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(
            f"cannot read ImageNet's classes in {path}: {str(error)[:200]}. Is the devkit whole?"
        ) from error


def _is_training_image(name: str) -> bool:
    parts = name.split("/")
    return (
        len(parts) == 3
        and parts[0] in FOLDERS["train"]
        and WORDNET_ID.fullmatch(parts[1]) is not None
        and is_picture(name)
    )


def _number_of(name: str) -> int | None:
    """The number of a validation image, from 1."""
    match = VALIDATION_IMAGE.fullmatch(Path(name).name)
    return int(match[1]) if match and is_picture(name) and int(match[1]) > 0 else None
