"""Flags: how arguments are typed, and their annotations for --help."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxvae.errors import refuse_below_zero as refuse_below_zero
from jaxvae.errors import refuse_unless as refuse_unless
from jaxvae.errors import refuse_unless_positive as refuse_unless_positive
from jaxvae.models import NETWORKS

Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def flag(name: str) -> str:
    """The flag of an argument.

    >>> flag("batch_size")
    '--batch-size'
    """
    return f"--{name.replace('_', '-')}"


def optional(kind: str, default: str | None) -> Any:
    """Annotation of a flag whose default is None: `--size INT  resize to N x N pixels (default: as they are)`."""
    return tyro.conf.arg(metavar=kind, help_behavior_hint=default and f"(default: {default})")


def papers(name: str) -> str:
    """The default of a flag whose value in the paper depends on the model."""
    return "as in the paper, " + ", ".join(f"{it.name} {getattr(it, name):g}" for it in NETWORKS.values())


def several(kind: str, default: str | None = None) -> Any:
    """Annotation of a flag that takes several values: `--features INT ...`; `default` as in `optional`."""
    return optional(f"{kind} ...", default)
