"""The kind of a file by its first bytes, and whether it fits the file's name."""

import codecs
from pathlib import Path
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of file."""

    name: str  # with its article, such as "a PNG file"
    offset: int  # the byte at which `start` begins
    start: bytes
    way_out: str  # what to do if such a file has the name of another kind
    is_stand_in: bool = False  # a pointer or a web page that stands in for a file that was not fetched


KINDS = (
    Kind("a Git LFS pointer", 0, b"version https://git-lfs.github.com/spec/", "fetch it with `git lfs pull`", True),
    Kind("a Git LFS pointer", 0, b"version https://hawser.github.com/spec/", "fetch it with `git lfs pull`", True),
    Kind("a git-annex pointer", 0, b"/annex/objects/", "fetch it with `git annex get`", True),
    Kind("a PNG file", 0, b"\x89PNG\r\n\x1a\n", "rename it to .png"),
    Kind("a JPEG file", 0, b"\xff\xd8\xff", "rename it to .jpg"),
    Kind("a GIF file", 0, b"GIF8", "save it as PNG"),
    Kind("a BMP file", 0, b"BM", "rename it to .bmp"),
    Kind("a TIFF file", 0, b"II*\0", "rename it to .tif"),
    Kind("a TIFF file", 0, b"MM\0*", "rename it to .tif"),
    Kind("a TIFF file", 0, b"II+\0", "rename it to .tif"),
    Kind("a TIFF file", 0, b"MM\0+", "rename it to .tif"),
    Kind("a WebP file", 8, b"WEBP", "rename it to .webp"),
    Kind("a JPEG 2000 file", 4, b"jP  \r\n", "save it as PNG or TIFF"),
    Kind("a HEIC or AVIF file", 4, b"ftyp", "save it as PNG or TIFF"),
    Kind("a NumPy file", 0, b"\x93NUMPY", "rename it to .npy"),
    Kind("a DICOM file", 128, b"DICM", "convert it to PNG, TIFF or NIfTI"),
    Kind("a NIfTI file", 344, b"n+1\0", "rename it to .nii"),
    Kind("a NIfTI file", 4, b"n+2\0\r\n\x1a\n", "rename it to .nii"),
    Kind("an HDF5 file", 0, b"\x89HDF\r\n\x1a\n", "save its images as PNG, TIFF or npy"),
    Kind("a MATLAB file", 0, b"MATLAB 5.0", "save its images as PNG, TIFF or npy"),
    Kind("a PDF file", 0, b"%PDF", "save its images as PNG"),
    Kind("a gzip file", 0, b"\x1f\x8b", "unpack it with `gunzip`"),
    Kind("a ZIP archive", 0, b"PK\x03\x04", "unpack it"),
    Kind("a 7-Zip archive", 0, b"7z\xbc\xaf\x27\x1c", "unpack it"),
    Kind("a RAR archive", 0, b"Rar!\x1a\x07", "unpack it"),
    Kind("an xz file", 0, b"\xfd7zXZ\0", "unpack it"),
    Kind("a bzip2 file", 0, b"BZh", "unpack it"),
    Kind("a tar archive", 257, b"ustar", "unpack it"),
    Kind("a Python pickle", 0, b"\x80\x04\x95", "save it as npy; pickles are never opened"),
)
_TEXTS = (
    Kind("a git-annex pointer", 0, b".git/annex/objects/", "fetch it with `git annex get`", True),
    Kind("an HTML page", 0, b"<!doctype html", "download the file itself again", True),
    Kind("an HTML page", 0, b"<html", "download the file itself again", True),
    Kind("an XML file", 0, b"<?xml", "download the file itself again", True),
    Kind("a JSON file", 0, b"{", "download the file itself again"),
)


def kind_of(path: Path) -> Kind | None:
    """The kind of a file by its first bytes, None if unknown. May raise OSError."""
    with path.open("rb") as file:
        head = file.read(512)
    for kind in KINDS:
        if head[kind.offset : kind.offset + len(kind.start)] == kind.start:
            return kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for kind in _TEXTS:
        if text.startswith(kind.start) or (kind is _TEXTS[0] and kind.start in text):
            return kind
    return Kind("a text file", 0, b"", "replace it with the file itself") if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(text) and all(letter.isprintable() or letter.isspace() for letter in text)


class Mismatch(NamedTuple):
    """A file whose content is not what its name promises."""

    problem: str  # what the file is, and what to do about it
    is_stand_in: bool


def mismatch(path: Path, *expected: str) -> Mismatch | None:
    """How a file differs from the expected kinds; None if it does not.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.png")
    >>> _ = path.write_bytes(b"BM6")
    >>> mismatch(path, "a PNG file").problem
    'is a BMP file, despite its name; rename it to .bmp'
    """
    kind = kind_of(path)
    if kind is None or kind.name in expected:
        return None
    instead = "not the file itself" if "pointer" in kind.name else "despite its name"
    return Mismatch(f"is {kind.name}, {instead}; {kind.way_out}", kind.is_stand_in)
