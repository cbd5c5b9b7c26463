"""Compressed volumes: fast gzip, and unpacking with bounded memory."""

from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip, isal_zlib

DAMAGED: tuple[Any, ...] = (isal_zlib.error, igzip.BadGzipFile)  # raised for damaged files, besides EOFError
BLOCK = 1 << 20  # bytes that are unpacked at a time
LARGEST_REST = 1 << 26  # bytes before or after the voxels; nibabel writes less than a thousand, scanners a few million


def pack(content: bytes | bytearray) -> bytes:
    """gzip bytes; equal content gives equal bytes."""
    # Levels 1 and 2 take the same time. Level 3 takes three times as long and makes float32 maps no smaller.
    return igzip.compress(content, 2, mtime=0)


def is_packed(path: Path) -> bool:
    """Whether a file starts like a gzip file."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def first_bytes(path: Path, size: int) -> bytes:
    """The first bytes of a file, unpacked; fewer if the file is shorter."""
    with igzip.IGzipFile(path, "rb") if is_packed(path) else path.open("rb") as file:
        return file.read(size)


def bytes_at(path: Path, offset: int, size: int) -> np.ndarray:
    """[size] uint8: a part of a file, unpacked. Missing bytes use no memory.

    A compressed file is unpacked to its end, so that its checksum reveals any damage.

    Raises:
      EOFError: the file ends too early.
      ValueError: there are more than `LARGEST_REST` bytes before or after the part.
    """
    if not is_packed(path):
        if path.stat().st_size < offset + size:
            raise EOFError(f"{path.stat().st_size:,} bytes, {offset + size:,} are needed")
        return np.fromfile(path, np.uint8, size, offset=offset)
    if offset > LARGEST_REST:
        raise ValueError(f"its header says that its voxels start at byte {offset:,}")
    values = np.empty(size, np.uint8)  # The system provides the memory page by page, when it is written.
    with igzip.IGzipFile(path, "rb") as file:
        if len(file.read(offset)) < offset:
            raise EOFError
        for start in range(0, size, BLOCK):
            block = file.read(min(BLOCK, size - start))
            if len(block) < min(BLOCK, size - start):
                raise EOFError
            values[start : start + len(block)] = np.frombuffer(block, np.uint8)
        rest = 0
        while block := file.read(BLOCK):
            rest += len(block)
            if rest > LARGEST_REST:
                raise ValueError(f"it unpacks to far more than the {size:,} bytes of its voxels")
    return values
