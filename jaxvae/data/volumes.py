"""Volumes of scans as files: NIfTI-1 and -2, MGH and Analyze in, compressed or not; maps out on the scan's own grid.

Inside jaxvae a volume is [X, Y, Z] in RAS order: x runs to the patient's right, y to the front, z up. Axes are only
swapped and turned for that, nothing is interpolated, so that a map goes back to the file's order exactly.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.orientations import OrientationError, apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError

from jaxvae import files
from jaxvae.errors import InputError

SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh", ".img", ".img.gz", ".hdr")
LARGEST = 1 << 30  # voxels; 4 GiB as float32, 120 times the largest clinical scans
RAS = axcodes2ornt("RAS")

# All that nibabel is known to raise for a file that is not what it seems.
_DAMAGED = (
    ImageFileError,
    HeaderDataError,
    MGHError,
    OrientationError,
    EOFError,
    OSError,
    zlib.error,
    OverflowError,
    MemoryError,
    np.linalg.LinAlgError,
    KeyError,
    ValueError,
    TypeError,
)


@dataclass(frozen=True)
class Volume:
    """A scan in RAS order, and what its file says.

    Args:
      voxels: [X, Y, Z] float32, finite.
      affine: [4, 4], from indices of `voxels` to millimetres.
      path: the file.
      header: the file's own, with its affine `stored_affine` and its axes as they are stored.
      warnings: what a reader of the results should know; one line each, without the file's name.
    """

    voxels: np.ndarray
    affine: np.ndarray
    path: Path
    header: Any
    stored_affine: np.ndarray
    warnings: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """The distance between voxels along x, y and z, in millimetres."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


def is_volume(path: Path) -> bool:
    """Whether the name is that of a volume; of the pair .hdr and .img only the latter counts."""
    return path.name.lower().endswith(SUFFIXES) and path.suffix.lower() != ".hdr"


def stem(path: Path) -> str:
    """The name without its suffix.

    >>> stem(Path("scans/sub-01_T1w.nii.gz"))
    'sub-01_T1w'
    """
    suffix = max((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), key=len, default=path.suffix)
    return path.name[: len(path.name) - len(suffix)]


def read(path: str | Path) -> Volume:
    """A scan from its file.

    Scale factors are applied. Axes of length 1 beyond the third are dropped. Voxels that are NaN or infinite are read
    as 0, with a warning that counts them; so is an orientation that the file leaves open.

    Raises:
      InputError: no such file, not a volume, damaged, of another number of axes, in colour or complex, empty, larger
        than `LARGEST`, without a usable affine, or without a single finite voxel.
    """
    path = Path(path)
    try:
        image = _opened(path)
        shape, affine = _checked(image, path)
        with np.errstate(over="ignore"):  # What is too large becomes infinite, which is said below.
            stored = np.asanyarray(image.dataobj).reshape(shape).astype(np.float32)
        orientation = io_orientation(affine)
        voxels = np.ascontiguousarray(apply_orientation(stored, orientation))
        _nifti_header(image.header)  # what no map could be written for is refused here
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(f"{path}: {_reason(error, path)}") from error
    doubt = _doubt(image.header, affine)
    warnings = [doubt] if doubt else []
    if not np.isfinite([voxels.min(), voxels.max()]).all():
        bad = ~np.isfinite(voxels)
        if bad.all():
            raise InputError(f"{path}: no voxel is a finite number; export it again")
        voxels[bad] = 0
        warnings.append(f"{np.count_nonzero(bad):,} voxels are NaN or infinite and were read as 0")
    turned = affine @ nib.orientations.inv_ornt_aff(orientation, shape)
    return Volume(voxels, turned, path, image.header, affine, tuple(warnings))


def _doubt(header: Any, affine: np.ndarray) -> str | None:
    """What leaves open how a file lies in space."""
    if isinstance(header, nib.MGHImage.header_class):
        return None  # nibabel sets the flag that would tell.
    if not isinstance(header, nib.Nifti1Header):
        # SPM says it in a file beside the Analyze header, if at all.
        guessed = np.allclose(affine, header.get_best_affine())
        return "an Analyze header does not say which side is left, so that is a guess" if guessed else None
    if not (header["sform_code"] or header["qform_code"]):
        return "neither sform nor qform is set, so left and right are a guess"
    if header["sform_code"] and header["qform_code"]:
        # The first of the pixdim is the handedness of the qform.
        if (np.linalg.det(affine[:3, :3]) < 0) != (header["pixdim"][0] < 0):
            return "its sform and qform are mirror images of each other; the sform was taken"
        if (io_orientation(affine) != io_orientation(header.get_qform())).any():
            return "its sform and qform are turned against each other; the sform was taken"
    return None


def read_mask(path: str | Path, like: Volume) -> np.ndarray:
    """[X, Y, Z] bool: where a mask or a map of labels is above 0.5, which also reads a 1 stored as 0.99999997.

    Raises:
      InputError: as `read`, or the mask lies on another grid than `like`.
    """
    mask = read(path)
    if mask.voxels.shape != like.voxels.shape:
        sizes = ["x".join(map(str, volume.voxels.shape)) for volume in (mask, like)]
        raise InputError(f"{path}: {sizes[0]} voxels, but {like.path} has {sizes[1]}; resample it to that grid")
    if not np.allclose(mask.affine, like.affine, atol=1e-3):
        apart = np.abs(mask.affine - like.affine)[:3]
        by = f"the origins by {apart[:, 3].max():.3g} mm, the rest by up to {apart[:, :3].max():.3g}"
        raise InputError(
            f"{path}: lies elsewhere than {like.path} (their affines differ, {by}); resample it to that grid"
        )
    return mask.voxels > 0.5


