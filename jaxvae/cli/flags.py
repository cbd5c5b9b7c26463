"""What the flags of all commands share: how they show in --help, and what is said of one that does nothing."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxvae.cli.words import flag, spaced
from jaxvae.errors import InputError

Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def optional(kind: str, default: str) -> Any:
    """The annotation of a flag whose default is None: `--size INT  resize to N x N pixels (default: as they are)`."""
    return tyro.conf.arg(metavar=kind, help_behavior_hint=f"(default: {default})")


def several(kind: str, default: str | None = None) -> Any:
    """The annotation of a flag that takes any number of values: `--features INT ...`; `default` as in `optional`."""
    if default is None:
        return tyro.conf.arg(metavar=f"{kind} ...")
    return tyro.conf.arg(metavar=f"{kind} ...", help_behavior_hint=f"(default: {default})")


def refuse_unless_positive(name: str, value: float | None) -> None:
    """Refuses a number that is there and not above 0, by the name of its flag."""
    if value is not None and not (value > 0 and math.isfinite(value)):
        kind = "above 0" if math.isfinite(value) else "a finite number above 0"
        raise InputError(f"{flag(name)} {value}: must be {kind}")


def refuse_below_zero(name: str, value: float) -> None:
    """Refuses a negative number, and NaN, by the name of its flag."""
    if not value >= 0:
        raise InputError(f"{flag(name)} {value}: must not be below 0")


def refuse_unless(fits: bool, given: Any, names: tuple[str, ...], where: str) -> None:
    """Refuses what was typed for flags that do nothing: `--size 8: only goes with WHERE`.

    Args:
      given: a dataclass of flags; those at their defaults were not typed.
    Raises:
      InputError: one of the names was, and they do not fit.
    """
    default = {field.name: field.default for field in fields(given)}
    for name in names:
        value = getattr(given, name)
        if not fits and value != default[name]:
            words = spaced(value) if isinstance(value, tuple) else value
            raise InputError(f"{flag(name)} {words}: only goes with {where}")
