"""Headers of volumes: where the voxels are in the file, what their numbers mean, and how they lie in space.

A damaged header is mended where its other fields say what is right, with a warning. The rest of it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import imageglobals
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import io_orientation

from jaxvae.data.volumes import gzip_files
from jaxvae.errors import InputError

LARGEST = 1 << 30  # voxels; 4 GiB as float32, 120 times the largest clinical scans
LARGEST_HEADER = 1 << 20  # bytes of the .hdr of a pair, and of SPM's .mat
MGH_HEADER, MGH_VOXELS = 90, 284  # bytes of the header, and the byte at which the voxels start
LONGEST_SIDE = 2000.0  # millimetres of a scan; a whole body
SHORTEST_SIDE = 1.0  # millimetres
LONGEST_QUATERNION = 1.01  # Its length should be 1; what is a little longer comes from rounding.
_LOGGING = Lock()  # of nibabel's logger, which is one for all threads
UNITS = {2: ("millimetres", 1.0), 3: ("micrometres", 0.001), 1: ("metres", 1000.0)}  # by NIfTI's codes


@dataclass(frozen=True)
class Header:
    """What a volume's header says.

    Args:
      fields: nibabel's header, mended.
      file: holds the voxels.
      offset: the byte of `file` at which they start.
      dtype: of each voxel, with its byte order.
      shape: three axes, the first of which changes fastest.
      slope, intercept: the value of a voxel is slope * stored + intercept.
      affine: [4, 4], from indices to the file's unit of length.
      millimetres: of that unit.
      warnings: what was mended, or is left open.
    """

    fields: Any
    file: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, int, int]
    slope: float
    intercept: float
    affine: np.ndarray
    millimetres: float
    warnings: tuple[str, ...]


def read_header(path: Path) -> Header:
    """The header of a NIfTI, MGH or Analyze file.

    Raises:
      InputError: there is no usable affine, or what the file holds is no scan; see `volumes.read`.
      Exception: whatever nibabel raises for a damaged header.
    """
    if path.name.lower().endswith((".img", ".img.gz")):
        return _of_pair(path)
    mended = Mended()
    if path.name.lower().endswith((".mgh", ".mgz")):
        start = gzip_files.first_bytes(path, MGH_HEADER)
        kind: Any = nib.MGHImage.header_class
        fields: Any = kind(start, check=False)
        fields.check_fix(mended, error_level=40)
        warnings = [] if any(start[28:30]) else [_no_sides("an MGH header without goodRASFlag")]
        return _checked(path, fields, path, MGH_VOXELS, (1.0, 0.0), fields.get_affine(), warnings)
    start = gzip_files.first_bytes(path, 540)
    kinds: tuple[Any, ...] = (nib.Nifti1Header, nib.Nifti2Header)
    fitting = [kind for kind in kinds if kind.may_contain_header(start)]
    if not fitting:
        raise ImageFileError("neither NIfTI-1 nor NIfTI-2")
    # Extensions are left unread: nothing needs them, and a damaged one would be in the way of the voxels.
    fields = fitting[0](start[: fitting[0].sizeof_hdr], check=False)
    fields.check_fix(mended, error_level=40)
    affine, warnings = _in_space(fields, path)
    return _checked(
        path, fields, path, fields.get_data_offset(), fields.get_slope_inter(), affine, [*mended.lines, *warnings]
    )


def _of_pair(path: Path) -> Header:
    """The header of an .img file, which stands in an .hdr file beside it."""
    stem = path.name[: path.name.lower().rindex(".img")]
    for name in (f"{stem}{suffix}" for suffix in (".hdr", ".HDR", ".mat", ".hdr.gz")):
        other = path.with_name(name)
        if other.is_file() and len(gzip_files.first_bytes(other, LARGEST_HEADER + 1)) > LARGEST_HEADER:
            raise InputError(f"{other}: is too large for a header; export it again")
    mended = Mended()
    with _LOGGING:
        usual, imageglobals.logger = imageglobals.logger, mended
        try:
            image: Any = nib.load(path)
        finally:
            imageglobals.logger = usual
    fields, affine, warnings = image.header, image.affine, []
    if isinstance(fields, nib.Nifti1Header):
        affine, warnings = _in_space(fields, path)
    elif np.allclose(affine, fields.get_best_affine()):
        # SPM says it in a file beside the Analyze header, if at all.
        warnings = [_no_sides("an Analyze header")]
    voxels = image.dataobj
    return _checked(path, fields, path, voxels.offset, (voxels.slope, voxels.inter), affine, [*mended.lines, *warnings])


def _no_sides(header: str) -> str:
    return f"{header} does not say which side is left, so that is a guess"


class Mended:
    """A logger of nibabel's that keeps the lines about what it mends."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, level: int, line: str) -> None:
        # Less than 30 are trifles. So is an offset that SPM does not like.
        if level >= 30 and not line.startswith("vox offset"):
            self.lines.append(f"its header was mended: {line}")


