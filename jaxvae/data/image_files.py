"""One image file, one array: PNG, JPEG, TIFF and npy, with every bit they hold or a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxvae.errors import InputError
from jaxvae.files import replacing

if TYPE_CHECKING:
    from PIL.Image import Image
    from tifffile import TiffFile

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
MAX_CHANNELS = 16


def read(path: str | Path) -> np.ndarray:
    """The image in a file, [H, W, C], uint8 or float32.

    uint8 stays as it is; uint16 is divided by 65535; floating point becomes float32 and keeps its range; True becomes
    255. Palettes become RGB, an opaque alpha channel is dropped, a photograph is turned as its EXIF orientation says.
    Of three axes, the shorter of the first and the last holds the channels, the last where they are equal.

    Raises:
      InputError: the file is missing, empty, damaged, of another type, transparent, holds NaN or infinity, is a volume,
        or would lose depth on the way (colour PNG of 16 bits).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes); copy it anew or remove it")
    decoders = {".npy": _read_npy, ".tif": _read_tiff, ".tiff": _read_tiff}
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: cannot read {suffix or 'a file without suffix'}; save it as PNG, JPEG, TIFF or npy")
    try:
        array = decoders.get(suffix, _read_png_or_jpeg)(path)
    except InputError:
        raise
    # Decoders answer damaged bytes with struct.error, IndexError, SyntaxError, MemoryError, ... and no common class.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read, damaged or cut short? ({reason})") from error
    return _as_image(array, path)


def write_map(path: str | Path, values: np.ndarray) -> None:
    """Write a map, [H, W] or [H, W, C], as float32: npy or TIFF, by the suffix of `path`.

    The file appears whole or not at all; folders on the way to it are made. One channel is written as [H, W].

    Raises:
      InputError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    values = np.asarray(values, np.float32)
    values = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    if path.suffix.lower() not in (".npy", ".tif", ".tiff"):
        raise InputError(f"{path}: a float32 map cannot be kept as {path.suffix!r}; name it .npy or .tif")
    with replacing(path) as file:
        if path.suffix.lower() == ".npy":
            np.save(file, values)
        else:
            import tifffile

            # Without the photometric a map of three channels would pass for a colour image.
            layout = "contig" if values.ndim == 3 else None
            tifffile.imwrite(file, values, photometric="minisblack", planarconfig=layout, metadata=None)


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write a uint8 image, [H, W], [H, W, 1] or RGB [H, W, 3]; the file appears whole or not at all.

    Raises:
      InputError: the file cannot be written.
    """
    from PIL import Image

    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    with replacing(path) as file:
        Image.fromarray(image).save(file, format="PNG")


def _read_npy(path: Path) -> np.ndarray:
    # Object arrays are pickles, which run code when they are opened.
    return _channels_last(np.load(path, allow_pickle=False), path)


def _read_png_or_jpeg(path: Path) -> np.ndarray:
    from PIL import ImageOps

    # Other formats under these suffixes are kept out: of some, Pillow drops bits and does not say so.
    with _opened(path, formats=("PNG", "JPEG")) as image:
        if image.format == "PNG" and image.mode != "I;16" and _png_depth(path) == 16:
            raise InputError(f"{path}: a colour PNG of 16 bits, which Pillow would cut to 8; save it as TIFF or npy")
        return _pillow_array(ImageOps.exif_transpose(image), path)


@contextmanager
def _opened(path: Path, formats: tuple[str, ...]) -> Iterator[Image]:
    import PIL.Image

    try:
        with PIL.Image.open(path, formats=formats) as image:
            yield image
    except PIL.Image.DecompressionBombError as error:
        raise InputError(f"{path}: is too large for Pillow ({error}); save it as TIFF or npy, or in parts") from error


def _png_depth(path: Path) -> int:
    # The signature (8 bytes), then the IHDR chunk: length, name, width, height (4 bytes each), bits a sample.
    with path.open("rb") as file:
        return file.read(25)[24]


