"""Reading NIfTI, MGH and Analyze volumes, and writing NIfTI maps.

Inside jaxvae a volume is [X, Y, Z] in RAS order: x runs to the patient's right, y to the front, z up. Axes are swapped
and flipped for that but never interpolated, so a map returns to the file's order exactly.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from jaxvae import files
from jaxvae.data import masks
from jaxvae.data.missing_files import refuse_unreadable
from jaxvae.data.signatures import mismatch
from jaxvae.data.volumes import gzip_files
from jaxvae.data.volumes.headers import Header, Mended, read_header
from jaxvae.errors import InputError, reason

SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh", ".img", ".img.gz", ".hdr")
LARGEST_SHIFT = 0.1  # voxels between a mask and its scan
SMALL_SHIFT = 0.01  # voxels; smaller shifts come from rounding
ROWS = 16  # rows along the second axis that are reordered at a time
RAS = axcodes2ornt("RAS")


@dataclass(frozen=True)
class Volume:
    """A scan in RAS order."""

    voxels: np.ndarray  # [X, Y, Z] float32, finite
    affine: np.ndarray  # [4, 4], from indices of `voxels` to millimetres
    path: Path
    header: Any  # the NIfTI header for maps of the scan, in the file's order, affine and unit
    stored_affine: np.ndarray  # [4, 4], from indices in the file's order to its unit of length
    warnings: tuple[str, ...] = ()  # repairs and doubts, one line each, without the file's name

    @property
    def spacing(self) -> tuple[float, float, float]:
        """The distance between voxels along x, y and z, in millimetres."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


def is_volume(path: Path) -> bool:
    """Whether a file is a volume by its name; in pairs, the .img is."""
    return path.name.lower().endswith(SUFFIXES) and path.suffix.lower() != ".hdr"


def stem(path: Path) -> str:
    """The file's name without its suffix.

    >>> stem(Path("scans/sub-01_T1w.nii.gz"))
    'sub-01_T1w'
    """
    suffix = max((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), key=len, default=path.suffix)
    return path.name[: len(path.name) - len(suffix)]


def read(path: str | Path) -> Volume:
    """Read a scan.

    Scale factors are applied. Axes of length 1 beyond the third are dropped. Voxels that are NaN or infinite become 0,
    with a warning that counts them. A damaged header is repaired if possible, with a warning.

    Memory is used for the voxels that exist in the file, whatever its header claims.

    Raises:
      InputError: no such file, not a volume, damaged, of another number of axes, in colour or complex, empty, larger
        than `headers.LARGEST`, without a usable affine, or without a finite voxel.
    """
    path = Path(path)
    try:
        _refuse_unreadable(path)
        with np.errstate(all="ignore"):  # Values beyond float32 become infinite, which is reported below.
            header = read_header(path)
        orientation = io_orientation(header.affine)
        voxels = _in_ras(header, orientation)
        # Scans whose maps could not be written are refused here.
        fields = _map_header(header)
    except InputError:
        raise
    except Exception as error:  # nibabel raises many classes, and a damaged file must not stop the others
        raise InputError(f"{path}: {_reason(error, path)}") from error
    warnings = list(header.warnings)
    if not np.isfinite([voxels.min(), voxels.max()]).all():
        bad = ~np.isfinite(voxels)
        if bad.all():
            raise InputError(f"{path}: no voxel is a finite number; export it again")
        voxels[bad] = 0
        warnings.append(f"{np.count_nonzero(bad):,} voxels are NaN or infinite and were read as 0")
    to_millimetres = np.diag([header.millimetres] * 3 + [1.0])
    affine = to_millimetres @ header.affine @ nib.orientations.inv_ornt_aff(orientation, header.shape)
    return Volume(voxels, affine, path, fields, header.affine, tuple(warnings))


