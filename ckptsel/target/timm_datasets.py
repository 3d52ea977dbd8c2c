"""Datasets that timm knows by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ckptsel.errors import DataError
from ckptsel.target.images import ImageSet, dataset_as_image_set


class TimmSource:
    """A dataset that timm knows by name (`torch/...`, `hfds/...`, `wds/...`), below `data_root`.

    Its images are read once into memory where the dataset can only be iterated.
    """

    kind = "timm dataset"

    def __init__(self, name: str, data_root: Path | None) -> None:
        self.name, self.data_root = name, data_root

    def splits(self) -> list[str]:
        """Train, and validation or test where the dataset answers to that name with other images."""
        found: dict[str, int] = {}
        problem: Exception | None = None
        for split in ("train", "validation", "test"):
            try:
                found[split] = len(self._open(split))
            except Exception as error:  # timm passes on whatever its readers raise
                problem = error
        if not found:
            raise DataError(
                f"timm cannot open {self.name} below {self.data_root or '(no --data-root)'}: "
                f"{problem}. Check the name and --data-root; nothing is downloaded."
            )
        if self.name.lower().startswith("torch/"):
            # torchvision's small datasets answer any name but `train` with their test images.
            names = ["train", "validation"] if self._has_folder("val") else ["train", "test"]
            return [split for split in names if split in found]
        return list(found)

    def read(self, split: str) -> ImageSet:
        from torch.utils.data import IterableDataset

        dataset = self._open(split)
        is_stream = isinstance(dataset, IterableDataset)
        samples: Sequence[Any] = list(dataset) if is_stream else dataset
        class_names = tuple(str(name) for name in getattr(dataset, "classes", ()))
        return dataset_as_image_set(samples, class_names, self.name, split)

    def _has_folder(self, name: str) -> bool:
        return self.data_root is not None and any(self.data_root.glob(f"{name}*/"))

    def _open(self, split: str) -> Any:
        from timm.data import create_dataset

        root = None if self.data_root is None else str(self.data_root)
        return create_dataset(self.name, root=root, split=split, download=False)