def _read_tiff(path: Path) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(path) as file:
        if len(file.series) > 1:
            raise InputError(f"{path}: holds {len(file.series)} images of different kinds; save the one to use alone")
        page = file.pages.first
        photometric, alphas = tifffile.PHOTOMETRIC, {tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA}
        orientation = page.tags.get("Orientation")
        if orientation is not None and orientation.value != 1:
            raise InputError(f"{path}: a TIFF that is stored turned (orientation {orientation.value}); save it upright")
        if page.photometric not in (photometric.MINISBLACK, photometric.MINISWHITE, photometric.RGB):
            return _read_tiff_with_pillow(path, file)
        try:
            image = _channels_last(file.asarray(), path)
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            return _read_tiff_with_pillow(path, file)
        # Of one bit, true stays true: so masks are written in Python, with a photometric that nobody asked for.
        if page.photometric == photometric.MINISWHITE and image.dtype != bool:
            if not np.issubdtype(image.dtype, np.unsignedinteger):
                raise InputError(f"{path}: a TIFF of {image.dtype} in which 0 is white; save it with 0 as black")
            image = np.iinfo(image.dtype).max - image
        return _without_alpha(image, path) if alphas & {*page.extrasamples} else image


def _read_tiff_with_pillow(path: Path, file: TiffFile) -> np.ndarray:
    """Palettes, and what tifffile decodes only with the large package imagecodecs (LZW, JPEG)."""
    from tifffile import COMPRESSION

    page = file.pages.first
    with _opened(path, formats=("TIFF",)) as image:
        array = _pillow_array(image, path)
    if array.dtype.newbyteorder("=") != page.dtype or len(file.pages) > 1:
        kind = f"{page.dtype} with {COMPRESSION(page.compression).name} compression"
        raise InputError(f"{path}: a TIFF of {kind}; `pip install imagecodecs`, or save it uncompressed")
    return array


def _pillow_array(image: Image, path: Path) -> np.ndarray:
    if image.has_transparency_data:
        _without_alpha(np.asarray(image.convert("RGBA")), path)
    if image.mode in ("P", "PA", "RGBA"):
        image = image.convert("RGB")
    elif image.mode == "LA":
        image = image.convert("L")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        raise InputError(f"{path}: its colours are {image.mode}; save it as RGB or grey")
    array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def _without_alpha(image: np.ndarray, path: Path) -> np.ndarray:
    opaque = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
    if (image[..., -1] != opaque).any():
        raise InputError(f"{path}: is partly transparent, what lies beneath is unknown; save it without alpha channel")
    return image[..., :-1]


def _channels_last(array: np.ndarray, path: Path) -> np.ndarray:
    if array.ndim not in (2, 3) or array.size == 0:
        raise InputError(f"{path}: an array of shape {array.shape} is no image; [H, W], [H, W, C] or [C, H, W] is")
    if array.ndim == 2:
        return array[..., None]
    image = np.moveaxis(array, 0, -1) if array.shape[0] < array.shape[-1] else array
    if image.shape[-1] > MAX_CHANNELS:
        raise InputError(
            f"{path}: an array of shape {array.shape} looks like a volume, no image of up to {MAX_CHANNELS} channels; "
            "save its slices one by one, or as NIfTI"
        )
    return image


def _as_image(array: np.ndarray, path: Path) -> np.ndarray:
    """[H, W, C] of any type as uint8 or float32."""
    image = np.ascontiguousarray(array)
    if image.dtype == bool:
        return image.astype(np.uint8) * 255
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:
        return image.astype(np.float32) / 65535
    if image.dtype.kind != "f":
        raise InputError(f"{path}: {image.dtype} has no range to map to 0..1; save it as uint8, uint16 or float32")
    with np.errstate(over="ignore"):
        image = image.astype(np.float32)
    if not np.isfinite(image).all():
        count = int((~np.isfinite(image)).sum())
        raise InputError(f"{path}: {count} of its values are NaN or infinite in float32; replace them first")
    return image
