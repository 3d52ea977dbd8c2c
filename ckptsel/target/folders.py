"""Image folders: one sub-folder a class, or such folders below those of splits."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ckptsel.errors import DataError, listed
from ckptsel.target.images import ImageSet, files_as_image_set
from ckptsel.target.layout import (
    SPLIT_NAMES,
    TABLE_SUFFIXES,
    counts_of_suffixes,
    is_picture,
    suffix_of,
)


class FolderSource:
    """A folder with one sub-folder a class, or with such folders below train/, val/, test/.

    A folder with the name of a split is one where it holds sub-folders with pictures. Where none does,
    it is a class as those beside it are.
    """

    kind = "image folder"

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        """files: all below root that count, relative to it, in order."""
        self.root = root
        tree = _Tree(files)
        self._notes: list[str] = []
        folders = self._split_folders(tree) if tree.split_folders else {"train": ""}
        self._folders = folders
        self._pictures = {split: tree.classes_below(folder) for split, folder in folders.items()}
        self._class_names = tuple(
            sorted({name for found in self._pictures.values() for name in found})
        )
        if not self._class_names:
            raise _nothing_in(root, files, tree)
        self._check_not_splits(tree)
        self._note_other_files(files)

    def splits(self) -> list[str]:
        return list(self._folders)

    def read(self, split: str) -> ImageSet:
        classes = self._pictures[split]
        if not classes:
            folder = self.root / self._folders[split]
            raise DataError(
                f"{folder} holds images, but not in sub-folders named after their classes, so nothing "
                "says what they show. Sort them into such folders, list them with their labels in "
                f"{folder}/metadata.csv (file_name,label), or take {folder.name}/ away."
            )
        paths: list[Path | str] = []
        labels: list[int] = []
        for label, name in enumerate(self._class_names):
            found = classes.get(name, [])
            paths += [f"{self.root}/{path}" for path in found]
            labels += [label] * len(found)
        return files_as_image_set(split, paths, labels, self._class_names, tuple(self._notes))

    def _split_folders(self, tree: "_Tree") -> dict[str, str]:
        """The folder of each split; what is left beside them is said."""
        chosen: dict[str, str] = {}
        order = list(SPLIT_NAMES)
        for name in sorted(tree.named, key=lambda name: order.index(name.lower())):
            split = SPLIT_NAMES[name.lower()]
            if split in chosen:
                self._notes.append(
                    f"{self.root} has two folders for the {split} split: {chosen[split]}/ is taken, "
                    f"{name}/ is not read"
                )
            else:
                chosen[split] = name
        beside = [name for name in tree.tops if name not in tree.named]
        if beside:
            self._notes.append(
                f"{self.root} has folders of splits ({listed(list(chosen.values()))}), so other folders "
                f"with images beside them are not read: {listed(beside)}"
            )
        return {
            split: chosen[split] for split in dict.fromkeys(SPLIT_NAMES.values()) if split in chosen
        }

    def _check_not_splits(self, tree: "_Tree") -> None:
        """Raises DataError for train/*.jpg and val/*.jpg: those are no two classes."""
        if not tree.split_folders and set(tree.tops) == set(tree.named):
            raise DataError(
                f"{listed([f'{self.root}/{name}' for name in tree.named])}: images lie there, but not "
                "in sub-folders named after their classes. Put each class's images into a sub-folder, "
                "or list them with their labels in a metadata.csv (file_name,label) beside them."
            )

    def _note_other_files(self, files: Sequence[str]) -> None:
        taken = tuple(f"{folder}/" if folder else "" for folder in self._folders.values())
        others = [
            name
            for name in files
            if not is_picture(name)
            and name.startswith(taken)
            and name.count("/") > taken[0].count("/")
        ]
        if others:
            are = "file is not a picture" if len(others) == 1 else "files are not pictures"
            self._notes.append(
                f"{len(others)} {are} by the suffix, in folders of classes, and left out: "
                f"{counts_of_suffixes(others)}"
            )


class _Tree:
    """Pictures by the folders at the top.

    tops: folders with pictures, at any depth. named: those with the name of a split.
    split_folders: of these, those that hold folders with pictures.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._below: dict[str, list[str]] = defaultdict(list)
        self.loose = [name for name in files if "/" not in name and is_picture(name)]
        for name in files:
            top, slash, _ = name.partition("/")
            if slash and is_picture(name):
                self._below[top].append(name)
        self.tops = list(self._below)
        self.named = [top for top in self.tops if top.lower() in SPLIT_NAMES]
        self.split_folders = [
            top for top in self.named if any(name.count("/") > 1 for name in self._below[top])
        ]

    def classes_below(self, folder: str) -> dict[str, list[str]]:
        """The pictures of each class of a split's folder, or of the root (``)."""
        if not folder:
            return self._below
        classes: dict[str, list[str]] = defaultdict(list)
        for name in self._below[folder]:
            _, _, rest = name.partition("/")
            below, slash, _ = rest.partition("/")
            if slash:
                classes[below].append(name)
        return classes


def _nothing_in(root: Path, files: Sequence[str], tree: _Tree) -> DataError:
    looked = f"looked for {root}/<class>/<image> and {root}/train/<class>/<image>"
    tables = [name for name in files if suffix_of(name) in TABLE_SUFFIXES]
    hint = f" If {tables[0]} lists them, give it: --data {root}/{tables[0]}." if tables else ""
    if tree.loose:
        return DataError(
            f"{root} holds {len(tree.loose)} images, but not in sub-folders named after their classes, "
            f"so nothing says what they show: {looked}. Put each class's images into a sub-folder named "
            f"after the class, or list them in a CSV file of path and label and give that.{hint}"
        )
    found = f"there are other files ({counts_of_suffixes(files)})" if files else "it is empty"
    return DataError(
        f"no images below {root}: {looked} with .jpg, .png, .webp, .tif, ...; {found}. Put each class's "
        "images into a sub-folder named after the class; convert what is of another format (.heic, "
        f".dcm) to PNG or JPEG.{hint}"
    )