def write(path: str | Path, values: np.ndarray, like: Volume, *, description: str = "jaxvae") -> None:
    """A map, [X, Y, Z] in RAS order, as a float32 NIfTI file in the order, the affine and the units of the scan.

    A mask, bool, becomes uint8. Equal maps make equal bytes. The file appears whole or not at all. It holds none of the
    scan's header extensions, in which scanners leave names and dates.

    Args:
      path: ends in .nii.gz or .nii.
      values: finite.
      like: the scan.
      description: up to 79 letters for the header.
    Raises:
      InputError: the file cannot be written.
    """
    path = Path(path)
    content = nifti(values, like, description=description)
    # Level 1: noise-like maps do not shrink further at any other, which would only take longer.
    files.write(path, gzip.compress(content, 1, mtime=0) if path.suffix == ".gz" else content)


def nifti(values: np.ndarray, like: Volume, *, description: str = "jaxvae") -> bytes:
    """The bytes of the file that `write` makes, before compression."""
    back = ornt_transform(RAS, io_orientation(like.stored_affine))
    dtype = np.uint8 if values.dtype == bool else np.float32
    stored = np.asarray(apply_orientation(values, back), dtype)
    kind, header = _nifti_header(like.header)
    if header.endianness != {"little": "<", "big": ">"}[sys.byteorder]:
        header = header.as_byteswapped()
    header.extensions.clear()
    header.set_data_dtype(dtype)
    header.set_slope_inter(1, 0)
    header.set_intent("none")
    header["descrip"] = description.encode()[:79]
    for name in {"aux_file", "db_name"} & set(header.keys()):
        header[name] = b""
    header["cal_min"], header["cal_max"] = min(0.0, float(stored.min())), float(stored.max())
    return kind(stored, like.stored_affine, header).to_bytes()


def _nifti_header(header: Any) -> tuple[Any, Any]:
    """(the kind of image, a header of its own) in which a map of a scan with this header is written."""
    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    return kind, kind.header_class.from_header(header)


def beside(path: Path) -> list[Path]:
    """The other files that a volume is read from: of an .img its header, and SPM's .mat where there is one."""
    if path.suffix.lower() != ".img":
        return []
    return [other for suffix in (".hdr", ".HDR", ".mat") if (other := path.with_suffix(suffix)).exists()]


def _opened(path: Path) -> Any:
    """The image with its header read; compressed NIfTI and MGH are unpacked whole, so that damage anywhere shows."""
    if path.is_dir() or not path.exists():
        raise InputError(f"{path}: {'is a folder; name a file' if path.is_dir() else 'no such file'}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty; copy it again")
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    named_packed = path.name.lower().endswith((".gz", ".mgz"))
    if packed != named_packed:
        found = "compressed, but its name does not end in .gz" if packed else "not compressed, though its name says so"
        raise InputError(f"{path}: {found}; rename it")
    if path.suffix.lower() == ".img" and not any(part.suffix.lower() == ".hdr" for part in beside(path)):
        raise InputError(f"{path}: its header {path.with_suffix('.hdr').name} is missing; put it beside it")
    image: Any = nib.load(path)  # of a compressed file only the header is unpacked here
    _checked(image, path)
    if not packed or not isinstance(image, nib.Nifti1Image | nib.MGHImage) or image.file_map.keys() != {"image"}:
        return image
    return type(image).from_bytes(gzip.decompress(path.read_bytes()))


def _checked(image: Any, path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """(the shape as three axes, the affine), or InputError."""
    dtype, shape, affine = image.get_data_dtype(), image.shape, image.affine
    if dtype.fields or dtype.kind not in "iuf":
        kind = "complex" if dtype.kind == "c" else "in colour" if dtype.fields else f"of type {dtype}"
        raise InputError(f"{path}: its voxels are {kind}; one real number a voxel is needed")
    size = "x".join(map(str, shape))
    if len(shape) < 3 or any(length > 1 for length in shape[3:]):
        way_out = "extract one volume of it" if len(shape) > 3 else "a volume has three axes"
        raise InputError(f"{path}: has {size} voxels; {way_out}")
    if min(shape) < 1:
        raise InputError(f"{path}: has {size} voxels, that is none; export it again")
    if np.prod(shape, dtype=np.float64) > LARGEST:
        raise InputError(f"{path}: has {size} voxels, more than the {LARGEST:,} that are read; cut it into parts")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) <= 1e-6 * spacing.prod():
        raise InputError(f"{path}: its affine has no inverse, so no axis has a direction; set it, as with fslorient")
    if spacing.max() > 100 * spacing.min():
        sides = "x".join(f"{side:.3g}" for side in spacing)
        raise InputError(f"{path}: its voxels would have {sides} mm; correct its header")
    return shape[:3], affine


def _reason(error: Exception, path: Path) -> str:
    words = " ".join(str(error).split())
    if isinstance(error, EOFError) or "Expected" in words:
        return "ends too early, as a broken download does; copy it again"
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return f"its compressed data are damaged ({words}); copy it again"
    if isinstance(error, MemoryError | OverflowError):
        return "its header asks for a size that no scan has; export it again"
    if isinstance(error, ImageFileError | MGHError):
        return "not a NIfTI, MGH or Analyze volume, whatever its name says; export it again"
    if isinstance(error, PermissionError):
        return "may not be read; change its permissions"
    return f"cannot be read ({words.removeprefix(f'{path}: ') or type(error).__name__}); export it again"
