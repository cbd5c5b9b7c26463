"""Atomic file writing, locks, claiming output folders, and checked JSON.

A file appears whole or not at all.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import math
import os
import re
import textwrap
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from jaxvae.errors import InputError, cannot_be_written, reason, system_error

if TYPE_CHECKING:
    import numpy as np

_MISSING = object()  # stands for a missing value, because None is a value


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a new file that replaces `path` in one move if no error occurs.

    A reader sees the old file or the new one, never a part, even if the process is killed. Missing folders are made.

    Raises:
      InputError: the folder cannot be made or written to.
    """
    target = Path(path)
    # `tempfile` would make the file private to the user.
    part = target.with_name(f".{_short(target.name)}.{uuid.uuid4().hex}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                yield file
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        named = error.filename
        if named is not None and named != str(part) and not str(target).startswith(str(named)):
            raise  # The error is of another file, which was read meanwhile.
        raise cannot_be_written(path, error) from error


def claim(
    directory: Path, note: str, settings: Mapping[str, Any], *, what: str, beside_others: bool = False
) -> dict[str, Any] | None:
    """Claim an output folder by a JSON file in it that records its settings.

    A missing or empty folder is made and gets the note. Hidden files do not count. Commands that continue earlier work
    compare the note that is returned with their settings (`refuse_other_settings`).

    Args:
      note: the name of the note, such as `config.json`.
      settings: the content of a new note, JSON values.
      what: what the folder holds, for messages, such as "a run".
      beside_others: the results may be written beside other files, so a folder without the note is claimed too.

    Returns:
      The note of a folder that was claimed before, None for a new one.

    Raises:
      InputError: the folder holds other files and no note, or its note is damaged, or cannot be written.
    """
    path = directory / note
    if not path.is_file():
        others = directory.exists() and (not directory.is_dir() or any(p.name[0] != "." for p in directory.iterdir()))
        # The note is looked for again because another process of the same job may have written it meanwhile.
        if beside_others or not others or path.is_file():
            write_json(path, settings)
            return None
        raise InputError(f"{directory}: exists and is not {what} (no {note} in it); name a new folder")
    way_out = "name a new folder" if beside_others else "remove that folder and start again, or name a new one"
    return read_json(path, way_out=way_out)


def refuse_other_settings(
    directory: Path,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    names: Iterable[str] | None = None,
    *,
    way_out: str = "use those settings again, or name a new folder",
) -> None:
    """Refuse an output folder that was made with other settings.

    Args:
      before: the settings that made the folder, as JSON values.
      now: the settings of this command, as JSON values.
      names: the settings that must be equal, the most important first; all of `now` if None.
      way_out: what to do about it, for the message.

    Raises:
      InputError: a setting differs; up to three are named.

    >>> refuse_other_settings(Path("out"), {"size": 64, "seed": 0}, {"size": 32, "seed": 0})
    Traceback (most recent call last):
    jaxvae.errors.InputError: out: was made with size 64, now 32; use those settings again, or name a new folder
    """
    changed = [name for name in (now if names is None else names) if before.get(name) != now[name]]
    if changed:
        words = "; ".join(f"{name} {_shown(before.get(name))}, now {_shown(now[name])}" for name in changed[:3])
        raise InputError(f"{directory}: was made with {words}; {way_out}")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock a folder against other processes; it is made, and removed if empty.

    Processes of other machines are kept out too where the file system supports locks.

    Raises:
      InputError: another process has locked it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise cannot_be_written(directory, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(f"{directory}: another process is at work there; wait for it, or end it") from None
    except OSError:
        pass  # The file system has no locks.
    try:
        yield
    finally:
        with suppress(OSError):  # Usually it is not empty.
            directory.rmdir()
        os.close(handle)


def clear_parts(path: str | os.PathLike[str]) -> None:
    """Remove the unfinished files that killed processes left of `path`."""
    target = Path(path)
    for part in target.parent.glob(f".{glob.escape(_short(target.name))}.*.part"):
        part.unlink(missing_ok=True)


def _short(name: str) -> str:
    """The name, or its hash if a longer name with it in it could exceed the limit of file systems."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= 200 else hashlib.sha256(encoded).hexdigest()


def clear_all_parts(directory: Path) -> None:
    """`clear_parts` of all files below a folder, in one walk for all."""
    for part in directory.rglob(".*.part"):
        if re.fullmatch(r"\..+\.[0-9a-f]{32}\.part", part.name):
            part.unlink(missing_ok=True)


def identity(path: Path) -> list[Any]:
    """The identity of a file as JSON values: real path, size and time.

    The real path does not depend on how the file was named or on links.
    """
    status = path.stat()
    return [os.path.realpath(path), status.st_size, status.st_mtime_ns]


def below(directory: Path, name: str) -> Path:
    """The path of a result below a folder. Raises InputError if it leads out."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{name!r}: leads out of the output folder {directory}; rename it")
    return directory / name


def write(path: str | os.PathLike[str], content: bytes | bytearray) -> None:
    """Write a file as `replacing` does."""
    with replacing(path) as file:
        file.write(content)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file. Raises ValueError if a value is NaN or infinite."""
    write(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_lines(path: str | os.PathLike[str], records: list[dict[str, Any]]) -> None:
    """Write a JSONL file, one record per line. NaN is refused as in `write_json`."""
    write(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode())


def no_more_can_be_written(error: InputError) -> bool:
    """Whether the disk is full or read-only, or a quota is used up."""
    cause = error.__cause__
    return cause is not None and system_error(cause) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def append_lines(path: str | os.PathLike[str], records: Iterable[dict[str, Any]]) -> None:
    """Append lines to a JSONL file. Raises InputError if it cannot be written."""
    try:
        with Path(path).open("a") as log:
            log.writelines(json.dumps(record, allow_nan=False) + "\n" for record in records)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def read_json(
    path: str | os.PathLike[str], facts: Mapping[str, Any] | None = None, *, way_out: str = "restore it or remove it"
) -> dict[str, Any]:
    """Read the object in a JSON file and check it.

    Args:
      facts: the types of required values by name, such as `int | None`. `"data.size"` is `size` within `data`, and
        `"seconds?"` can be missing.
      way_out: what to do about a damaged file, for the message.

    Raises:
      InputError: the file is missing or unreadable, is not one JSON object, or lacks a fact of its type.

    >>> read_json("none.json")
    Traceback (most recent call last):
    jaxvae.errors.InputError: none.json: cannot be read (No such file or directory); restore it or remove it
    """
    return _record(_content(path, way_out), os.fspath(path), facts or {}, way_out)


def read_lines(
    path: str | os.PathLike[str], facts: Mapping[str, Any] | None = None, *, way_out: str = "restore it or remove it"
) -> list[dict[str, Any]]:
    """Read the records of a JSONL file, none if it is missing.

    Half a line at the end is ignored: a process was killed while it wrote it. Arguments and errors are those of
    `read_json`, for each line.
    """
    content = _content(path, way_out) if Path(path).exists() else b""
    lines = enumerate(content.split(b"\n")[:-1], start=1)
    return [_record(line, f"{os.fspath(path)}, line {number}", facts or {}, way_out) for number, line in lines]


def open_array(path: str | os.PathLike[str], *, way_out: str = "restore it or remove it") -> np.ndarray:
    """Memory-map the array in a .npy file. Pickles are refused.

    Raises:
      InputError: the file is missing, damaged, truncated, or holds Python objects.
    """
    import numpy as np

    try:
        return np.lib.format.open_memmap(os.fspath(path), mode="r")
    # NumPy raises SyntaxError, TokenError, OverflowError, ... for damaged headers, without a common class.
    except Exception as error:
        raise InputError(f"{os.fspath(path)}: cannot be read ({reason(error)}); {way_out}") from error


def _content(path: str | os.PathLike[str], way_out: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{os.fspath(path)}: cannot be read ({reason(error)}); {way_out}") from error


def _record(content: bytes, name: str, facts: Mapping[str, Any], way_out: str) -> dict[str, Any]:
    try:
        record = json.loads(content, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not JSON ({error}); {way_out}") from error
    return check(record, name, facts, way_out)


def check(record: Any, name: str, facts: Mapping[str, Any], way_out: str) -> dict[str, Any]:
    """Check that a record is an object with `facts`, as in `read_json`.

    Args:
      name: the record's name for the message.

    Raises:
      InputError: it is something else, or a fact is missing or of another type.
    """
    lacking = []
    for wanted, kind in facts.items():
        value: Any = record
        fact = wanted.removesuffix("?")
        for step in fact.split("."):
            value = value.get(step, _MISSING) if isinstance(value, dict) else _MISSING
        if value is _MISSING:
            lacking += [fact] if fact == wanted else []
        elif not isinstance(value, kind) or (isinstance(value, bool) and kind in (int, int | float)):
            raise InputError(f"{name}: {fact} is {_named(value)}, so it is damaged or of another version; {way_out}")
    if lacking:
        raise InputError(f"{name}: lacks {', '.join(lacking)}, so it is damaged or of another version; {way_out}")
    if not isinstance(record, dict):
        raise InputError(f"{name}: holds {_named(record)} instead of an object; {way_out}")
    return record


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{textwrap.shorten(text, 20)} is not finite")
    return number


def _whole(text: str) -> int:
    # The length is checked first, because the time of `int` grows with its square.
    if len(text) > 20 or not -(2**63) <= (number := int(text)) < 2**64:
        raise ValueError(f"{textwrap.shorten(text, 20)} has more than 64 bits")
    return number


def _named(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return textwrap.shorten(json.dumps(value), 40)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested JSON values by their dotted names.

    >>> flat({"hparams": {"beta": 1.0}})
    {'hparams.beta': 1.0}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found
