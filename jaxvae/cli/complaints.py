"""Messages in one line, with the flags that were typed."""

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile

from jaxvae.cli.flags import flag
from jaxvae.errors import ArgumentError, InputError, did_you_mean

KINDS = {
    "INT": "a whole number",
    "FLOAT": "a number",
    "INT [INT]": "one or two whole numbers, with a space between",
    "INT ...": "whole numbers, with spaces between",
    "FLOAT ...": "numbers, with spaces between",
    "LOW HIGH": "two numbers, with a space between",
}


def one_line(complaint: str, arguments: Sequence[str], known: Iterable[str]) -> str:
    """An error message of tyro, which prints a frame of several lines, in one line.

    Args:
      complaint: the output of tyro.
      arguments: the words after the command.
      known: the flags of the command.
    """
    # On an ASCII terminal the frame has other characters.
    text = " ".join(re.sub(r"[│╭╮╰╯─]|-{3,}", " ", complaint).split())
    if match := re.search(r"Unrecognized options: ([^\s,=]+)", text):
        if not match[1].startswith("-"):
            return f"{match[1]}: one argument too many"
        return f"{match[1]}: no such flag{did_you_mean(match[1], known)}"
    if match := re.search(r"Missing from [^:]+: (\S+)", text):
        return f"{match[1]} is missing"
    if match := re.search(r"Missing value for argument '(\S+)'", text):
        return f"{match[1]}: its value is missing" if match[1].startswith("-") else f"{match[1].upper()} is missing"
    if match := re.search(r"invalid choice '(.*)' for argument '(\S+)'\. Expected one of \((.*?),?\)", text):
        choices = match[3].replace("'", "").split(", ")
        return f"{match[2]} {match[1]}: choose from {', '.join(choices)}{did_you_mean(match[1], choices)}"
    if match := re.search(r"Error parsing ([^\s:]+):", text):
        # The longest first: "INT ..." begins with "INT".
        kinds = "|".join(re.escape(kind) for kind in sorted(KINDS, key=len, reverse=True))
        kind = re.search(rf"{re.escape(match[1])} ({kinds})(?!\w)", text)
        wanted = KINDS[kind[1]] if kind else "something else"
        return f"{match[1]} {_typed(match[1], arguments)}: must be {wanted}"
    return text.rstrip(".") or "the arguments could not be read"


def as_typed(error: InputError, names: Collection[str]) -> str:
    """The message of an error, with flags in place of the library's arguments.

    >>> as_typed(ArgumentError("hold_out", 12, "leave it out, or `scaling`"), ["hold_out", "scaling"])
    '--hold-out 12: leave it out, or --scaling'
    """
    if not isinstance(error, ArgumentError) or error.name not in names:
        return with_flags(str(error), names)
    values = error.value if isinstance(error.value, tuple) else (error.value,)
    value = " ".join(map(str, values)) if values else "without a number"
    return f"{flag(error.name)} {value}".rstrip() + f": {with_flags(error.problem, names)}"


def with_flags(text: str, names: Collection[str]) -> str:
    """A text with flags in place of the arguments that it names in backquotes.

    >>> with_flags("give `size` 32 to `jaxvae train`", ["size"])
    'give --size 32 to `jaxvae train`'
    """
    return re.sub(rf"`({'|'.join(names)})`", lambda name: flag(name[1]), text)


def shortened(names: Sequence[str]) -> str:
    """The first of some names, and the number of the others.

    >>> shortened(["a", "b", "c"]), shortened(["a"])
    ('a and 2 more', 'a')
    """
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _typed(flag: str, arguments: Sequence[str]) -> str:
    """The values after a flag."""
    words = [word for argument in arguments for word in argument.split("=", 1)] if flag.startswith("--") else []
    after = words[words.index(flag) + 1 :] if flag in words else []
    return " ".join(takewhile(lambda word: not word.startswith("--"), after))
