"""Build the API reference from the docstrings, as HTML. `scripts/reference.sh` calls it.

    python scripts/reference.py [FOLDER]     # default: site

Needs pdoc (the extra `docs`). Every warning is an error.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc

import jaxvae


def main(folder: Path) -> None:
    warnings.simplefilter("error")
    names = [module.name for module in pkgutil.walk_packages(jaxvae.__path__, "jaxvae.")]
    names = [name for name in names if name.split(".")[1] not in ("cli", "__main__")]
    for name in names:
        _name_constructors(importlib.import_module(name))
    pdoc.render.configure(docformat="google")
    pdoc.pdoc("jaxvae", *names, output_directory=folder)
    print(f"{folder / 'jaxvae.html'}: the API reference")


def _name_constructors(module: object) -> None:
    """Set the module of each named tuple's constructor, where pdoc looks up the annotations of its fields."""
    for value in vars(module).values():
        if isinstance(value, type) and hasattr(value, "_fields") and value.__module__.startswith("jaxvae"):
            value.__new__.__module__ = value.__module__


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["site"]))
