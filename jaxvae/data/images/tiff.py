"""Reading TIFF files without loss.

All lossless compressions give equal pixels, with or without imagecodecs. tifffile reads the structure of a file. Its
strips or tiles are unpacked one at a time by zlib, lzma, or libtiff, which Pillow contains. So every depth and every
number of channels is kept.
"""

import io
import lzma
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import tifffile

from jaxvae.errors import InputError

LARGEST = 1 << 30  # bytes per image
# The compressions by their TIFF numbers.
CCITT, LZW, JPEG, DEFLATE, PACKBITS, LZMA, ZSTD = (2, 3, 4), 5, (6, 7), (8, 32946), 32773, 34925, 50000
LIBTIFF = (*CCITT, LZW, PACKBITS, ZSTD)
UNPACKED = (1, *DEFLATE, LZMA, *LIBTIFF)
IMAGE_AXES = set("YXSCQI")  # Q and I are pages without a description


def read(path: Path) -> tuple[np.ndarray, bool] | None:
    """The samples of a file with 0 as black, and whether the last channel is alpha.

    Samples are [H, W], [H, W, C] or [C, H, W], bool, integers or floating point; None if only Pillow can decode them
    (JPEG, YCbCr).

    Samples of 1 bit are not inverted, because masks written from bool often have an arbitrary photometric. Unsigned
    samples of 2 to 7 bits are scaled to uint8, of 9 to 15 bits to uint16. Palettes become RGB.

    Raises:
      InputError: a stack of planes or times, several images, stored rotated, too large, or an unknown compression.
    """
    # The other files of an OME data set are separate images.
    with tifffile.TiffFile(path, _multifile=False) as file:
        _refuse_cut(file, path)
        series = _checked(file, path)
        page = series.keyframe.aspage()
        photometric = tifffile.PHOTOMETRIC
        known = (photometric.MINISBLACK, photometric.MINISWHITE, photometric.RGB, photometric.PALETTE)
        if page.photometric not in known or page.compression in JPEG:
            return None
        # The other axes have length 1.
        shape = [size for axis, size in zip(series.axes, series.shape, strict=True) if axis in IMAGE_AXES]
        values = _values(series, page, path).reshape(shape)
        alphas = {tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA}
        if page.photometric == photometric.PALETTE:
            return _coloured(values, page, path), False
        values = _scaled(values, page.bitspersample)
        if page.photometric == photometric.MINISWHITE and page.bitspersample > 1:
            if values.dtype.kind != "u":
                raise InputError(f"{path}: is a TIFF of {values.dtype} with 0 as white; save it with 0 as black")
            values = np.iinfo(values.dtype).max - values
        return values, bool(alphas & {*page.extrasamples})


def size(path: Path) -> tuple[int, int]:
    """(samples, bytes per sample) of the first image in a file, by its header."""
    with tifffile.TiffFile(path, _multifile=False) as file:
        series = file.series[0]
        return math.prod(series.shape), series.dtype.itemsize


