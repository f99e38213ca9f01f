"""Image files of every kind become RGB JPEGs, or are refused with a reason."""

import io

import numpy as np
import pytest
from PIL import Image

from galip_keras.datasets.jpeg import to_jpeg
from galip_keras.images import ImageError

# Reading images has nothing to do with the backend: once is enough.
pytestmark = pytest.mark.backend("tensorflow")

SIZE = (60, 40)
RED = (200, 30, 40)


def decoded(path):
    return Image.open(io.BytesIO(to_jpeg(path)))


def assert_color(image, color, at=(0.5, 0.5)):
    """Check the colour at a point, given as fractions of width and height."""
    x, y = (round(part * (side - 1)) for part, side in zip(at, image.size))
    np.testing.assert_allclose(image.getpixel((x, y)), color, atol=6)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_formats(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", SIZE, RED).save(path)
    image = decoded(path)
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert_color(image, RED)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((60, 40), (456, 304)), ((40, 61), (304, 463)), ((912, 608), (456, 304))],
)
def test_shorter_side_is_304(tmp_path, size, expected):
    Image.new("RGB", size).save(tmp_path / "a.png")
    assert decoded(tmp_path / "a.png").size == expected


def test_resizes_like_torchvision(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), "uint8")
    image = Image.fromarray(pixels).resize((600, 400), Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.png")
    # torchvision makes this call for a Pillow image.
    expected = np.asarray(image.resize((456, 304), Image.Resampling.BILINEAR), float)
    error = np.asarray(decoded(tmp_path / "a.png"), float) - expected
    assert np.sqrt(np.mean(error**2)) < 2.0


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_transparency_is_laid_on_white(tmp_path, suffix):
    image = Image.new("RGBA", SIZE, RED + (0,))
    image.paste(RED + (128,), (30, 0, 60, 40))
    image.save(tmp_path / f"a.{suffix}")
    image = decoded(tmp_path / f"a.{suffix}")
    assert_color(image, (255, 255, 255), at=(0.2, 0.5))
    assert_color(image, [(c + 255) // 2 for c in RED], at=(0.8, 0.5))


def test_grey_with_alpha(tmp_path):
    Image.new("LA", SIZE, (10, 0)).save(tmp_path / "a.png")
    assert_color(decoded(tmp_path / "a.png"), (255, 255, 255))


@pytest.mark.parametrize("suffix", ["png", "gif"])
@pytest.mark.parametrize("transparent", [True, False])
def test_palette(tmp_path, suffix, transparent):
    image = Image.new("P", SIZE, 1)
    image.putpalette([0, 0, 0, *RED])
    options = {"transparency": 1} if transparent else {}
    image.save(tmp_path / f"a.{suffix}", **options)
    expected = (255, 255, 255) if transparent else RED
    assert_color(decoded(tmp_path / f"a.{suffix}"), expected)


def test_palette_with_partial_transparency(tmp_path):
    image = Image.new("P", SIZE, 1)
    image.putpalette([0, 0, 0, *RED])
    image.save(tmp_path / "a.png", transparency=bytes([255, 128]))
    assert_color(decoded(tmp_path / "a.png"), [(c + 255) // 2 for c in RED])


@pytest.mark.parametrize(("mode", "value", "expected"), [("L", 90, 90), ("1", 1, 255)])
def test_grey(tmp_path, mode, value, expected):
    Image.new(mode, SIZE, value).save(tmp_path / "a.png")
    assert_color(decoded(tmp_path / "a.png"), [expected] * 3)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    pixels = np.full((40, 60), 30000, "uint16")
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    assert_color(decoded(tmp_path / f"a.{suffix}"), [117] * 3)


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_cmyk(tmp_path, suffix):
    Image.new("CMYK", SIZE, (0, 255, 255, 0)).save(tmp_path / f"a.{suffix}")
    assert_color(decoded(tmp_path / f"a.{suffix}"), (255, 0, 0))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_rotation(tmp_path, suffix):
    image = Image.new("RGB", SIZE, "white")
    image.paste(RED, (0, 0, 60, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # To be rotated clockwise by a quarter: top becomes right.
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    image = decoded(tmp_path / f"a.{suffix}")
    assert image.size == (304, 456)
    assert_color(image, RED, at=(0.8, 0.5))
    assert_color(image, (255, 255, 255), at=(0.2, 0.5))


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", SIZE, color) for color in (RED, "blue")]
    for suffix in ("gif", "webp", "tiff"):
        path = tmp_path / f"a.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert_color(decoded(path), RED)


def test_jpeg_of_several_images(tmp_path):
    # As phones write them, under the name of an ordinary JPEG.
    frames = [Image.new("RGB", SIZE, color) for color in (RED, "blue")]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert_color(decoded(tmp_path / "a.jpg"), RED)


def refuse(path):
    with pytest.raises(ImageError) as error:
        to_jpeg(path)
    return str(error.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff"])
def test_truncated(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), "uint8")
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refuse(path) == "cannot be read"


@pytest.mark.parametrize("content", [b"", b"no image\n", b"\x89PNG\r\n\x1a\n", b"BM"])
def test_no_image(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert refuse(tmp_path / "a.png") == "cannot be read"


@pytest.mark.parametrize("kind", ["EPS", "PPM"])
def test_other_formats_are_not_opened(tmp_path, kind):
    # PostScript would start another program. PPM stands for all other formats.
    Image.new("RGB", SIZE).save(tmp_path / "a.png", kind)
    assert refuse(tmp_path / "a.png") == "cannot be read"


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((1, 1), "shorter side under 16 pixels"),
        ((100, 15), "shorter side under 16 pixels"),
        ((20000, 20), "longer than 8:1"),
        ((20, 161), "longer than 8:1"),
    ],
)
def test_sizes_that_are_refused(tmp_path, size, reason):
    Image.new("L", size).save(tmp_path / "a.png")
    assert refuse(tmp_path / "a.png") == reason


def test_sizes_at_the_limits(tmp_path):
    Image.new("L", (128, 16)).save(tmp_path / "a.png")
    assert decoded(tmp_path / "a.png").size == (2432, 304)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9500, 13500])  # above Pillow's limit, above twice
def test_decompression_bomb(tmp_path, side):
    Image.new("1", (side, side)).save(tmp_path / "a.png")
    assert refuse(tmp_path / "a.png") == "too many pixels"


def test_floating_point(tmp_path):
    Image.new("F", SIZE, 0.5).save(tmp_path / "a.tiff")
    assert refuse(tmp_path / "a.tiff") == "floating point pixels"
