"""Images by reference: the path of a file, or ``scheme:...`` for drawn images (``digits:``, the synthetic problems) and
images inside a table (``hf:``, a data set of the ``datasets`` library).

A problem holds references and no pixels, so that a million problems fit in memory and records of a run stay small.
All consumers get 8-bit RGB, upright, transparency on white, the first frame of an animation.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageOps

from mathse.data import hub_table
from mathse.data.image_decoding import DAMAGED, FORMATS, MAX_PIXELS, load_file, non_empty, pixels_sha256
from mathse.data.synthetic import digits
from mathse.errors import DataError
from mathse.runs.store import sha256_file

CHUNK = 256  # images per task list of the cores; an interrupted check ends behind them
REPORT_SIDE = 512  # pixels, long side of an image in a report
Loader = Callable[[str], Image.Image]
# Scheme (the text before the colon) -> function that loads the image of a whole reference. A source of your own may add
# its scheme, of two or more letters, because C: begins a Windows path.
SCHEMES: dict[str, Loader] = {"digits": digits.render, "hf": hub_table.image}


def load_image(ref: str) -> Image.Image:
    """Load the image of a file path or scheme reference: mode RGB, (width, height) as displayed.

    Raises DataError, with the file and a remedy, for a file that is missing, empty, damaged, cut off, of another
    format than ``FORMATS`` or of more than ``MAX_PIXELS``.
    """
    scheme = ref.partition(":")[0]
    if scheme in SCHEMES:
        return SCHEMES[scheme](ref).convert("RGB")
    if "://" in ref:
        raise DataError(f"image {ref}: known schemes are {sorted(SCHEMES)}; download the image and give its path")
    return load_file(Path(ref))


def unreadable(refs: Sequence[str]) -> Iterator[str | None]:
    """Yield for each image, in their order, the reason why ``load_image`` refuses it, or None.

    All cores decode, because Pillow releases the GIL.
    """

    def reason(ref: str) -> str | None:
        try:
            load_image(ref)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(refs), CHUNK):
            yield from pool.map(reason, refs[start : start + CHUNK])


def check_header(ref: str) -> None:
    """Raise the DataError of ``load_image`` for a file with a bad header. Its pixels are not read."""
    if ref.partition(":")[0] in SCHEMES or not Path(ref).is_file() or Path(ref).stat().st_size == 0:
        load_image(ref)
        return
    try:
        with Image.open(ref, formats=FORMATS) as image:
            fits = image.width * image.height <= MAX_PIXELS
    except DAMAGED:
        fits = False
    if not fits:
        load_image(ref)  # raises the error


def image_size(ref: str) -> tuple[int, int]:
    """Read (width, height) as displayed, for a file from its header. Raises DataError as ``load_image``."""
    if ref.partition(":")[0] in SCHEMES or not Path(ref).is_file():
        return load_image(ref).size
    try:
        with Image.open(ref, formats=FORMATS) as image:
            # EXIF orientations 5 to 8 turn the image by a quarter.
            turned = image.getexif().get(ImageOps.ExifTags.Base.Orientation, 1) >= 5
            return (image.height, image.width) if turned else image.size
    except DAMAGED:
        return load_image(ref).size  # raises the error


def png_bytes(ref: str) -> bytes:
    """Encode an image as PNG for a report, with at most ``REPORT_SIDE`` pixels on its long side."""
    image = load_image(ref)
    image.thumbnail((REPORT_SIDE, REPORT_SIDE))
    red, *others = image.split()
    if all(band.tobytes() == red.tobytes() for band in others):
        image = red  # a grey image needs a third of the bytes
    buffer = io.BytesIO()
    # A run has thousands of pictures: a higher level takes three times as long and saves a few per cent.
    image.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def image_sha256(ref: str) -> str:
    """Hash the decoded RGB pixels and their shape: equal for two files that show the same image."""
    return pixels_sha256(load_image(ref))


def stored_sha256(ref: str) -> str:
    """Hash the stored bytes of an image; for a drawn image, its pixels (``image_sha256``)."""
    if ref.startswith("hf:"):
        return hashlib.sha256(hub_table.stored_bytes(ref)).hexdigest()
    return image_sha256(ref) if has_scheme(ref) else sha256_file(non_empty(Path(ref)))


def has_scheme(ref: str) -> bool:
    """Whether a reference has a scheme, and so is no path of a file."""
    return ref.partition(":")[0] in SCHEMES
