"""InputError, raised for anything the user can fix; disk and memory errors."""

import dataclasses
import errno
import math
import os
import re
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class InputError(ValueError):
    """An error that the user can fix: in a file, an argument, a folder or data.

    Its message is one line: what was given, what is wrong, what to do. The command prints that line and exits with code
    2. Any other exception is a defect of jaxvae and keeps its traceback.

    >>> str(InputError("scan\\n1.nii: no such file"))
    'scan\\\\n1.nii: no such file'
    """

    def __init__(self, message: str) -> None:
        # Names and values from damaged files can hold anything. Line breaks and control characters are escaped.
        # Surrogates, which stand for bytes of names that are not text, stay.
        if not message.isprintable():
            message = "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else repr(c)[1:-1] for c in message)
        super().__init__(message if len(message) <= 2000 else f"{message[:1400]} ... {message[-595:]}")


class ArgumentError(InputError):
    """An argument out of its range. The command names its flag instead.

    >>> str(ArgumentError("size", (8, 0), "both sides need at least 1 pixel"))
    'size=(8, 0): both sides need at least 1 pixel'
    """

    def __init__(self, name: str, value: object, problem: str) -> None:
        """The problem names other arguments in backquotes."""
        super().__init__(f"{name}={value!r}: {problem}")
        self.name, self.value, self.problem = name, value, problem


def refuse_unless_positive(name: str, value: float | None) -> None:
    """Raise ArgumentError if an argument is given and is not a finite number above 0."""
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise ArgumentError(name, value, f"must be {'above 0' if math.isfinite(value) else 'a finite number above 0'}")


def refuse_below_zero(name: str, value: float) -> None:
    """Raise ArgumentError if an argument is negative or NaN."""
    if not value >= 0:
        raise ArgumentError(name, value, "must be at least 0")


def refuse_unless(fits: bool, given: Any, names: Iterable[str], where: str) -> None:
    """Raise ArgumentError for a setting without effect: `only goes with WHERE`.

    Args:
      fits: whether the settings have an effect; then nothing is checked.
      given: a dataclass of settings; those at their defaults count as not given.
      names: the settings to check.
      where: what they go with.
    """
    default = {field.name: field.default for field in dataclasses.fields(given)}
    for name in names:
        if not fits and getattr(given, name) != default[name]:
            raise ArgumentError(name, getattr(given, name), f"only goes with {where}")


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "run"), counted(8, "run")
    ('1 run', '8 runs')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion if one of the known words is similar, else an empty string.

    >>> did_you_mean("phantoms", ["fashion_mnist", "phantom"])
    '; did you mean phantom?'
    """
    alike = get_close_matches(word, known, n=1)
    return f"; did you mean {alike[0]}?" if alike else ""


def command(*words: object, **arguments: object) -> str:
    """A command to type, in backquotes. Arguments that are None are left out.

    >>> command("evaluate", "my run", "OTHER", out=None)
    "`jaxvae evaluate 'my run' OTHER`"
    """
    for name, value in arguments.items():
        words += () if value is None else ("--" + name.replace("_", "-"), value)
    return f"`{shlex.join(['jaxvae', *map(str, words)])}`"


def reason(error: BaseException) -> str:
    """Why an operation failed, in one line; never empty.

    >>> reason(OSError(errno.ENOENT, "No such file or directory", "scan.nii"))
    'No such file or directory'
    """
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def system_error(error: BaseException) -> int | None:
    """The operating system's error number (`errno`), None for other errors.

    TensorStore, which writes checkpoints, puts it into the text of a ValueError. NumPy gives none if the disk fills up
    while it writes an array.

    >>> system_error(ValueError("RESOURCE_EXHAUSTED: Failed to write [os_error_code='28']")) == errno.ENOSPC
    True
    """
    if isinstance(error, OSError):
        return errno.ENOSPC if re.search(r"\d+ requested and \d+ written", str(error)) else error.errno
    found = re.search(r"os_error_code='(\d+)'|OS error (\d+)", str(error))
    return int(found[1] or found[2]) if found else None


def cannot_be_written(path: object, error: BaseException) -> InputError:
    """The InputError for a file that the operating system cannot write.

    >>> str(cannot_be_written("RUN/config.json", OSError(errno.ENOSPC, "No space left on device")))
    'RUN/config.json: cannot be written (No space left on device); free some space, or name another place'
    """
    number = system_error(error)
    free = "free some space, or " if number in (errno.ENOSPC, errno.EDQUOT) else ""
    reason = os.strerror(number) if number else error
    return InputError(f"{path}: cannot be written ({reason}); {free}name another place")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, which XLA reports only in the error's text.

    TensorStore uses the same text for a full disk.
    """
    if isinstance(error, MemoryError) or system_error(error) == errno.ENOMEM:
        return True
    return "RESOURCE_EXHAUSTED" in str(error) and system_error(error) is None
