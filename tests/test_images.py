"""Images of every kind a data set may hold, and the damaged ones."""

from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mathse.data import image_decoding, images
from mathse.data.images import image_sha256, load_image, png_bytes
from mathse.errors import DataError

RED, WHITE = (255, 0, 0), (255, 255, 255)


def save(path: Path, image: Image.Image, **options: object) -> str:
    image.save(path, **options)  # type: ignore[arg-type]
    return str(path)


def picture() -> Image.Image:
    """6 x 4, red on the left half, blue on the right."""
    image = Image.new("RGB", (6, 4), RED)
    image.paste((0, 0, 255), (3, 0, 6, 4))
    return image


def close(pixel: object, expected: tuple[int, int, int], tolerance: int = 3) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, expected, strict=True))  # type: ignore[call-overload]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr"])
def test_every_colour_mode_is_loaded_as_rgb(tmp_path: Path, mode: str) -> None:
    suffix = {"CMYK": "tiff", "YCbCr": "jpg"}.get(mode, "png")
    image = load_image(save(tmp_path / f"a.{suffix}", Image.new("RGB", (16, 8), RED).convert(mode)))
    assert (image.mode, image.size) == ("RGB", (16, 8))
    assert close(image.getpixel((3, 3)), RED)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_and_bilevel_images_are_loaded_as_rgb(tmp_path: Path, mode: str) -> None:
    assert load_image(save(tmp_path / "a.png", Image.new(mode, (2, 2), "white"))).getpixel((0, 0)) == WHITE


def test_jpeg_in_cmyk_keeps_its_colours(tmp_path: Path) -> None:
    image = load_image(save(tmp_path / "a.jpg", Image.new("RGB", (16, 16), RED).convert("CMYK")))
    assert close(image.getpixel((8, 8)), RED, tolerance=6)


def test_sixteen_bit_grey_is_scaled_to_eight_bits(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 100], [257 * 200, 65535]], dtype=np.uint16)
    image = load_image(save(tmp_path / "a.png", Image.fromarray(values)))
    assert [pixel[0] for pixel in (image.getpixel((x, y)) for y in (0, 1) for x in (0, 1))] == [0, 100, 200, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_become_white(tmp_path: Path, mode: str) -> None:
    clear = Image.new(mode, (2, 2), (0,) * len(mode))
    assert load_image(save(tmp_path / "a.png", clear)).getpixel((0, 0)) == WHITE


def test_transparent_palette_entry_becomes_white(tmp_path: Path) -> None:
    ref = save(tmp_path / "a.gif", Image.new("P", (2, 2), 0), transparency=0)
    assert load_image(ref).getpixel((0, 0)) == WHITE


def test_photo_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image = load_image(save(tmp_path / "a.png", picture(), exif=exif))
    assert image.size == (4, 6)
    assert image.getpixel((0, 0)) == RED
    assert image.getpixel((0, 5)) == (0, 0, 255)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_unreadable_exif_is_ignored(tmp_path: Path) -> None:
    ref = save(tmp_path / "a.jpg", picture(), exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert load_image(ref).size == (6, 4)


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    ref = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert load_image(ref).getpixel((1, 1)) == RED


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("<html>404</html>")


def folder(path: Path) -> None:
    path.mkdir()


def absent(path: Path) -> None:
    pass


def cut_off(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue()[:1500])


def corrupted(path: Path) -> None:
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[data.index(b"IDAT") + 6] ^= 0xFF
    path.write_bytes(data)


def bomb(path: Path) -> None:
    """A PNG header that promises 100,000 x 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\x00" * 100)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def postscript(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")


def float_pixels(path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(path, "TIFF")


@pytest.mark.parametrize(
    ("make", "said"),
    [(nothing, "empty"), (text, "none of"), (folder, "no such file"), (absent, "no such file"),
     (cut_off, "cut off"), (corrupted, "damaged"), (bomb, "scale it down"), (postscript, "none of"),
     (float_pixels, "float")],
)  # fmt: skip
def test_unusable_file_is_named_with_its_fault(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "broken.png"
    make(path)
    with pytest.raises(DataError, match=r"broken\.png") as caught:
        load_image(str(path))
    assert said in str(caught.value)
    assert ";" in str(caught.value)  # a remedy follows


def test_image_above_the_pixel_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_decoding, "MAX_PIXELS", 20)
    with pytest.raises(DataError, match="6 x 4 pixels"):
        load_image(save(tmp_path / "a.png", picture()))


def test_web_address_is_refused_with_a_remedy() -> None:
    with pytest.raises(DataError, match="download"):
        load_image("https://example.org/a.png")


def test_a_source_may_add_a_scheme_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(images.SCHEMES, "plain", lambda ref: Image.new("L", (2, 2), ref.partition(":")[2]))
    assert load_image("plain:white").getpixel((0, 0)) == WHITE


def test_images_are_checked_on_all_cores_with_the_errors_and_the_order_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [save(tmp_path / f"{k}.png", Image.new("RGB", (4 + k, 4), RED)) for k in range(12)]
    for k in (3, 4, 9):
        Path(refs[k]).write_bytes(b"" if k == 9 else Path(refs[k]).read_bytes()[:-20])
    refs.insert(7, str(tmp_path / "none.png"))
    expected: list[str | None] = []
    for ref in refs:
        try:
            load_image(ref)
            expected.append(None)
        except DataError as error:
            expected.append(str(error))
    assert [reason is None for reason in expected].count(False) == 4

    together = threading.Barrier(3, timeout=20)

    def waits_for_two_others(ref: str) -> Image.Image:
        if ref in refs[:3]:
            together.wait()
        return load_image(ref)

    monkeypatch.setattr(images.os, "cpu_count", lambda: 3)
    monkeypatch.setattr(images, "CHUNK", 5)
    monkeypatch.setattr(images, "load_image", waits_for_two_others)
    assert list(images.unreadable(refs)) == expected


def test_report_image_is_a_png_of_bounded_size(tmp_path: Path) -> None:
    ref = save(tmp_path / "a.bmp", Image.new("RGB", (1024, 256), RED))
    with Image.open(io.BytesIO(png_bytes(ref))) as image:
        assert (image.format, image.size) == ("PNG", (512, 128))


def test_small_report_image_keeps_its_size(tmp_path: Path) -> None:
    with Image.open(io.BytesIO(png_bytes(save(tmp_path / "a.png", picture())))) as image:
        assert image.size == (6, 4)


def test_hash_is_of_the_pixels_not_of_the_file(tmp_path: Path) -> None:
    png, bmp = save(tmp_path / "a.png", picture()), save(tmp_path / "a.bmp", picture())
    turned = save(tmp_path / "b.png", Image.new("RGB", (4, 6), RED))
    assert image_sha256(png) == image_sha256(bmp) != image_sha256(turned)
    assert image_sha256(png) == hashlib.sha256(b"6x4\n" + picture().tobytes()).hexdigest()


def test_importing_the_image_loader_loads_nothing_heavy() -> None:
    script = "import sys, mathse.data.images; print({'torch', 'sklearn', 'datasets', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_digits_reference_is_drawn_by_the_embedded_world() -> None:
    image = load_image("digits:0012-0345-0678")
    assert (image.mode, image.size) == ("RGB", (84, 28))