def _in_ras(header: Header, orientation: np.ndarray) -> np.ndarray:
    """[X, Y, Z] float32 in RAS order: the scaled voxels of a file."""
    size = header.dtype.itemsize * int(np.prod(header.shape, dtype=np.int64))
    content = gzip_files.bytes_at(header.file, header.offset, size)
    stored = np.ndarray(header.shape, header.dtype, content, order="F")
    shape = np.take(header.shape, np.argsort(orientation[:, 0]))
    voxels = np.empty(shape, np.float32)
    # A view of `voxels` in the file's order. A few rows at a time stay in the CPU's cache and bound the memory.
    view = apply_orientation(voxels, ornt_transform(RAS, orientation))
    scaled = (header.slope, header.intercept) != (1, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        for y in range(0, header.shape[1], ROWS):
            rows = stored[:, y : y + ROWS]
            view[:, y : y + ROWS] = rows * np.float64(header.slope) + np.float64(header.intercept) if scaled else rows
    return voxels


def read_mask(path: str | Path, like: Volume) -> np.ndarray:
    """[X, Y, Z] bool: the positive voxels of a mask, as in `masks.binary`.

    Raises:
      InputError: as `read`, or the mask is on another grid than `like`.
    """
    return mask_and_notices(path, like)[0]


def mask_and_notices(path: str | Path, like: Volume, *, of_brain: bool = False) -> tuple[np.ndarray, list[str]]:
    """The mask of `read_mask`, and doubts about it, one line each.

    Args:
      like: the scan of the mask.
      of_brain: refuse a scan that was given as a brain mask.
    """
    mask = read(path)
    if mask.voxels.shape != like.voxels.shape:
        sizes = ["x".join(map(str, volume.voxels.shape)) for volume in (mask, like)]
        raise InputError(f"{path}: {sizes[0]} voxels, but {like.path} has {sizes[1]}; resample it to that grid")
    apart = _voxels_apart(mask.affine, like.affine, like.voxels.shape)
    if apart > LARGEST_SHIFT:
        differ = np.abs(mask.affine - like.affine)[:3]
        by = f"the origins by {differ[:, 3].max():.3g} mm, the rest by up to {differ[:, :3].max():.3g}"
        found = f"lies elsewhere than {like.path} (their affines differ, {by}: up to {apart:.3g} voxels)"
        raise InputError(f"{path}: {found}; resample it to that grid")
    inside, notice = masks.binary(mask.voxels)
    if of_brain and notice and inside.any() and _is_scan(mask.voxels):
        raise InputError(f"{path}: has many values, as a scan does; name a brain mask")
    notices = [notice] if notice else []
    if apart > SMALL_SHIFT:
        notices.append(f"its voxels are up to {apart:.2g} voxels away from those of its scan; it was used as it is")
    return inside, notices


def _is_scan(values: np.ndarray) -> bool:
    """Whether values spread over their range. An interpolated mask has mostly its lowest and highest value."""
    low, high = min(0.0, float(values.min())), float(values.max())
    share = (values[values > low + 0.1 * (high - low)] - low) / (high - low)
    return bool(np.mean(share > 0.9) < 0.3)


def _voxels_apart(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """The largest distance between equal corners of two grids along any axis, in voxels of the other."""
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*np.subtract(shape, 1), 1]
    return float(np.abs(corners @ (np.linalg.solve(other, one) - np.eye(4)).T).max())


def write(path: str | Path, values: np.ndarray, like: Volume, *, description: str = "jaxvae") -> None:
    """Write a map as float32 NIfTI on the scan's grid, or a mask as uint8.

    Equal maps give equal bytes. The file appears whole or not at all. The scan's header extensions are left out
    because scanners store names and dates in them.

    Args:
      path: ends in .nii.gz or .nii.
      values: [X, Y, Z] in RAS order, finite.
      like: the scan.
      description: up to 79 letters for the header.

    Raises:
      InputError: the file cannot be written.
    """
    path = Path(path)
    back = ornt_transform(RAS, io_orientation(like.stored_affine))
    dtype = np.dtype(np.uint8 if values.dtype == bool else np.float32)
    turned = apply_orientation(values, back)
    header = like.header.copy()
    header.set_data_dtype(dtype)
    header["descrip"] = description.encode()[:79]
    header["cal_min"], header["cal_max"] = min(0.0, float(values.min())), float(values.max())
    offset = header.sizeof_hdr + 4  # Four zero bytes: no extensions follow.
    content = bytearray(offset + turned.size * dtype.itemsize)
    content[: header.sizeof_hdr] = header.binaryblock
    stored = np.ndarray(turned.shape, dtype, content, offset, order="F")
    for y in range(0, turned.shape[1], ROWS):
        stored[:, y : y + ROWS] = turned[:, y : y + ROWS]
    files.write(path, gzip_files.pack(content) if path.suffix == ".gz" else content)


def _map_header(header: Header) -> Any:
    """The NIfTI header for maps of a scan, without the fields that depend on the map."""
    fields = header.fields
    kind: Any = nib.Nifti2Header if isinstance(fields, nib.Nifti2Header) else nib.Nifti1Header
    made = kind.from_header(fields, check=False)
    if made.endianness != {"little": "<", "big": ">"}[sys.byteorder]:
        made = made.as_byteswapped()
    made.extensions.clear()
    made.set_data_dtype(np.float32)
    made.set_data_shape(header.shape)
    made.set_slope_inter(1, 0)
    made.set_intent("none")
    for name in {"aux_file", "db_name"} & set(made.keys()):
        made[name] = b""
    made["magic"], made["vox_offset"] = kind.single_magic, kind.single_vox_offset
    if not np.allclose(header.affine, made.get_best_affine()):
        made.set_sform(header.affine, "aligned")
        made.set_qform(header.affine, "unknown")
    made.check_fix(Mended(), error_level=40)
    return made


def beside(path: Path) -> list[Path]:
    """The other files of a volume: the header of an .img, and SPM's .mat."""
    if path.suffix.lower() != ".img":
        return []
    return [other for suffix in (".hdr", ".HDR", ".mat") if (other := path.with_suffix(suffix)).exists()]


def _refuse_unreadable(path: Path) -> None:
    """Raise InputError if a volume is missing or empty, or another kind of file than its name says."""
    refuse_unreadable(path)
    packed = gzip_files.is_packed(path)
    wrong = mismatch(path, "a gzip file", "a NIfTI file")
    # The voxels of an .img can begin like any other file.
    if wrong and (path.suffix.lower() != ".img" or wrong.is_stand_in):
        raise InputError(f"{path}: {wrong.problem}")
    if packed != path.name.lower().endswith((".gz", ".mgz")):
        found = "is compressed, but its name does not end in .gz" if packed else "is not compressed, despite its name"
        raise InputError(f"{path}: {found}; rename it")
    if path.suffix.lower() == ".img" and not any(part.suffix.lower() == ".hdr" for part in beside(path)):
        raise InputError(f"{path}: its header {path.with_suffix('.hdr').name} is missing; copy it beside the .img")
    for part in beside(path):
        refuse_unreadable(part)


def _reason(error: Exception, path: Path) -> str:
    words = reason(error).removeprefix(f"{path}: ")
    known = (
        (EOFError, "ends too early, like a broken download; copy it again"),
        (gzip_files.DAMAGED, f"its compressed data are damaged ({words}); copy it again"),
        (MemoryError, "there is not enough memory to read it; cut it into parts, or use a larger machine"),
        (ImageFileError | MGHError, "is not a NIfTI, MGH or Analyze volume, despite its name; export it again"),
        (KeyError, f"cannot be read (its code {words} is unknown); export it again"),
        (PermissionError, "cannot be read without permission; change its permissions"),
        (Exception, f"cannot be read ({words}); export it again"),
    )
    return next(message for kinds, message in known if isinstance(error, kinds))
