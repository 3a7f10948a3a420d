"""Image files: which ones a dataset may hold, and how they become pixels."""

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from lab.project import LabError

# Pillow looks at the content, not the suffix, and starts Ghostscript for some other formats.
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
MAX_BYTES = 2**28  # of a file: 256 MiB
MAX_PIXELS = 2**26  # of an image: 8192 x 8192, 192 MiB once it is decoded


class ImageError(LabError):
    """A file that cannot be used as an image. The message says why, without the file's name."""


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Open an image file; ImageError if it is not a regular file, too large or unreadable."""
    try:
        # without O_NONBLOCK a FIFO would wait for somebody to write into it
        with open(path, "rb", opener=lambda at, flags: os.open(at, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("is not a regular file")
            if status.st_size > MAX_BYTES:
                raise ImageError(f"is larger than {MAX_BYTES >> 20} MiB")
            yield file
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None


def read_file(path: Path) -> bytes:
    """Read an image file; ImageError as open_file()."""
    with open_file(path) as file:
        return file.read()


def decode(file: BinaryIO) -> Image.Image:
    """Decode an image to 8-bit RGB as a viewer shows it; ImageError for whatever cannot be used.

    It is rotated as its EXIF data says, and on white where it is transparent.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            image = Image.open(file, formats=FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError(f"has {width} x {height} pixels, more than {MAX_PIXELS:,}")
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # phones put a second one into a JPEG
            raise ImageError(f"has {frames} frames or pages: save each as an image of its own")
        image.load()
        if image.mode.startswith(("I", "F")):  # convert() would clip the values to 255
            raise ImageError("has more than 8 bits per channel: convert it to 8 bits first")
        return as_displayed(image).convert("RGB")
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    except Exception as error:  # noqa: BLE001 Pillow's decoders raise whatever they like
        raise ImageError(f"cannot be decoded ({type(error).__name__}: {error})") from None


def as_displayed(image: Image.Image) -> Image.Image:
    """Rotate and flatten an image as a viewer does: a phone notes its rotation only in EXIF."""
    with suppress(Exception):  # damaged EXIF data leaves the pixels usable
        ImageOps.exif_transpose(image, in_place=True)
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")  # convert("RGB") would show colors that were made invisible
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
