"""Decoding: modes, rotation, the store, and images that cannot be read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from ckptsel.common.cache import CacheFolder
from ckptsel.errors import DataError
from ckptsel.target.images import ImageSet
from ckptsel.target.pixels import Preprocessing, normalise, prepare_all, to_colour_mode
from ckptsel.target.sources import open_source

SETTINGS = Preprocessing((3, 8, 8), "bilinear", (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 1.0)


class Opened:
    """Samples that are opened by being called, whatever comes of it."""

    def __init__(self, images: list[Callable[[], Image.Image]]) -> None:
        self._images = images

    def open(self, index: int) -> Image.Image:
        return self._images[index]()

    def read(self, index: int) -> bytes:
        return str(len(self._images)).encode()

    def locate(self, index: int) -> str:
        return f"image-{index}"


def image_set(images: list[Callable[[], Image.Image]]) -> ImageSet:
    names = tuple(map(str, range(len(images))))
    return ImageSet("train", np.arange(len(images)), names, Opened(images))


def blank() -> Image.Image:
    return Image.new("RGB", (4, 4))


def test_16_bit_grey_keeps_its_high_bits() -> None:
    values = np.array([[0, 255, 256], [32768, 65280, 65535]], dtype=np.uint16)
    image = to_colour_mode(Image.fromarray(values), 3)
    assert np.asarray(image)[:, :, 0].tolist() == [[0, 0, 1], [128, 255, 255]]
    assert image.mode == "RGB"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize(("n_channels", "expected"), [(3, "RGB"), (1, "L")])
def test_every_mode_becomes_rgb_or_grey(mode: str, n_channels: int, expected: str) -> None:
    image = Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode)
    converted = to_colour_mode(image, n_channels)
    assert converted.mode == expected
    assert np.asarray(converted).min() == 255


def test_palettes_are_resolved() -> None:
    image = Image.fromarray(np.zeros((2, 2), dtype=np.uint8), mode=None).convert("P")
    image.putpalette([200, 100, 50] + [0] * 765)
    assert to_colour_mode(image, 3).getpixel((0, 0)) == (200, 100, 50)
    image.info["transparency"] = b"\x80"
    assert to_colour_mode(image, 3).getpixel((0, 0)) == (200, 100, 50)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 3))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert to_colour_mode(Image.open(tmp_path / "a.jpg"), 3).size == (3, 6)


def test_pixels_are_those_of_timms_transform() -> None:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (20, 30, 3)).astype(np.uint8))
    settings = Preprocessing((3, 8, 8), "bicubic", SETTINGS.mean, SETTINGS.std, 0.8)
    expected = create_transform(**settings.to_dict(), is_training=False)(image)
    pixels = prepare_all(image_set([lambda: image]), settings, None, quiet=True)
    ours = normalise(torch.from_numpy(pixels), settings)[0]
    assert torch.allclose(ours, expected, atol=1e-5)


def test_normalised_images_lie_in_memory_as_asked() -> None:
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    plain = normalise(pixels, SETTINGS)
    last = normalise(pixels, SETTINGS, torch.channels_last)
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, last)


def test_decoded_once_and_the_same_with_two_workers(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = open_source(str(images)).read("train")
    first = prepare_all(train, SETTINGS, CacheFolder(tmp_path / "store"), quiet=True)
    by_workers = prepare_all(train, SETTINGS, None, n_workers=2, quiet=True)
    assert np.array_equal(first, by_workers)
    monkeypatch.setattr("ckptsel.target.samples.FileSamples.open", None)
    assert np.array_equal(
        prepare_all(train, SETTINGS, CacheFolder(tmp_path / "store"), quiet=True), first
    )


def test_up_to_ten_unreadable_images_are_listed(tmp_path: Path) -> None:
    def fail() -> Image.Image:
        raise OSError("broken")

    with pytest.raises(DataError) as caught:
        prepare_all(image_set([blank] + [fail] * 12), SETTINGS, CacheFolder(tmp_path), quiet=True)
    message = str(caught.value)
    assert message.startswith("12 of 13 images cannot be read:\n  image-1 (OSError: broken)")
    assert message.count("(OSError: broken)") == 10
    assert "... and 2 more" in message
    assert list(tmp_path.iterdir()) == []


def test_a_stripe_is_no_picture() -> None:
    """Brought to 32 pixels across, it would be of 40,000 along."""
    with pytest.raises(DataError, match=r"1 x 1250 pixels: one side is more than 1000 times"):
        prepare_all(image_set([lambda: Image.new("RGB", (1, 1250))]), SETTINGS, None, quiet=True)
    assert len(prepare_all(image_set([lambda: Image.new("L", (2, 2000))]), SETTINGS, None)) == 1


def test_a_truncated_jpeg_is_unreadable(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"image-0 \(OSError: "):
        prepare_all(image_set([lambda: Image.open(tmp_path / "a.jpg")]), SETTINGS, None, quiet=True)


def test_an_interrupted_decode_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt() -> Image.Image:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_all(image_set([blank, interrupt]), SETTINGS, CacheFolder(tmp_path), quiet=True)
    assert list(tmp_path.iterdir()) == []
