"""Reading images without loss of depth, and writing maps.

PNG, JPEG, BMP, WebP, TIFF and npy are read.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageOps
import tifffile

from jaxvae.data import masks
from jaxvae.data.images import tiff
from jaxvae.data.missing_files import refuse_unreadable
from jaxvae.data.signatures import kind_of, mismatch
from jaxvae.errors import InputError, reason
from jaxvae.files import replacing

KINDS = {
    **dict.fromkeys((".png", ".jpg", ".jpeg"), ("a PNG file", "a JPEG file")),
    **{".bmp": ("a BMP file",), ".webp": ("a WebP file",), ".npy": ("a NumPy file",)},
    **dict.fromkeys((".tif", ".tiff"), ("a TIFF file",)),
}
SUFFIXES = tuple(KINDS)
FORMATS = "PNG, JPEG, BMP, WebP, TIFF or npy"
MAX_CHANNELS = 16
LARGEST = 1 << 30  # bytes of memory for decoding one image with Pillow
BYTES_PER_PIXEL = {"1": 2, "L": 2, "RGB": 7, "I;16": 8}  # peak memory by Pillow's mode; 12 with transparency


def read(path: str | Path) -> np.ndarray:
    """Read an image, [H, W, C], uint8 or float32.

    uint8 is unchanged; uint16 is divided by 65535; floating point becomes float32 and keeps its range; True becomes
    255. Palettes become RGB, an opaque alpha channel is dropped, a photograph is rotated by its EXIF orientation. In
    arrays of three axes the channels are the shorter of the first and the last axis, or the last if they are equal.

    Raises:
      InputError: the file is missing, empty, damaged, of another format than its name says, transparent, animated, a
        volume or a stack, holds NaN or infinity, or would lose depth (colour PNG of 16 bits).
    """
    path = Path(path)
    return _as_image(_decoded(path), path)


def read_mask(path: str | Path) -> tuple[np.ndarray, str | None]:
    """Read a mask, [H, W, 1] bool, and a notice if its values were thresholded.

    The value of a colour pixel is its largest component. Integers of any size are read. Errors are those of `read`.
    """
    path = Path(path)
    values = _decoded(path)
    if values.dtype.kind not in "buif":
        raise InputError(f"{path}: is a mask of {values.dtype}; save it as uint8")
    if not np.isfinite(values).all():
        raise InputError(f"{path}: is a mask with NaN or infinity; replace them with 0")
    mask, notice = masks.binary(values.max(axis=-1), lossy=_is_lossy(path))
    return mask[..., None], notice


def orientation(path: Path) -> int:
    """The EXIF orientation by which `read` rotates an image, 1 (upright) to 8."""
    if path.suffix.lower() in (".npy", ".tif", ".tiff"):
        return 1
    try:
        with PIL.Image.open(path) as image:
            return int(image.getexif().get(0x0112, 1))
    except Exception:
        return 1  # `read` reports what is wrong with the file.


class Size(NamedTuple):
    """The size of an image by the header of its file."""

    pixels: int  # at most
    samples: int
    itemsize: int  # bytes per sample

    @property
    def bytes_to_read(self) -> int:
        """The approximate peak memory of `read`."""
        return self.samples * (4 if self.itemsize == 1 else 4 + 3 * self.itemsize)

    @property
    def bytes_to_show(self) -> int:
        """The approximate peak memory for an image, a map of its size and an overlay."""
        return self.bytes_to_read + 12 * self.pixels


def size(path: Path) -> Size:
    """The size of an image, 0 for a file that `read` refuses."""
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return Size(array.size, array.size, array.dtype.itemsize)
        if path.suffix.lower() in (".tif", ".tiff"):
            samples, itemsize = tiff.size(path)
            return Size(samples, samples, itemsize)
        with PIL.Image.open(path) as image:
            pixels = math.prod(image.size)
            return Size(pixels, pixels * max(3, len(image.getbands())), 1)
    except Exception:
        return Size(0, 0, 1)


def _decoded(path: Path) -> np.ndarray:
    """[H, W, C] in the file's type."""
    refuse_unreadable(path)
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        raise InputError(f"{path}: cannot read {suffix or 'a file without suffix'}; save it as {FORMATS}")
    decoders: dict[str, Callable[[Path], np.ndarray]] = {".npy": _read_npy, ".tif": _read_tiff, ".tiff": _read_tiff}
    try:
        if wrong := mismatch(path, *KINDS[suffix]):
            raise InputError(f"{path}: {wrong.problem}")
        return decoders.get(suffix, _read_with_pillow)(path)
    except InputError:
        raise
    # Decoders raise struct.error, IndexError, SyntaxError, MemoryError, ... for damaged bytes, without a common class.
    except Exception as error:
        why = reason(error).replace(str(path), "it")
        raise InputError(f"{path}: cannot be read ({why}); it may be damaged, so copy it again") from error


