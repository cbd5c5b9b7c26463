"""Laws of reading and writing images, over formats, types, modes, compressions and byte orders."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis.extra import numpy as hnp
from PIL import Image

from jaxvae.data.images import image_files
from jaxvae.errors import InputError

SIDES = st.integers(1, 9)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def as_read(pixels: np.ndarray) -> np.ndarray:
    """[H, W, C] as `read` documents it: True is 255, uint16 is divided by 65535, float becomes float32."""
    image = pixels if pixels.ndim == 3 else pixels[..., None]
    if image.dtype == bool:
        return np.where(image, 255, 0).astype(np.uint8)
    if image.dtype == np.uint16:
        return (image.astype(np.float64) / 65535).astype(np.float32)
    return image if image.dtype == np.uint8 else image.astype(np.float32)


def same(found: np.ndarray, pixels: np.ndarray) -> None:
    expected = as_read(pixels)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if pixels.dtype == np.uint16:
        np.testing.assert_array_max_ulp(found, expected)
    else:
        np.testing.assert_array_equal(found, expected)


@st.composite
def pictures(draw: st.DrawFn, dtypes: tuple[str, ...], channels: tuple[int, ...]) -> np.ndarray:
    """[H, W] or, for more than one channel, [H, W, C] with both sides at least C, so that no axis is mistaken."""
    count, dtype = draw(st.sampled_from(channels)), np.dtype(draw(st.sampled_from(dtypes)))
    height, width = draw(SIDES) + count - 1, draw(SIDES) + count - 1
    rng, shape = np.random.default_rng(draw(st.integers(0, 99))), (height, width, count)[: 2 + (count > 1)]
    if dtype.kind == "f":
        return rng.normal(scale=draw(st.sampled_from((1e-3, 1.0, 4095.0))), size=shape).astype(dtype)
    most = 1 if dtype.kind == "b" else np.iinfo(dtype).max
    return rng.integers(0, most, shape, endpoint=True).astype(dtype)


@given(pictures(("u1", "?"), (1,)), st.sampled_from(("png", "tif", "tiff", "bmp")))
def test_grey_and_black_and_white_files_of_pillow(tmp_path, pixels, suffix):
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    same(image_files.read(tmp_path / f"a.{suffix}"), pixels)


@given(pictures(("u1",), (3,)), st.sampled_from(("png", "tif", "bmp", "webp")))
def test_colour_files_of_pillow(tmp_path, pixels, suffix):
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    same(image_files.read(tmp_path / f"a.{suffix}"), pixels)


@given(pictures(("u2",), (1,)))
def test_grey_png_files_of_sixteen_bits(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    same(image_files.read(tmp_path / "a.png"), pixels)


@given(pictures(("u1",), (1, 3)))
def test_an_opaque_alpha_channel_changes_nothing(tmp_path, pixels):
    image = Image.fromarray(pixels)
    image.putalpha(255)
    image.save(tmp_path / "a.png")
    same(image_files.read(tmp_path / "a.png"), pixels)


@given(pictures(("u1",), (3,)), st.integers(2, 256))
def test_a_palette_is_read_as_its_colours(tmp_path, pixels, colours):
    image = Image.fromarray(pixels).quantize(colours)
    image.save(tmp_path / "a.png")
    palette, index = np.reshape(image.getpalette("RGB"), (-1, 3)).astype(np.uint8), np.asarray(image)
    same(image_files.read(tmp_path / "a.png"), palette[index])


@given(
    pictures(("u1", "u2", "f2", "f4", "f8"), (1, 3, 5)),
    st.sampled_from((None, "zlib", "deflate", "packbits")),
    st.sampled_from("<>"),
    st.sampled_from((None, 2)),
)
def test_tiff_files_of_any_type_compression_and_byte_order(tmp_path, pixels, compression, byte_order, rows):
    compression = None if compression == "packbits" and pixels.dtype != np.uint8 else compression
    photometric = "rgb" if pixels.ndim == 3 and pixels.shape[-1] == 3 else "minisblack"
    layout = "contig" if pixels.ndim == 3 else None
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels,
        photometric=photometric,
        planarconfig=layout,
        compression=compression,
        byteorder=byte_order,
        rowsperstrip=rows,
        metadata=None,
    )
    same(image_files.read(tmp_path / "a.tif"), pixels)


@given(
    pictures(("?", "u1", "u2", "f2", "f4", "f8"), (1, 2, 3, 5)),
    st.sampled_from("<>"),
    st.sampled_from("CF"),
    st.booleans(),
)
def test_arrays_of_any_type_byte_order_and_layout(tmp_path, pixels, byte_order, order, channels_first):
    first = channels_first and pixels.ndim == 3 and pixels.shape[-1] < min(pixels.shape[:2])
    stored = np.moveaxis(pixels, -1, 0) if first else pixels
    stored = np.asarray(stored, stored.dtype.newbyteorder(byte_order), order=order)  # pyright: ignore
    np.save(tmp_path / "a.npy", stored)
    same(image_files.read(tmp_path / "a.npy"), pixels)


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=FINITE))
def test_a_written_map_is_read_again_bit_for_bit(tmp_path, values):
    for name in ("a.npy", "a.tif", "a.tiff"):
        image_files.write_map(tmp_path / name, values)
        found = image_files.read(tmp_path / name)
        np.testing.assert_array_equal(found[..., 0].view(np.uint32), values.view(np.uint32), err_msg=name)


@given(pictures(("u1",), (1, 3)))
def test_a_written_png_is_read_again(tmp_path, pixels):
    image_files.write_png(tmp_path / "a.png", pixels)
    same(image_files.read(tmp_path / "a.png"), pixels)


def refused_or(path: Path, good: np.ndarray, content: bytes) -> None:
    """A damaged file is refused in one line, or read as the good one."""
    path.write_bytes(content)
    found = outcome(path)
    if isinstance(found, str):
        assert found.startswith(f"{path}: ")
        assert "\n" not in found
    else:
        np.testing.assert_array_equal(found, good)


def outcome(path: Path) -> np.ndarray | str:
    """The image, or why it is refused."""
    try:
        return image_files.read(path)
    except InputError as error:
        return str(error)


@given(pictures(("u1",), (1, 3)), st.integers(0, 10**6), st.integers(0, 7))
def test_no_flipped_bit_of_a_png_changes_pixels_in_silence(tmp_path, pixels, place, bit):
    image_files.write_png(tmp_path / "a.png", pixels)
    good, content = image_files.read(tmp_path / "a.png"), bytearray((tmp_path / "a.png").read_bytes())
    content[place % len(content)] ^= 1 << bit
    refused_or(tmp_path / "a.png", good, bytes(content))


@given(pictures(("u1",), (3,)), st.floats(0, 1), st.sampled_from(("png", "jpg", "bmp", "webp", "tif", "lzw", "npy")))
def test_a_file_that_was_cut_is_refused_or_read_whole(tmp_path, pixels, share, kind):
    path = tmp_path / {"lzw": "a.tif"}.get(kind, f"a.{kind}")
    if kind == "npy":
        np.save(path, pixels)
    elif kind == "tif":  # one page for each channel
        tifffile.imwrite(path, np.moveaxis(pixels, -1, 0), photometric="minisblack", metadata=None)
    else:
        options = {"compression": "tiff_lzw", "tiffinfo": {278: 1}} if kind == "lzw" else {}
        Image.fromarray(pixels).save(path, **options)
    good, content = image_files.read(path), path.read_bytes()
    refused_or(path, good, content[: int(share * len(content))])


def test_headers_that_claim_more_than_there_is_are_refused(tmp_path):
    image_files.write_png(tmp_path / "a.png", np.zeros((20, 30), np.uint8))
    content = (tmp_path / "a.png").read_bytes()
    for width, height in ((12_000, 60_000), (2**31 - 1, 2**31 - 1), (0, 20)):
        header = b"IHDR" + struct.pack(">2I", width, height) + content[24:29]
        (tmp_path / "a.png").write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
        with pytest.raises(InputError, match=r"a\.png: "):
            image_files.read(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((32, 32), np.uint8), tile=(16, 16), metadata=None)
    content = (tmp_path / "a.tif").read_bytes()
    width = content.index(struct.pack("<HHI", 256, 4, 1))
    (tmp_path / "a.tif").write_bytes(content[: width + 8] + struct.pack("<I", 65_535) + content[width + 12 :])
    with pytest.raises(InputError, match=r"a\.tif: lacks 8,188 of its strips or tiles; copy it again"):
        image_files.read(tmp_path / "a.tif")