def _checked(
    path: Path,
    fields: Any,
    file: Path,
    offset: int,
    scale: tuple[float | None, float | None],
    affine: np.ndarray,
    warnings: list[str],
) -> Header:
    """The header, or InputError for what is no scan."""
    dtype, shape = fields.get_data_dtype(), tuple(int(length) for length in fields.get_data_shape())
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
    if not _has_inverse(affine):
        raise InputError(f"{path}: its affine has no inverse, so no axis has a direction; set it, as with fslorient")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.max() > 100 * spacing.min():
        sides = "x".join(f"{side:.3g}" for side in spacing)
        raise InputError(f"{path}: its voxels would have {sides} mm; correct its header")
    millimetres, doubt = _unit(fields, affine, shape[:3])
    slope, intercept = scale
    return Header(
        fields,
        file,
        int(offset),
        dtype,
        shape[:3],
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
        affine,
        millimetres,
        (*warnings, *doubt),
    )


def _has_inverse(affine: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        volume = np.linalg.norm(affine[:3, :3], axis=0).prod()
        return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-6 * volume)


def _unit(fields: Any, affine: np.ndarray, shape: tuple[int, int, int]) -> tuple[float, list[str]]:
    """(millimetres of the unit of length, a warning if it is not the one that the header names)."""
    code = int(fields["xyzt_units"]) % 8 if isinstance(fields, nib.Nifti1Header) else 0
    named = UNITS.get(code, UNITS[2])
    side = float((np.linalg.norm(affine[:3, :3], axis=0) * shape).max())
    fitting = [unit for unit in (named, *UNITS.values()) if SHORTEST_SIDE <= side * unit[1] <= LONGEST_SIDE]
    name, millimetres = fitting[0] if fitting else named
    if name == named[0]:
        return millimetres, []
    said = named[0] if code in UNITS else "not said"
    length = f"it would be {side * named[1]:.3g} mm long"
    return millimetres, [f"its unit of length is {said}, so {length}; {name} were taken"]


def _in_space(fields: Any, path: Path) -> tuple[np.ndarray, list[str]]:
    """(the affine of a NIfTI header, what is doubtful about it); a form that is damaged is replaced in the header.

    Raises:
      InputError: there is neither a sform nor a qform with an inverse.
    """
    warnings = _shorten_quaternion(fields)
    if not (fields["sform_code"] or fields["qform_code"]):
        return fields.get_base_affine(), ["neither sform nor qform is set, so left and right are a guess"]
    sform, qform = fields.get_sform(), _qform(fields)
    sform = sform if fields["sform_code"] and _has_inverse(sform) else None
    if sform is None:
        if qform is None or not fields["qform_code"]:
            forms = "neither its sform nor its qform has an inverse"
            if not fields["sform_code"]:
                forms = "its qform is damaged and its sform is not set, so its affine has no inverse"
            elif not fields["qform_code"]:
                forms = "its affine has no inverse"
            raise InputError(f"{path}: {forms}, so no axis has a direction; set it, as with fslorient")
        if fields["sform_code"]:
            warnings.append("its sform has no inverse; the qform was taken")
            fields.set_sform(qform, int(fields["qform_code"]))
        return qform, warnings
    if qform is None:
        if fields["qform_code"]:
            warnings.append("its qform is damaged; the sform was taken")
        elif not _has_inverse(fields.get_base_affine()):
            warnings.append("its voxel size (pixdim) is damaged; the sform was taken")
        fields.set_qform(sform, 0)
    elif fields["qform_code"]:
        # The first of the pixdim is the handedness of the qform.
        if (np.linalg.det(sform[:3, :3]) < 0) != (fields["pixdim"][0] < 0):
            warnings.append("its sform and qform are mirror images of each other; the sform was taken")
        elif (io_orientation(sform) != io_orientation(qform)).any():
            warnings.append("its sform and qform are turned against each other; the sform was taken")
    return sform, warnings


def _shorten_quaternion(fields: Any) -> list[str]:
    """Brings the quaternion of a NIfTI header to length 1 if it is a little longer, as nifti1_io.c does."""
    names = ("quatern_b", "quatern_c", "quatern_d")
    quaternion = np.array([fields[name] for name in names], np.float64)
    length = float(np.linalg.norm(quaternion))
    if not 1 < length <= LONGEST_QUATERNION:
        return []
    for name, value in zip(names, quaternion / length, strict=True):
        fields[name] = value
    if length < 1 + 2e-7 or not fields["qform_code"]:
        return []
    return [f"its quaternion has the length {length:.7g} and was brought to 1"]


def _qform(fields: Any) -> np.ndarray | None:
    """The affine of the qform, or None if it is damaged."""
    try:
        qform = fields.get_qform()
    except Exception:  # of several kinds: LinAlgError, ValueError, HeaderDataError
        return None
    return qform if _has_inverse(qform) else None