def _refuse_cut(file: tifffile.TiffFile, path: Path) -> None:
    """Raise InputError if the last page refers to a further one that is missing, which tifffile ignores."""
    handle, form = file.filehandle, file.tiff
    handle.seek(file.pages[-1].offset)
    (count,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
    handle.seek(count * form.tagsize, io.SEEK_CUR)
    if any(handle.read(form.offsetsize)):
        raise InputError(f"{path}: lacks pages after its first {len(file.pages)}; copy it again")


def _checked(file, path: Path) -> tifffile.TiffPageSeries:
    """The series of a file. Raises InputError unless it is one image that can be read."""
    if len(file.series) != 1:
        found = f"holds {len(file.series)} images of different kinds" if file.series else "holds no image"
        raise InputError(f"{path}: {found}; save the one to use in its own file")
    series = file.series[0]
    page = series.keyframe.aspage()
    axes = "".join(axis for axis, size in zip(series.axes, series.shape, strict=True) if size > 1)
    size = "x".join(map(str, series.shape))
    if not {*axes} <= IMAGE_AXES:
        stack = f"{size} ({series.axes}: Z are planes, T times)"
        raise InputError(f"{path}: is a stack of {stack}; save each plane in its own file")
    orientation = page.tags.get("Orientation")
    if orientation is not None and orientation.value != 1:
        raise InputError(f"{path}: is stored rotated (orientation {orientation.value}); save it upright")
    if page.dtype is None or page.bitspersample == 24:
        raise InputError(f"{path}: has samples of {page.bitspersample} bits; save it as uint8 or float32")
    if page.predictor == 3 and page.parent.byteorder == ">":
        # libtiff swaps the bytes before it computes differences; tifffile follows the specification.
        problem = "is a big-endian TIFF with a floating-point predictor, which programs write in two ways"
        raise InputError(f"{path}: {problem}; save it without predictor")
    if math.prod(series.shape) * page.dtype.itemsize > LARGEST or page.imagedepth > 1:
        raise InputError(f"{path}: claims {size} samples of {page.dtype}, too many for one image; save it in parts")
    return series


def _values(series: tifffile.TiffPageSeries, page: tifffile.TiffPage, path: Path) -> np.ndarray:
    """The samples of all pages, as stored."""
    simple = page.bitspersample in (8, 16, 32, 64) and page.predictor == 1 and page.fillorder == 1
    if page.compression in UNPACKED and not (page.compression == 1 and simple):
        return np.stack([_page(one.aspage(), path) for one in series.pages if one]).reshape(series.shape)
    for one in filter(None, series.pages):
        _segments(one.aspage(), path)
    try:
        return series.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        name = tifffile.COMPRESSION(page.compression).name
        way_out = "`pip install imagecodecs`, or save it with deflate or LZW"
        raise InputError(f"{path}: has {name} compression; {way_out}") from error


def _segments(page: tifffile.TiffPage, path: Path) -> tuple[int, int, int, int]:
    """(rows and columns of a strip or tile, the number down and across). Raises InputError if some are missing."""
    planes, _, height, width, _ = page.shaped
    tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, height), width)
    down, across = -(-height // tall), -(-width // wide)
    if lacking := max(0, planes * down * across - len(page.dataoffsets)):
        raise InputError(f"{path}: lacks {lacking:,} of its strips or tiles; copy it again")
    return tall, wide, down, across


def _page(page: tifffile.TiffPage, path: Path) -> np.ndarray:
    """The samples of one page, [samples, H, W, samples per pixel] as stored."""
    planes, _, height, width, samples = page.shaped
    tall, wide, down, across = _segments(page, path)
    dtype = np.dtype(page.dtype)
    out = np.zeros((planes, height, width, samples), dtype)
    file = page.parent.filehandle
    for i in range(planes * down * across):
        plane, top, left = i // (down * across), i // across % down * tall, i % across * wide
        rows = tall if page.is_tiled else min(tall, height - top)
        file.seek(page.dataoffsets[i])
        data = file.read(page.databytecounts[i])
        if len(data) < page.databytecounts[i]:
            raise InputError(f"{path}: ends too early, like a broken download; copy it again")
        if not data:
            raise InputError(f"{path}: its strip {i} has no data; copy it again")
        part = _segment(data, page, (rows, wide, samples), dtype)
        out[plane, top : top + rows, left : left + wide] = part[: height - top, : width - left]
    return out


def _segment(data: bytes, page: tifffile.TiffPage, shape: tuple[int, int, int], dtype: np.dtype) -> np.ndarray:
    """One strip or tile, unpacked: [rows, columns, samples]."""
    rows, columns, samples = shape
    bits = page.bitspersample
    length = -(-columns * samples * bits // 8)  # bytes per row
    if page.compression in CCITT:
        packed = _by_libtiff(data, page, (rows, columns), bits=1)
        raw = np.packbits(packed, axis=-1)
    elif page.compression in LIBTIFF:
        raw = _by_libtiff(data, page, (1, rows * length), bits=8)
    else:
        if page.fillorder != 1:  # The bits of each byte are in reverse order.
            data = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")).tobytes()
        raw = np.frombuffer(_inflated(data, page.compression, rows * length), np.uint8)
    raw = raw.reshape(-1)[: rows * length].reshape(rows, length)
    if bits % 8:
        digits = np.unpackbits(raw, axis=1)[:, : columns * samples * bits].reshape(rows, columns, samples, bits)
        values = digits.astype(np.uint16) @ (1 << np.arange(bits, dtype=np.uint16)[::-1])
        return values.astype(dtype)
    if page.predictor == 3:  # A row stores differences of bytes, the most significant bytes first.
        planes = _summed(raw.reshape(rows, length // samples, samples), np.dtype(np.uint8)).reshape(rows, -1)
        whole = planes.reshape(rows, dtype.itemsize, columns * samples).swapaxes(1, 2)
        return np.ascontiguousarray(whole).view(dtype.newbyteorder(">")).reshape(shape).astype(dtype)
    values = raw.view(dtype.newbyteorder(page.parent.byteorder)).astype(dtype).reshape(shape)
    return _summed(values, np.dtype(f"u{dtype.itemsize}")).view(dtype) if page.predictor == 2 else values


def _summed(values: np.ndarray, unsigned: np.dtype) -> np.ndarray:
    """Cumulative sums along the columns, with overflow to 0."""
    return np.cumsum(values.view(unsigned), axis=1, dtype=unsigned)


def _inflated(data: bytes, compression: int, size: int) -> bytes:
    """The first `size` bytes of the unpacked data; a bomb is not unpacked further."""
    if compression == 1:
        return data[:size]
    if compression == LZMA:
        return lzma.LZMADecompressor().decompress(data, max_length=size)
    return zlib.decompressobj().decompress(data, size)


def _by_libtiff(data: bytes, page: tifffile.TiffPage, shape: tuple[int, int], *, bits: int) -> np.ndarray:
    """[H, W]: a strip unpacked by libtiff, which gets it as a grey TIFF with one strip."""
    options = page.tags.valueof(292, 0) if page.compression == 3 else 0
    values = {256: shape[1], 257: shape[0], 258: bits, 259: page.compression, 262: 1, 266: page.fillorder, 273: 0}
    values |= {277: 1, 278: shape[0], 279: len(data), 292: options}
    values[273] = 8 + 2 + 12 * len(values) + 4  # the start of the data: after the header and these tags
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    head = struct.pack("<2sHIH", b"II", 42, 8, len(values)) + tags + bytes(4)
    try:
        with PIL.Image.open(io.BytesIO(head + data), formats=("TIFF",)) as image:
            return np.asarray(image)
    except PIL.Image.DecompressionBombError as error:
        name = page.parent.filehandle.path
        raise InputError(f"{name}: has a strip that is too large ({error}); save it in smaller strips") from error


def _coloured(values: np.ndarray, page: tifffile.TiffPage, path: Path) -> np.ndarray:
    """[H, W, 3] uint8: the colours of palette indices."""
    colours = page.colormap
    if colours is None or values.ndim != 2 or colours.shape[1] <= int(values.max()):
        raise InputError(f"{path}: its palette lacks colours of some pixels; save it as RGB")
    # Palette colours have 16 bits, but some programs write 8.
    shift = 8 if colours.max() > 255 else 0
    return np.moveaxis(colours[:, values] >> shift, 0, -1).astype(np.uint8)


def _scaled(values: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned samples of an unusual depth, scaled to the range of their type."""
    if bits == 1:
        return values.astype(bool)
    if values.dtype.kind != "u" or bits == 8 * values.dtype.itemsize:
        return values
    top = np.iinfo(values.dtype).max
    return np.rint(values * np.float32(top / (2**bits - 1))).astype(values.dtype)
