"""Volumes of scans as files: NIfTI-1 and -2, MGH and Analyze in, compressed or not; maps out on the scan's own grid.

Inside jaxvae a volume is [X, Y, Z] in RAS order: x runs to the patient's right, y to the front, z up. Axes are only
swapped and turned for that, nothing is interpolated, so that a map goes back to the file's order exactly.
"""

from __future__ import annotations

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
from jaxvae.data.signatures import contradiction
from jaxvae.data.volumes import gzip_files
from jaxvae.data.volumes.headers import Header, Mended, read_header
from jaxvae.errors import InputError

SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh", ".img", ".img.gz", ".hdr")
LARGEST_SHIFT = 0.1  # voxels between a mask and its scan
SMALL_SHIFT = 0.01  # voxels; less comes from rounding
ROWS = 16  # along the second axis, that are turned at a time
RAS = axcodes2ornt("RAS")


@dataclass(frozen=True)
class Volume:
    """A scan in RAS order, and what its file says.

    Args:
      voxels: [X, Y, Z] float32, finite.
      affine: [4, 4], from indices of `voxels` to millimetres.
      path: the file.
      header: the NIfTI header of maps of the scan, in the file's own order, affine and unit.
      stored_affine: [4, 4], from indices in the file's order to its unit of length.
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
    as 0, with a warning that counts them. A damaged header is mended where that is possible, with a warning.

    Memory is taken for the voxels that are in the file, whatever its header claims.

    Raises:
      InputError: no such file, not a volume, damaged, of another number of axes, in colour or complex, empty, larger
        than `volume_headers.LARGEST`, without a usable affine, or without a single finite voxel.
    """
    path = Path(path)
    try:
        _refuse_unreadable(path)
        with np.errstate(all="ignore"):  # What is too large becomes infinite, which is said.
            header = read_header(path)
        orientation = io_orientation(header.affine)
        voxels = _in_ras(header, orientation)
        # What no map could be written for is refused here.
        fields = _map_header(header)
    except InputError:
        raise
    except Exception as error:  # nibabel raises many kinds, and a damaged file must not stop the others
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
    # A view of `voxels` in the file's order. Some rows at a time stay in the CPU's cache, and bound what scaling takes.
    view = apply_orientation(voxels, ornt_transform(RAS, orientation))
    scaled = (header.slope, header.intercept) != (1, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        for y in range(0, header.shape[1], ROWS):
            rows = stored[:, y : y + ROWS]
            view[:, y : y + ROWS] = rows * np.float64(header.slope) + np.float64(header.intercept) if scaled else rows
    return voxels


def read_mask(path: str | Path, like: Volume) -> np.ndarray:
    """[X, Y, Z] bool: where a mask or a map of labels is positive, as `masks.binary` says.

    Raises:
      InputError: as `read`, or the mask is on another grid than `like`.
    """
    return mask_and_notices(path, like)[0]


def mask_and_notices(path: str | Path, like: Volume, *, of_brain: bool = False) -> tuple[np.ndarray, list[str]]:
    """(the mask that `read_mask` returns, what is doubtful about it).

    Args:
      of_brain: refuse a scan that was given as a mask.
    """
    mask = read(path)
    if mask.voxels.shape != like.voxels.shape:
        sizes = ["x".join(map(str, volume.voxels.shape)) for volume in (mask, like)]
        raise InputError(f"{path}: {sizes[0]} voxels, but {like.path} has {sizes[1]}; resample it to that grid")
    apart = _voxels_apart(mask.affine, like.affine, like.voxels.shape)
    if apart > LARGEST_SHIFT:
        differ = np.abs(mask.affine - like.affine)[:3]
        by = f"the origins by {differ[:, 3].max():.3g} mm, the rest by up to {differ[:, :3].max():.3g}"
        raise InputError(
            f"{path}: lies elsewhere than {like.path} (their affines differ, {by}: up to {apart:.3g} voxels); "
            "resample it to that grid"
        )
    inside, notice = masks.binary(mask.voxels)
    if of_brain and notice and inside.any() and _is_scan(mask.voxels):
        raise InputError(f"{path}: has many values, as a scan does, so it is no brain mask; name another file")
    notices = [notice] if notice else []
    if apart > SMALL_SHIFT:
        notices.append(f"its voxels are up to {apart:.2g} voxels away from those of its scan, which was accepted")
    return inside, notices


def _is_scan(values: np.ndarray) -> bool:
    """Whether values are spread over their range. Those of an interpolated mask are mostly its lowest and highest."""
    low, high = min(0.0, float(values.min())), float(values.max())
    share = (values[values > low + 0.1 * (high - low)] - low) / (high - low)
    return bool(np.mean(share > 0.9) < 0.3)


def _voxels_apart(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far the same corner of two grids is apart at most, along any axis, in voxels of the other."""
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*np.subtract(shape, 1), 1]
    return float(np.abs(corners @ (np.linalg.solve(other, one) - np.eye(4)).T).max())


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
    files.write(path, gzip_files.pack(content) if path.suffix == ".gz" else content)


def nifti(values: np.ndarray, like: Volume, *, description: str = "jaxvae") -> bytearray:
    """The bytes of the file that `write` makes, before compression."""
    back = ornt_transform(RAS, io_orientation(like.stored_affine))
    dtype = np.dtype(np.uint8 if values.dtype == bool else np.float32)
    turned = apply_orientation(values, back)
    header = like.header.copy()
    header.set_data_dtype(dtype)
    header["descrip"] = description.encode()[:79]
    header["cal_min"], header["cal_max"] = min(0.0, float(values.min())), float(values.max())
    offset = header.sizeof_hdr + 4  # Four bytes of 0: no extensions follow.
    content = bytearray(offset + turned.size * dtype.itemsize)
    content[: header.sizeof_hdr] = header.binaryblock
    stored = np.ndarray(turned.shape, dtype, content, offset, order="F")
    for y in range(0, turned.shape[1], ROWS):
        stored[:, y : y + ROWS] = turned[:, y : y + ROWS]
    return content


def _map_header(header: Header) -> Any:
    """The NIfTI header of a scan's maps; what depends on the map is left open."""
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
    """The other files that a volume is read from: of an .img its header, and SPM's .mat where there is one."""
    if path.suffix.lower() != ".img":
        return []
    return [other for suffix in (".hdr", ".HDR", ".mat") if (other := path.with_suffix(suffix)).exists()]


def _refuse_unreadable(path: Path) -> None:
    """Raise InputError for what is no file, is empty, or is not what its name says."""
    if not path.is_file():
        what = "no such file"
        if files.is_dangling(path):
            what = f"links to {path.readlink()}, which is missing; fetch it"
        elif path.exists():
            what = "is a folder; name a file" if path.is_dir() else "is no regular file"
        raise InputError(f"{path}: {what}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty; copy it again")
    packed = gzip_files.is_packed(path)
    wrong = contradiction(path, "a gzip file", "a NIfTI file")
    # The voxels of an .img may begin like any file.
    if wrong and (path.suffix.lower() != ".img" or "pointer" in wrong or "page" in wrong):
        raise InputError(f"{path}: {wrong}")
    if packed != path.name.lower().endswith((".gz", ".mgz")):
        found = "compressed, but its name does not end in .gz" if packed else "not compressed, though its name says so"
        raise InputError(f"{path}: {found}; rename it")
    if path.suffix.lower() == ".img" and not any(part.suffix.lower() == ".hdr" for part in beside(path)):
        raise InputError(f"{path}: its header {path.with_suffix('.hdr').name} is missing; put it beside it")
    for part in beside(path):
        if part.stat().st_size == 0:
            raise InputError(f"{part}: is empty; copy it again")


def _reason(error: Exception, path: Path) -> str:
    words = " ".join(str(error).split())
    if isinstance(error, EOFError):
        return "ends too early, as a broken download does; copy it again"
    if isinstance(error, gzip_files.DAMAGED):
        return f"its compressed data are damaged ({words}); copy it again"
    if isinstance(error, MemoryError):
        return "there is not enough memory to read it; cut it into parts, or read it on a larger machine"
    if isinstance(error, ImageFileError | MGHError):
        return "not a NIfTI, MGH or Analyze volume, whatever its name says; export it again"
    if isinstance(error, KeyError):
        return f"cannot be read (its code {words} is unknown); export it again"
    if isinstance(error, PermissionError):
        return "may not be read; change its permissions"
    return f"cannot be read ({words.removeprefix(f'{path}: ') or type(error).__name__}); export it again"
