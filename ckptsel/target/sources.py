"""Where labelled images come from: which source reads what `--data` names.

A source knows the names of its splits and reads one of them as an `ImageSet`, whose images are
opened one at a time. Nothing is decoded here.
"""

import re
from pathlib import Path

from ckptsel.errors import DataError
from ckptsel.target.columnar import is_saved_dataset, open_parquet, open_saved_dataset
from ckptsel.target.folders import FolderSource
from ckptsel.target.imagenet import open_imagenet
from ckptsel.target.images import Source
from ckptsel.target.layout import TABLE_SUFFIXES, is_picture, list_files, suffix_of
from ckptsel.target.paper import PaperSource
from ckptsel.target.tables import open_metadata, open_table
from ckptsel.target.tars import RANGE, TAR_SUFFIX, TarSource, tars_of_pattern
from ckptsel.target.timm_datasets import TimmSource

PARQUET_SUFFIX = ".parquet"


def open_source(
    spec: str,
    data_root: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """The source that `spec` names.

    spec: a folder or a file of one of the layouts of docs/own-data.md, or a timm dataset name such as
        `hfds/cifar10` (with `data_root`).
    image_column, label_column: for tables and tars, where the names are not the usual ones.
    Raises DataError where nothing is found there.
    """
    path = Path(spec)
    if is_named(spec):
        return TimmSource(spec, data_root)
    if spec.startswith("paper/") and not path.exists():
        return PaperSource(spec, data_root, open_source)
    if data_root is not None and not path.exists():
        path = data_root / spec
    if path.is_dir():
        return _open_folder(path, image_column, label_column)
    if path.is_file():
        return _open_file(path, image_column, label_column)
    if RANGE.search(path.name) and suffix_of(path.name) == TAR_SUFFIX:
        tars = tars_of_pattern(str(path))
        return TarSource(spec, [(tar.name, tar) for tar in tars], image_column, label_column)
    where = spec if path == Path(spec) else path
    raise DataError(
        f"no data at {where}: no such file or folder. Give a folder of images (one sub-folder a class), "
        "a CSV file of path and label, a folder of parquet or tar files, or a timm dataset name such as "
        "hfds/cifar10. Addresses are those of object storage (s3://...); commands (pipe:) are not run."
    )


def is_named(spec: str) -> bool:
    """Whether data is a dataset that timm knows by name, and no path here."""
    return re.match(r"(hfds|hfids|torch|wds|tfds)/", spec) is not None and not Path(spec).exists()


def _open_file(path: Path, image_column: str | None, label_column: str | None) -> Source:
    suffix = suffix_of(path.name)
    if suffix in TABLE_SUFFIXES:
        return open_table(path, image_column, label_column)
    if suffix == PARQUET_SUFFIX:
        return open_parquet(path, ["."], image_column, label_column)
    if suffix == TAR_SUFFIX:
        return TarSource(str(path), [(path.name, path)], image_column, label_column)
    raise DataError(
        f"{path} is a file of an unknown kind ({path.suffix or 'no suffix'}). A single file must be "
        f"{', '.join(TABLE_SUFFIXES)}, {PARQUET_SUFFIX} or {TAR_SUFFIX}; unpack an archive (.zip, "
        ".tar.gz) and give its folder."
    )


def _open_folder(root: Path, image_column: str | None, label_column: str | None) -> Source:
    """By what lies in it; what says more of the labels comes first."""
    if is_saved_dataset(root):
        return open_saved_dataset(root, image_column, label_column)
    files = list_files(root)
    special = open_imagenet(root, files) or open_metadata(root, files, image_column, label_column)
    if special is not None:
        return special
    parquet = [name for name in files if suffix_of(name) == PARQUET_SUFFIX]
    if parquet:
        return open_parquet(root, parquet, image_column, label_column)
    tars = [(name, root / name) for name in files if suffix_of(name) == TAR_SUFFIX]
    if tars and not any(map(is_picture, files)):
        return TarSource(str(root), tars, image_column, label_column)
    return FolderSource(root, files)
