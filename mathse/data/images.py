"""Images by reference: a file's path, or ``scheme:...`` for images that are drawn (``digits:`` is the embedded world)
or lie inside a table (``hf:``, a data set of the ``datasets`` library).

Everything downstream gets 8-bit RGB, upright, transparency on white, the first frame of an animation.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mathse.errors import DataError
from mathse.runs.store import sha256_file
from mathse.seeds import rng

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # none that starts another program, as EPS does
MAX_PIXELS = 64_000_000  # area; larger files are decompression bombs or belong scaled down
REPORT_SIDE = 512  # pixels, long side of an image in a report
JPEG_SIDE = 65_500  # pixels; libjpeg writes no longer side

Loader = Callable[[str], Image.Image]

# What Pillow's decoders raise on damaged files.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def _digits(ref: str) -> Image.Image:
    world = import_module("mathse.data.synthetic.digits")  # by name and late: the world stands above this module
    return cast(Image.Image, world.render(ref))


def _in_table(ref: str) -> Image.Image:
    hub = import_module("mathse.data.hub")  # late too: it stands above this module, and needs a library of its own
    return cast(Image.Image, hub.image(ref))


_SCHEMES: dict[str, Loader] = {"digits": _digits, "hf": _in_table}


def register_scheme(name: str, loader: Loader) -> None:
    """Let references ``name:...`` be drawn by ``loader(ref)``, which gets the whole reference."""
    if not re.fullmatch(r"[a-z][a-z0-9+.-]+", name):
        raise DataError(f"an image scheme is two or more of a-z 0-9 + . - starting with a letter, got {name!r}")
    _SCHEMES[name] = loader


def load_image(ref: str) -> Image.Image:
    """The image behind a file path or scheme reference: mode RGB, (width, height) as displayed.

    Raises DataError, naming the file and a remedy, for a file that is missing, empty, damaged, cut off, of another
    format than ``FORMATS`` or of more than ``MAX_PIXELS``.
    """
    scheme = ref.partition(":")[0]
    if scheme in _SCHEMES:
        return _SCHEMES[scheme](ref).convert("RGB")
    if "://" in ref:
        raise DataError(f"image {ref}: known schemes are {sorted(_SCHEMES)}; download the image and give its path")
    return _load_file(Path(ref))


def decode(data: bytes, name: str) -> Image.Image:
    """The image in ``data``, as ``load_image`` of a file; errors call it ``name``."""
    if not data:
        raise DataError(f"image {name}: 0 bytes; fetch it again")
    return _guarded(name, lambda: io.BytesIO(data))


def check_header(ref: str) -> None:
    """What ``load_image`` says of a file, as far as its first bytes show; its pixels are not read."""
    if ref.partition(":")[0] in _SCHEMES or not Path(ref).is_file() or Path(ref).stat().st_size == 0:
        load_image(ref)
        return
    try:
        with Image.open(ref, formats=FORMATS) as image:
            fits = image.width * image.height <= MAX_PIXELS
    except _DAMAGED:
        fits = False
    if not fits:
        load_image(ref)  # which says what is wrong


def jpeg(image: Image.Image, quality_low: int, quality_high: int, seed: int) -> Image.Image:
    """The image after JPEG compression at a quality between the two, drawn from ``seed``: same seed, same pixels."""
    if max(image.size) > JPEG_SIDE:
        size = f"{image.width} x {image.height} pixels"
        raise DataError(f"an image of {size} has no JPEG form (at most {JPEG_SIDE} a side); scale it down")
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=rng(seed, "quality").randint(quality_low, quality_high))
    return Image.open(buffer).convert("RGB")


def image_size(ref: str) -> tuple[int, int]:
    """(width, height) as displayed; of a file from its header alone. Raises DataError as ``load_image``."""
    if ref.partition(":")[0] in _SCHEMES or not Path(ref).is_file():
        return load_image(ref).size
    try:
        with Image.open(ref, formats=FORMATS) as image:
            turned = image.getexif().get(ImageOps.ExifTags.Base.Orientation, 1) >= 5
            return (image.height, image.width) if turned else image.size
    except _DAMAGED:
        return load_image(ref).size  # which says what is wrong


def png_bytes(ref: str) -> bytes:
    """The image as PNG for a report, scaled down to at most ``REPORT_SIDE`` pixels on its long side."""
    image = load_image(ref)
    image.thumbnail((REPORT_SIDE, REPORT_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def image_sha256(ref: str) -> str:
    """Hash of the decoded RGB pixels and their shape: equal for two files that show the same picture."""
    image = load_image(ref)
    return hashlib.sha256(f"{image.width}x{image.height}\n".encode() + image.tobytes()).hexdigest()


def stored_sha256(ref: str) -> str:
    """Hash of an image's bytes as they are stored; of a picture that is drawn, of its pixels (``image_sha256``)."""
    if ref.startswith("hf:"):
        return hashlib.sha256(import_module("mathse.data.hub").stored(ref)).hexdigest()
    return image_sha256(ref) if has_scheme(ref) else sha256_file(_filled(Path(ref)))


def has_scheme(ref: str) -> bool:
    """Whether a reference is no file's path."""
    return ref.partition(":")[0] in _SCHEMES


def _load_file(path: Path) -> Image.Image:
    return _guarded(path, lambda: _filled(path))


def _filled(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"image {path}: no such file; check the row's path, or put the image there")
    if path.stat().st_size == 0:
        raise DataError(f"image {path}: the file is empty (0 bytes); fetch it again")
    return path


def _guarded(name: object, opened: Callable[[], Path | io.BytesIO]) -> Image.Image:
    """The image behind ``opened()``, or a DataError that names it."""
    try:
        with Image.open(opened(), formats=FORMATS) as image:
            image.verify()  # PNG's checksums, which decoding skips
        with Image.open(opened(), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(_too_large(name, f"{image.width} x {image.height} pixels"))
            return _rgb(_upright(image))
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(f"image {name}: no permission to read it ({error.strerror}); mend its mode") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(_too_large(name, "a decompression bomb")) from None
    except UnidentifiedImageError:
        raise DataError(f"image {name}: damaged, or none of {', '.join(FORMATS)}; save it as PNG") from None
    except _DAMAGED as error:
        raise DataError(f"image {name}: damaged or cut off ({error}); fetch it again or save it as PNG") from None


def _too_large(name: object, found: str) -> str:
    return f"image {name}: {found}, at most {MAX_PIXELS:,} pixels are allowed; scale it down"


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; an unreadable EXIF block is no reason to lose the image."""
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGED:
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode.startswith("I"):  # 16 bits of grey, sometimes in a 32-bit frame
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray((grey // 257 if grey.max() > 255 else grey).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("32-bit float pixels have no agreed range")
    return image.convert("RGB")
