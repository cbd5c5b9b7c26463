"""Headers of volumes: offset, type, scale and position of the voxels.

A damaged field is repaired with a warning if other fields tell its value. Otherwise the file is refused.
"""

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
MGH_HEADER, MGH_VOXELS = 90, 284  # bytes of the header; the byte at which the voxels start
LONGEST_SIDE = 2000.0  # millimetres; a scan of a whole body
SHORTEST_SIDE = 1.0  # millimetres
LONGEST_QUATERNION = 1.01  # The length should be 1; a little more comes from rounding.
SET_AFFINE = "set it, for example with fslorient"
_LOGGING = Lock()  # nibabel has one logger for all threads
UNITS = {2: ("millimetres", 1.0), 3: ("micrometres", 0.001), 1: ("metres", 1000.0)}  # by NIfTI's codes


@dataclass(frozen=True)
class Header:
    """The header of a volume."""

    fields: Any  # nibabel's header, repaired
    file: Path  # the file that holds the voxels
    offset: int  # the byte of `file` at which the voxels start
    dtype: np.dtype  # the type of a voxel, with its byte order
    shape: tuple[int, int, int]  # the first axis changes fastest
    slope: float  # the value of a voxel is slope * stored + intercept
    intercept: float
    affine: np.ndarray  # [4, 4], from indices to the file's unit of length
    millimetres: float  # the file's unit of length in millimetres
    warnings: tuple[str, ...]  # what was repaired or is uncertain


def read_header(path: Path) -> Header:
    """Read the header of a NIfTI, MGH or Analyze file.

    Raises:
      InputError: there is no usable affine, or the file is not a scan; see `volume_files.read`.
      Exception: nibabel raises many classes for damaged headers.
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
        return _checked(path, fields, MGH_VOXELS, (1.0, 0.0), fields.get_affine(), warnings)
    start = gzip_files.first_bytes(path, 540)
    kinds: tuple[Any, ...] = (nib.Nifti1Header, nib.Nifti2Header)
    fitting = [kind for kind in kinds if kind.may_contain_header(start)]
    if not fitting:
        raise ImageFileError("neither NIfTI-1 nor NIfTI-2")
    # Extensions are not read: nothing needs them, and a damaged one would hide the voxels.
    fields = fitting[0](start[: fitting[0].sizeof_hdr], check=False)
    fields.check_fix(mended, error_level=40)
    affine, warnings = _in_space(fields, path)
    warnings = [*mended.lines, *warnings]
    return _checked(path, fields, fields.get_data_offset(), fields.get_slope_inter(), affine, warnings)


def _of_pair(path: Path) -> Header:
    """The header of an .img file, from the .hdr file beside it."""
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
        # SPM stores the orientation in a .mat file beside the Analyze header, if at all.
        warnings = [_no_sides("an Analyze header")]
    voxels = image.dataobj
    return _checked(path, fields, voxels.offset, (voxels.slope, voxels.inter), affine, [*mended.lines, *warnings])


def _no_sides(header: str) -> str:
    return f"{header} does not say which side is left, so that is a guess"


class Mended:
    """A logger for nibabel that keeps the lines about its repairs."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, level: int, line: str) -> None:
        # Levels below 30 are trifles, and so are offsets that SPM does not like.
        if level >= 30 and not line.startswith("vox offset"):
            self.lines.append(f"its header was repaired: {line}")


def _checked(path: Path, fields: Any, offset: int, scale: tuple, affine: np.ndarray, warnings: list[str]) -> Header:
    """Build the header. Raises InputError if the file is not a scan."""
    dtype, shape = fields.get_data_dtype(), tuple(int(length) for length in fields.get_data_shape())
    if dtype.fields or dtype.kind not in "iuf":
        kind = "complex" if dtype.kind == "c" else "in colour" if dtype.fields else f"of type {dtype}"
        raise InputError(f"{path}: its voxels are {kind}; save one real number per voxel")
    size = "x".join(map(str, shape))
    if len(shape) < 3 or any(length > 1 for length in shape[3:]):
        way_out = "extract one volume of it" if len(shape) > 3 else "a volume has three axes"
        raise InputError(f"{path}: has {size} voxels; {way_out}")
    if min(shape) < 1:
        raise InputError(f"{path}: has {size} voxels, so it is empty; export it again")
    if np.prod(shape, dtype=np.float64) > LARGEST:
        raise InputError(f"{path}: has {size} voxels, more than the limit of {LARGEST:,}; cut it into parts")
    if not _has_inverse(affine):
        raise InputError(f"{path}: its affine is singular; {SET_AFFINE}")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.max() > 100 * spacing.min():
        sides = "x".join(f"{side:.3g}" for side in spacing)
        raise InputError(f"{path}: its header says voxels of {sides} mm; correct it")
    millimetres, doubt = _unit(fields, affine, shape[:3])
    slope, intercept = 1.0 if scale[0] is None else float(scale[0]), 0.0 if scale[1] is None else float(scale[1])
    voxels = (path, int(offset), dtype, shape[:3], slope, intercept)
    return Header(fields, *voxels, affine, millimetres, (*warnings, *doubt))