def _is_lossy(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(16)
    kind = kind_of(path)
    return kind is not None and (kind.name == "a JPEG file" or (kind.name == "a WebP file" and head[12:] != b"VP8L"))


def write_map(path: str | Path, values: np.ndarray) -> None:
    """Write a map, [H, W] or [H, W, C], as float32 npy or TIFF by its suffix.

    The file appears whole or not at all, and its folders are made. One channel is written as [H, W].

    Raises:
      InputError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    values = np.asarray(values, np.float32)
    values = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    if path.suffix.lower() not in (".npy", ".tif", ".tiff"):
        raise InputError(f"{path}: {path.suffix!r} cannot hold a float32 map; name it .npy or .tif")
    with replacing(path) as file:
        if path.suffix.lower() == ".npy":
            np.save(file, values)
        else:
            # Without the photometric a map of three channels would be read as a colour image.
            layout = "contig" if values.ndim == 3 else None
            tifffile.imwrite(file, values, photometric="minisblack", planarconfig=layout, metadata=None)


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write a uint8 image, [H, W], [H, W, 1] or RGB [H, W, 3], atomically."""
    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    with replacing(path) as file:
        PIL.Image.fromarray(image).save(file, format="PNG")


def _read_npy(path: Path) -> np.ndarray:
    # Object arrays are pickles, which run code when opened. Mapping fails if the file is shorter than it claims.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return _channels_last(np.array(array), path)


def _read_with_pillow(path: Path) -> np.ndarray:
    formats = {".bmp": ("BMP",), ".webp": ("WEBP",)}
    # Other formats under these suffixes are refused, because Pillow drops bits of some without an error.
    with _opened(path, formats=formats.get(path.suffix.lower(), ("PNG", "JPEG"))) as image:
        if image.format == "PNG" and image.mode != "I;16" and _png_depth(path) == 16:
            raise InputError(f"{path}: is a colour PNG of 16 bits, which Pillow reduces to 8; save it as TIFF or npy")
        # A JPEG with several pictures holds the photograph and thumbnails.
        if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
            raise InputError(f"{path}: is animated, with {getattr(image, 'n_frames', 1)} frames; save the one to use")
        PIL.ImageOps.exif_transpose(image, in_place=True)
        return _pillow_array(image, path)


@contextmanager
def _opened(path: Path, formats: tuple[str, ...]) -> Iterator[PIL.Image.Image]:
    try:
        with PIL.Image.open(path, formats=formats) as image:
            if math.prod(image.size) * BYTES_PER_PIXEL.get(image.mode, 12) > LARGEST:
                size = "x".join(map(str, image.size))
                raise InputError(f"{path}: has {size} pixels, too many for one image; save it in parts")
            if image.format == "PNG":
                # Raises SyntaxError or OSError if the checksum of a chunk is wrong, which decoding does not check.
                with PIL.Image.open(path, formats=("PNG",)) as chunks:
                    chunks.verify()
            yield image
    except PIL.Image.DecompressionBombError as error:
        raise InputError(f"{path}: is too large for Pillow ({error}); save it as TIFF or npy, or in parts") from error
    except PIL.UnidentifiedImageError:
        if formats == ("WEBP",) and not PIL.features.check("webp"):
            raise InputError(f"{path}: this Pillow cannot read WebP; install a newer one with pip") from None
        raise


def _png_depth(path: Path) -> int:
    # The signature (8 bytes), then the IHDR chunk: length, name, width, height (4 bytes each), bits per sample.
    with path.open("rb") as file:
        return file.read(25)[24]


def _read_tiff(path: Path) -> np.ndarray:
    if found := tiff.read(path):
        samples, has_alpha = found
        image = _channels_last(samples, path)
        return _without_alpha(image, path) if has_alpha else image
    # JPEG compression and YCbCr colours, of 8 bits.
    with _opened(path, formats=("TIFF",)) as image:
        if getattr(image, "n_frames", 1) > 1 or image.mode not in ("L", "RGB", "RGBA", "LA", "CMYK", "LAB"):
            raise InputError(f"{path}: is a JPEG-compressed TIFF of several pages or over 8 bits; save it with deflate")
        return _pillow_array(image, path)


def _pillow_array(image: PIL.Image.Image, path: Path) -> np.ndarray:
    if image.has_transparency_data:
        _without_alpha(np.asarray(image.convert("RGBA")), path)
    if image.mode in ("P", "PA", "RGBA"):
        image = image.convert("RGB")
    elif image.mode == "LA":
        image = image.convert("L")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        raise InputError(f"{path}: has {image.mode} colours; save it as RGB or grey")
    array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def _without_alpha(image: np.ndarray, path: Path) -> np.ndarray:
    opaque = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
    if (image[..., -1] != opaque).any():
        raise InputError(f"{path}: is partly transparent; save it without alpha channel")
    return image[..., :-1]


def _channels_last(array: np.ndarray, path: Path) -> np.ndarray:
    if array.ndim not in (2, 3) or array.size == 0:
        raise InputError(f"{path}: has the shape {array.shape}; save it as [H, W], [H, W, C] or [C, H, W]")
    if array.ndim == 2:
        return array[..., None]
    image = np.moveaxis(array, 0, -1) if array.shape[0] < array.shape[-1] else array
    if image.shape[-1] > MAX_CHANNELS:
        found = f"has the shape {array.shape} of a volume (images have up to {MAX_CHANNELS} channels)"
        raise InputError(f"{path}: {found}; save its slices one by one, or as NIfTI")
    return image


def _as_image(array: np.ndarray, path: Path) -> np.ndarray:
    """[H, W, C] of any type as uint8 or float32."""
    image = np.ascontiguousarray(array)
    if image.dtype == bool:
        return image.astype(np.uint8) * 255
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:
        return np.divide(image, np.float32(65535))
    if image.dtype.kind != "f":
        raise InputError(f"{path}: holds {image.dtype}, whose range is unknown; save it as uint8, uint16 or float32")
    with np.errstate(over="ignore"):
        image = image.astype(np.float32)
    if count := image.size - np.count_nonzero(np.isfinite(image)):
        raise InputError(f"{path}: {count} of its values are NaN or infinite in float32; replace them first")
    return image
