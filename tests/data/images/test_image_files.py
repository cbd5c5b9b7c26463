"""Image files are read without loss or refused by name."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxvae.data.images import image_files
from jaxvae.errors import InputError

GREY = np.random.default_rng(0).integers(0, 256, (6, 9), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
OPAQUE = np.full((6, 9, 1), 255, np.uint8)


def png(array: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits per sample, built by hand because Pillow cannot write one in colour."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".BMP", ".webp", ".tif", ".TIFF", ".npy"])
@pytest.mark.parametrize("array", [GREY, RGB], ids=["grey", "rgb"])
def test_eight_bits_stay_eight_bits(tmp_path, suffix, array):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    elif suffix in (".tif", ".TIFF"):
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    if suffix == ".webp" and array is GREY:  # WebP has no grey.
        array = np.repeat(GREY[..., None], 3, axis=-1)
    image = image_files.read(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, array if array.ndim == 3 else array[..., None])


def test_a_photograph_of_two_rows_keeps_its_axes(tmp_path):
    Image.fromarray(RGB[:2]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(image_files.read(tmp_path / "a.png"), RGB[:2])


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_sixteen_bits_become_0_to_1_without_loss(tmp_path, byteorder):
    deep = np.array([[0, 1, 2], [255, 256, 65535]], np.uint16)
    np.save(tmp_path / "a.npy", deep.astype(f"{byteorder}u2"))
    tifffile.imwrite(tmp_path / "a.tif", deep, byteorder=byteorder)
    Image.fromarray(deep).save(tmp_path / "a.png")
    for suffix in ("npy", "tif", "png"):
        image = image_files.read(tmp_path / f"a.{suffix}")
        assert image.dtype == np.float32
        np.testing.assert_array_equal(np.round(image[..., 0].astype(np.float64) * 65535), deep)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colour_png_of_sixteen_bits_is_refused(tmp_path, colour, channels):
    path = tmp_path / "deep.png"
    path.write_bytes(png(np.full((4, 5, channels), 65535, np.uint16), colour))
    with pytest.raises(InputError, match=r"deep\.png: is a colour PNG of 16 bits.*TIFF"):
        image_files.read(path)


def test_grey_png_by_hand_is_read(tmp_path):
    deep = np.arange(20, dtype=np.uint16).reshape(4, 5, 1) * 3001
    (tmp_path / "deep.png").write_bytes(png(deep, 0))
    np.testing.assert_allclose(image_files.read(tmp_path / "deep.png"), deep / 65535, rtol=1e-7)


def test_sixteen_bit_colour_tiff_keeps_its_bits(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (6, 9, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb")
    np.testing.assert_allclose(image_files.read(tmp_path / "a.tif"), deep / 65535, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floating_point_keeps_its_range(tmp_path, dtype):
    values = (np.arange(12).reshape(3, 4) * 100 - 500).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    image = image_files.read(tmp_path / "a.npy")
    assert image.dtype == np.float32
    assert image.dtype.isnative
    np.testing.assert_array_equal(image[..., 0], values.astype(np.float64))


def test_true_becomes_255(tmp_path):
    drawn = GREY > 100
    np.save(tmp_path / "a.npy", drawn)
    Image.fromarray(drawn).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", drawn)
    Image.fromarray(drawn).save(tmp_path / "a.bmp")
    for suffix in ("npy", "png", "tif", "bmp"):
        np.testing.assert_array_equal(image_files.read(tmp_path / f"a.{suffix}")[..., 0], drawn * 255)


@pytest.mark.parametrize("shape", [(5, 20, 30), (20, 30, 5), (3, 20, 30), (1, 20, 30), (16, 20, 30), (20, 20, 20)])
def test_channels_are_the_shorter_of_first_and_last_axis(tmp_path, shape):
    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    np.save(tmp_path / "a.npy", values)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    if shape == (20, 20, 20):
        for suffix in ("npy", "tif"):
            with pytest.raises(InputError, match="of a volume"):
                image_files.read(tmp_path / f"a.{suffix}")
        return
    expected = values if shape[-1] == 5 else values.transpose(1, 2, 0)
    for suffix in ("npy", "tif"):
        image = image_files.read(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(image, expected)
        assert image.flags.c_contiguous


def test_palettes_become_rgb(tmp_path):
    palette = Image.fromarray(RGB).quantize(8)
    palette.save(tmp_path / "a.png")
    palette.save(tmp_path / "a.tif")
    palette.save(tmp_path / "a.bmp")
    for suffix in ("png", "tif", "bmp"):
        np.testing.assert_array_equal(image_files.read(tmp_path / f"a.{suffix}"), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("colours", [RGB, GREY[..., None]], ids=["rgb", "grey"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_only_opaque_alpha_is_dropped(tmp_path, colours, suffix):
    def save(alpha: np.ndarray) -> None:
        array = np.concatenate([colours, alpha], axis=-1)
        if suffix == ".png":
            Image.fromarray(array).save(tmp_path / f"a{suffix}")
        else:
            photometric = "rgb" if array.shape[-1] == 4 else "minisblack"
            tifffile.imwrite(tmp_path / f"a{suffix}", array, photometric=photometric, extrasamples=["unassalpha"])

    save(OPAQUE)
    np.testing.assert_array_equal(image_files.read(tmp_path / f"a{suffix}"), colours)
    hole = OPAQUE.copy()
    hole[2, 3] = 254
    save(hole)
    with pytest.raises(InputError, match=f"a{suffix}: is partly transparent"):
        image_files.read(tmp_path / f"a{suffix}")


def test_transparent_palette_is_refused(tmp_path):
    Image.fromarray(RGB).quantize(8).save(
        tmp_path / "a.png", transparency=int(np.argmax(np.bincount(GREY.ravel() % 8)))
    )
    with pytest.raises(InputError, match="partly transparent"):
        image_files.read(tmp_path / "a.png")


def test_four_channels_without_colours_are_kept(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (8, 9, 4), dtype=np.uint8)
    np.save(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(image_files.read(tmp_path / "a.npy"), values)


def test_photographs_are_rotated_upright(tmp_path):
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # what the camera stored is to be turned by 90 degrees clockwise
    Image.fromarray(np.rot90(upright)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = image_files.read(tmp_path / "a.jpg")[..., 0]
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() < 10


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_values_beyond_float32_are_refused(tmp_path, value):
    values = np.zeros((4, 4))
    values[1, 2] = value
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(InputError, match=r"a\.npy: 1 of its values"):
        image_files.read(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "array", [GREY.astype(np.int16), GREY.astype(np.int64), GREY * 1j, np.zeros((0, 4)), np.zeros(5)]
)
def test_arrays_of_other_shapes_are_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=r"a\.npy: "):
        image_files.read(tmp_path / "a.npy")


def test_pickles_are_never_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy: "):
        image_files.read(tmp_path / "a.npy")


def encoded(suffix: str) -> bytes:
    buffer = io.BytesIO()
    big = np.kron(RGB, np.ones((20, 20, 1), np.uint8)) + np.arange(180, dtype=np.uint8)[:, None]
    if suffix == ".npy":
        np.save(buffer, big)
    elif suffix == ".tif":
        tifffile.imwrite(buffer, big, compression="zlib", predictor=True)
    else:
        Image.fromarray(big).save(buffer, format="PNG" if suffix == ".png" else "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".npy"])
@pytest.mark.parametrize("part", [0, 3, 0.01, 0.5, 0.9, "noise"])
def test_damaged_files_are_named_in_one_line(tmp_path, suffix, part):
    content = encoded(suffix)
    path = tmp_path / f"broken{suffix}"
    if part == "noise":
        path.write_bytes(bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8)))
    else:
        path.write_bytes(content[: part if isinstance(part, int) else int(part * len(content))])
    with pytest.raises(InputError) as error:
        image_files.read(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert str(error.value).count(str(path)) == 1


@pytest.mark.parametrize("name", ["none.png", "a.dcm", "a"])
def test_other_files_than_images_are_named(tmp_path, name):
    (tmp_path / "a.dcm").write_bytes(b"x")
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(InputError, match=f"{name}: (no such file|cannot read)"):
        image_files.read(tmp_path / name)


def test_a_tiff_named_png_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB.astype(np.uint16) * 257)
    (tmp_path / "a.tif").rename(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: "):
        image_files.read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".tiff"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 2)])
def test_written_maps_are_read_back_equal(tmp_path, suffix, shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    path = tmp_path / "new" / "folder" / f"map{suffix}"
    image_files.write_map(path, values)
    np.testing.assert_array_equal(image_files.read(path), values.reshape(5, 7, -1))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_written_png_is_read_back_equal(tmp_path):
    for image in (GREY, GREY[..., None], RGB):
        image_files.write_png(tmp_path / "a.png", image)
        np.testing.assert_array_equal(image_files.read(tmp_path / "a.png"), image.reshape(6, 9, -1))


def test_a_map_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "map.npy"
    image_files.write_map(path, GREY)

    def fails_halfway(file, values):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fails_halfway)
    with pytest.raises(InputError, match=r"map\.npy: cannot be written \(No space left on device\)"):
        image_files.write_map(path, RGB)
    monkeypatch.undo()
    np.testing.assert_array_equal(image_files.read(path)[..., 0], GREY)
    assert [p.name for p in tmp_path.iterdir()] == ["map.npy"]


def test_a_map_in_a_lossy_format_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"map\.png: .*\.npy or \.tif"):
        image_files.write_map(tmp_path / "map.png", GREY)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        image_files.write_map(tmp_path / "file" / "map.npy", GREY)


def test_real_images(data):
    slices = data / "lgg-mri-segmentation" / "kaggle_3m" / "TCGA_CS_4941_19960909"
    image = image_files.read(slices / "TCGA_CS_4941_19960909_12.tif")
    assert image.shape == (256, 256, 3)
    assert image.dtype == np.uint8
    mask = image_files.read(slices / "TCGA_CS_4941_19960909_12_mask.tif")
    assert set(np.unique(mask)) == {0, 255}
    photograph = next((data / "bsdata-pitting" / "train" / "good").glob("*.jpg"))
    assert image_files.read(photograph).shape == (460, 1130, 3)


def test_an_image_too_large_for_pillow_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    image_files.write_png(path, GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(InputError, match=r"a\.png: is too large for Pillow .*; save it as TIFF or npy"):
        image_files.read(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"BM" + bytes(60), "is a BMP file, despite its name; rename it to .bmp"),
        ("a.tif", b"\x89PNG\r\n\x1a\n" + bytes(60), "is a PNG file, despite its name; rename it to .png"),
        ("a.jpg", b"RIFF\x10\0\0\0WEBPVP8L" + bytes(60), "is a WebP file, despite its name; rename it to .webp"),
        ("a.npy", b"PK\x03\x04" + bytes(60), "is a ZIP archive, despite its name; unpack it"),
        ("a.png", b"GIF89a" + bytes(60), "is a GIF file, despite its name; save it as PNG"),
        ("a.png", b"\0\0\0\x18ftypheic" + bytes(60), "is a HEIC or AVIF file, despite its name; save it as PNG"),
        ("a.tif", bytes(128) + b"DICM" + bytes(60), "is a DICOM file, despite its name; convert it"),
        ("a.png", LFS, "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"),
        ("a.jpg", b"/annex/objects/MD5E-s9--0.jpg\n", "is a git-annex pointer, not the file itself; fetch it with"),
        ("a.bmp", b"../../.git/annex/objects/xx/MD5E-s9--0.bmp", "is a git-annex pointer, not the file itself"),
        ("a.webp", b"\n<!DOCTYPE html><html>", "is an HTML page, despite its name; download the file itself again"),
        ("a.png", b"not found\n", "is a text file, despite its name"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_named_by_its_bytes(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    for read in (image_files.read, image_files.read_mask):
        with pytest.raises(InputError) as error:
            read(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: {said}")


def test_jpeg_and_png_with_swapped_names_are_read(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(image_files.read(tmp_path / "a.jpg"), RGB)


def test_a_broken_link_is_a_missing_file(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(InputError, match=r"a\.png: is a broken link"):
        image_files.read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_animations_are_refused(tmp_path, suffix):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"is animated, with 2 frames"):
        image_files.read(tmp_path / f"a{suffix}")


def test_headers_that_exceed_their_file_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", GREY)
    claimed = (tmp_path / "a.npy").read_bytes().replace(b"(6, 9)", b"(1000000, 1000000)")
    (tmp_path / "a.npy").write_bytes(claimed)
    (tmp_path / "b.png").write_bytes(png(np.zeros((1, 1, 1), np.uint16), 0))
    content = bytearray((tmp_path / "b.png").read_bytes())
    content[16:24] = struct.pack(">II", 10**6, 10**6)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "b.png").write_bytes(content)
    tifffile.imwrite(tmp_path / "c.tif", GREY, compression="zlib")
    with tifffile.TiffFile(tmp_path / "c.tif", mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages.first.tags[tag].overwrite(10**6)
    for name in ("a.npy", "b.png", "c.tif"):
        with pytest.raises(InputError, match=rf"{name}: "):
            image_files.read(tmp_path / name)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32])
@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_labels_of_any_integer_type_are_read(tmp_path, dtype, suffix):
    labels = np.zeros((8, 9), dtype)
    labels[2, 3], labels[4:6, 1:5] = 1, 2
    path = tmp_path / f"a{suffix}"
    np.save(path, labels) if suffix == ".npy" else tifffile.imwrite(path, labels)
    mask, notice = image_files.read_mask(path)
    np.testing.assert_array_equal(mask[..., 0], labels > 0)
    assert notice is None


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_a_palette_is_read_by_its_colours(tmp_path, suffix):
    """Index 0 is white here and index 1 black: the colours count."""
    drawn = (GREY > 100).astype(np.uint8)
    image = Image.fromarray(1 - drawn, mode="P")
    image.putpalette([255, 255, 255, 0, 0, 0, 9, 9, 9])
    image.save(tmp_path / f"a{suffix}")
    mask, notice = image_files.read_mask(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(mask[..., 0], drawn > 0)
    assert notice is None


def test_a_jpeg_mask_is_thresholded_at_half(tmp_path):
    drawn = np.zeros((40, 60), np.uint8)
    drawn[10:25, 12:41] = 255
    Image.fromarray(drawn).save(tmp_path / "a.jpg", quality=30)
    mask, notice = image_files.read_mask(tmp_path / "a.jpg")
    assert (mask[..., 0] != (drawn > 0)).mean() < 0.01
    assert notice is not None
    Image.fromarray(drawn // 255 * 3).save(tmp_path / "b.jpg", quality=90)
    assert "its values are at most" in str(image_files.read_mask(tmp_path / "b.jpg")[1])