def _has_inverse(affine: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        volume = np.linalg.norm(affine[:3, :3], axis=0).prod()
        return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-6 * volume)


def _unit(fields: Any, affine: np.ndarray, shape: tuple[int, int, int]) -> tuple[float, list[str]]:
    """(the unit of length in millimetres, a warning if it is not the unit that the header names)."""
    code = int(fields["xyzt_units"]) % 8 if isinstance(fields, nib.Nifti1Header) else 0
    named = UNITS.get(code, UNITS[2])
    side = float((np.linalg.norm(affine[:3, :3], axis=0) * shape).max())
    fitting = [unit for unit in (named, *UNITS.values()) if SHORTEST_SIDE <= side * unit[1] <= LONGEST_SIDE]
    name, millimetres = fitting[0] if fitting else named
    if name == named[0]:
        return millimetres, []
    said = named[0] if code in UNITS else "not said"
    length = f"it would be {side * named[1]:.3g} mm long"
    return millimetres, [f"its unit of length is {said}, so {length}; {name} were assumed"]


def _in_space(fields: Any, path: Path) -> tuple[np.ndarray, list[str]]:
    """(the affine of a NIfTI header, warnings about it).

    A damaged sform or qform is replaced in the header. Raises InputError if both are damaged.
    """
    warnings = _shorten_quaternion(fields)
    if not (fields["sform_code"] or fields["qform_code"]):
        return fields.get_base_affine(), ["neither sform nor qform is set, so left and right are a guess"]
    sform, qform = fields.get_sform(), _qform(fields)
    sform = sform if fields["sform_code"] and _has_inverse(sform) else None
    if sform is None:
        if qform is None or not fields["qform_code"]:
            forms = "its sform and its qform are damaged"
            if not fields["sform_code"]:
                forms = "its qform is damaged and its sform is not set"
            elif not fields["qform_code"]:
                forms = "its affine is singular"
            raise InputError(f"{path}: {forms}; {SET_AFFINE}")
        if fields["sform_code"]:
            warnings.append("its sform is singular; the qform was taken")
            fields.set_sform(qform, int(fields["qform_code"]))
        return qform, warnings
    if qform is None:
        if fields["qform_code"]:
            warnings.append("its qform is damaged; the sform was taken")
        elif not _has_inverse(fields.get_base_affine()):
            warnings.append("its voxel size (pixdim) is damaged; the sform was taken")
        fields.set_qform(sform, 0)
    elif fields["qform_code"]:
        # The first pixdim is the handedness of the qform.
        if (np.linalg.det(sform[:3, :3]) < 0) != (fields["pixdim"][0] < 0):
            warnings.append("its sform and qform are mirror images; the sform was taken")
        elif (io_orientation(sform) != io_orientation(qform)).any():
            warnings.append("its sform and qform have different axes; the sform was taken")
    return sform, warnings


def _shorten_quaternion(fields: Any) -> list[str]:
    """Shorten the quaternion of a NIfTI header to length 1 if it is a little longer, as nifti1_io.c does."""
    names = ("quatern_b", "quatern_c", "quatern_d")
    quaternion = np.array([fields[name] for name in names], np.float64)
    length = float(np.linalg.norm(quaternion))
    if not 1 < length <= LONGEST_QUATERNION:
        return []
    for name, value in zip(names, quaternion / length, strict=True):
        fields[name] = value
    if length < 1 + 2e-7 or not fields["qform_code"]:
        return []
    return [f"its quaternion has the length {length:.7g} and was shortened to 1"]


def _qform(fields: Any) -> np.ndarray | None:
    """The affine of the qform, or None if it is damaged."""
    try:
        qform = fields.get_qform()
    except Exception:  # LinAlgError, ValueError or HeaderDataError
        return None
    return qform if _has_inverse(qform) else None
