"""gzip files of volumes: packed fast, and unpacked no further than their headers ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip, isal_zlib

DAMAGED: tuple[Any, ...] = (isal_zlib.error, igzip.BadGzipFile)  # what reading a damaged file raises, besides EOFError
BLOCK = 1 << 20  # bytes that are unpacked at a time
LARGEST_REST = 1 << 26  # bytes before or behind the voxels; nibabel writes less than a thousand, scanners a few million


def pack(content: bytes | bytearray) -> bytes:
    """gzip bytes, the same for the same content."""
    # Levels 1 and 2 take the same time; 3 takes three times as long and saves nothing of a float32 map.
    return igzip.compress(content, 2, mtime=0)


def is_packed(path: Path) -> bool:
    """Whether the file starts as every gzip file does."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def first_bytes(path: Path, size: int) -> bytes:
    """The first bytes of a file, unpacked; fewer where it has fewer."""
    with igzip.IGzipFile(path, "rb") if is_packed(path) else path.open("rb") as file:
        return file.read(size)


def bytes_at(path: Path, offset: int, size: int) -> np.ndarray:
    """[size] uint8: a part of a file, unpacked. Memory is taken for bytes that are there, not for those that are asked.

    A packed file is unpacked to its end, so that its checksum shows any damage.

    Raises:
      EOFError: the file ends before.
      ValueError: more than `LARGEST_REST` bytes lie before or behind.
    """
    if not is_packed(path):
        if path.stat().st_size < offset + size:
            raise EOFError(f"{path.stat().st_size:,} bytes, {offset + size:,} are needed")
        return np.fromfile(path, np.uint8, size, offset=offset)
    if offset > LARGEST_REST:
        raise ValueError(f"its header says that its voxels start at byte {offset:,}")
    values = np.empty(size, np.uint8)  # The system gives the memory page by page, as it is written to.
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
