"""Batches of the source: from one tensor on the device, or streamed from JPEG files.

CIFAR lies on the device as a whole. ImageNet is read in every epoch by worker processes: libjpeg
(through Pillow) decodes at a half, quarter or eighth of the size where the crop is that much larger
than what is wanted, and only the crop is resized. Pixels travel as uint8 and are normalised on the
device. The draws of an image depend on (seed, epoch, image), not on workers or processes.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import RandomResizedCrop

from ckptsel.common.streams import say
from ckptsel.errors import DataError
from ckptsel.features.store import Cache
from ckptsel.reproduce.distributed import World
from ckptsel.reproduce.recipes import Pretraining
from ckptsel.target.images import ImageSet
from ckptsel.target.pixels import (
    Preprocessing,
    auto_workers,
    normalise,
    prepare_all,
    to_colour_mode,
)
from ckptsel.target.sources import open_source
from ckptsel.target.workers import batches_of, loader_options, worker_deaths_named
from ckptsel.training.contrastive import ViewPairs, two_views
from ckptsel.training.loop import Batch, TensorBatches, compose, epoch_generator, stream_state

EVALUATION_BATCH = 500

CROP_SCALE, CROP_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
"""Of the PyTorch ImageNet example (torchvision's RandomResizedCrop)."""

SOURCE_SPLITS = ("test", "validation")
"""Where source accuracy is measured: on the first of these that is there."""


@dataclass(frozen=True)
class SourceData:
    """train: epoch -> this process's part of its batches. test: the same of the test images. plain: the
    training images in order and unchanged, where they lie in memory."""

    train: Callable[[int], Iterable[Batch]]
    test: TensorBatches
    plain: TensorBatches | None = None


def open_source_data(
    recipe: Pretraining, data_root: Path, seed: int, world: World, quiet: bool = True
) -> SourceData:
    """The source of a recipe. Raises DataError where it is not there or too small."""
    source = open_source(str(data_root / recipe.data))
    test_split = next((name for name in SOURCE_SPLITS if name in source.splits()), None)
    if test_split is None:
        raise DataError(
            f"{data_root / recipe.data} has no test images to measure source accuracy on: it has "
            f"{', '.join(source.splits())}; there should be a split test or val."
        )
    train = _chosen(source.read("train"), recipe, seed)
    test = _of_classes(source.read(test_split), recipe.n_classes)
    preprocessing = preprocessing_of(recipe)

    def prepare(pixels: Tensor) -> Tensor:
        return normalise(pixels, preprocessing, torch.channels_last)

    def in_memory(images: ImageSet, batch_size: int, augment: Any) -> TensorBatches:
        pixels = torch.from_numpy(_decoded(images, preprocessing, recipe, quiet))
        if not recipe.streamed:
            pixels = pixels.to(world.device)
        labels = torch.from_numpy(images.labels).to(world.device)
        return TensorBatches(pixels, labels, batch_size, prepare, augment, share=world.share)

    tested = in_memory(test, EVALUATION_BATCH, None)
    if recipe.streamed:

        def streamed(epoch: int) -> Iterable[Batch]:
            return StreamedBatches(train, recipe, preprocessing, seed, epoch, world)

        return SourceData(streamed, tested)
    augment, has_views = compose(recipe.augment), recipe.contrastive is not None
    if augment is not None and has_views:
        augment = two_views(augment)
    batches = in_memory(train, recipe.batch_size, augment)

    def shuffled(epoch: int) -> Iterable[Batch]:
        of_epoch = dataclasses.replace(
            batches,
            generator=epoch_generator(seed, epoch),
            # Fewer images in a batch would be fewer to tell apart.
            drop_last=world.size > 1 or has_views,
            augment_generator=None if world.size == 1 else epoch_generator(seed, epoch, world.rank),
        )
        return ViewPairs(of_epoch) if has_views else of_epoch

    plain = dataclasses.replace(batches, batch_size=EVALUATION_BATCH, augment=None)
    return SourceData(shuffled, tested, plain)


def preprocessing_of(recipe: Pretraining) -> Preprocessing:
    """How source images become inputs: the model's own configuration, at the recipe's size."""
    config = timm.get_pretrained_cfg(recipe.model)
    channels, height, width = config.input_size
    size = recipe.image_size
    return Preprocessing(
        input_size=(channels, size or height, size or width),
        interpolation=config.interpolation,
        mean=config.mean,
        std=config.std,
        crop_pct=config.crop_pct,
    )


class StreamedBatches:
    """One epoch of images read from their files: (pixels on the device, normalised; labels)."""

    def __init__(
        self,
        images: ImageSet,
        recipe: Pretraining,
        preprocessing: Preprocessing,
        seed: int,
        epoch: int,
        world: World,
    ) -> None:
        self._dataset = _Crops(images, preprocessing.input_size[1], recipe.augment, seed, epoch)
        self._preprocessing, self._device = preprocessing, world.device
        order = torch.randperm(len(images), generator=epoch_generator(seed, epoch))
        # As the PyTorch example: a last partial batch is left out of every epoch.
        whole = order[: len(order) // recipe.batch_size * recipe.batch_size]
        first, step = world.share
        self._indices = [b[first::step].tolist() for b in whole.split(recipe.batch_size)]
        self._n_workers = auto_workers(None, len(images)) // world.local_size

    def __iter__(self) -> Iterator[Batch]:
        loader = DataLoader(
            self._dataset,
            batch_sampler=self._indices,
            pin_memory=self._device.startswith("cuda"),
            **loader_options(self._n_workers),
        )
        task = "read source images"
        with worker_deaths_named(task):
            for pixels, labels in batches_of(loader, task):
                raw = pixels.to(self._device, non_blocking=True)
                inputs = normalise(raw, self._preprocessing, torch.channels_last)
                yield inputs, labels.to(self._device, non_blocking=True)


class _Crops(Dataset[tuple[Tensor, int]]):
    """Random crops of images, (C, H, W) uint8, and their labels."""

    def __init__(
        self, images: ImageSet, size: int, augment: tuple[str, ...], seed: int, epoch: int
    ) -> None:
        self._images, self._size, self._augment = images, size, augment
        self._seed, self._epoch = seed, epoch

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        try:
            pixels = self._cropped(self._images.open_image(index), index)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{self._images.locate(index)} cannot be read: {error}") from error
        return pixels, int(self._images.labels[index])

    def _cropped(self, image: Image.Image, index: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_state(self._seed, self._epoch, index))
            box = (0, 0, *image.size)
            if "resized_crop" in self._augment:
                # It asks for no more than the size.
                blank = torch.empty(1, image.height, image.width, device="meta")
                top, left, height, width = RandomResizedCrop.get_params(
                    blank, list(CROP_SCALE), list(CROP_RATIO)
                )
                box = (left, top, left + width, top + height)
            flip = "flip" in self._augment and bool(torch.rand(()) < 0.5)
        pixels = crop_and_resize(image, box, self._size)
        return (pixels.flip(2) if flip else pixels).contiguous()


def crop_and_resize(image: Image.Image, box: tuple[int, int, int, int], size: int) -> Tensor:
    """The part of an unread image in `box` (left, top, right, bottom; pixels), (3, size, size) uint8.

    As in the PyTorch ImageNet example, how a camera was held is not looked at.
    """
    left, top, right, bottom = box
    width, height = image.size
    part = min(right - left, bottom - top)
    if image.format == "JPEG":
        if part >= 2 * size:
            # Decoding at a half, quarter or eighth of the size leaves out much of the work.
            image.draft("RGB", (round(width * size / part), round(height * size / part)))
        image = image.convert("RGB")
    else:
        image = to_colour_mode(image, 3)
    x, y = image.width / width, image.height / height
    place = (left * x, top * y, right * x, bottom * y)
    resized = image.resize((size, size), Image.Resampling.BILINEAR, box=place)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def _decoded(
    images: ImageSet, preprocessing: Preprocessing, recipe: Pretraining, quiet: bool
) -> NDArray[np.uint8]:
    """Large sets are kept on disk between runs, and mapped from there."""
    cache = Cache.open(recipe.streamed, None, None)
    pixels = prepare_all(images, preprocessing, cache, auto_workers(None, len(images)), quiet)
    say(*(f"note: {note}" for note in cache.notes()))
    return pixels


def _chosen(images: ImageSet, recipe: Pretraining, seed: int) -> ImageSet:
    images = _of_classes(images, recipe.n_classes)
    if recipe.n_images is None:
        return images
    if len(images) < recipe.n_images:
        raise DataError(
            f"the recipe wants {recipe.n_images} training images, and {recipe.data} has "
            f"{len(images)} in its first {recipe.n_classes} classes."
        )
    order = np.random.default_rng(seed).permutation(len(images))
    return images.subset(order[: recipe.n_images])


def _of_classes(images: ImageSet, n_classes: int) -> ImageSet:
    """The images of the first classes."""
    inside = images.labels < n_classes
    return images if inside.all() else images.subset(np.flatnonzero(inside))
