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
import pdoc.render

import jaxvae


def main(folder: Path) -> None:
    warnings.simplefilter("error")
    for module in pkgutil.walk_packages(jaxvae.__path__, "jaxvae."):
        if not module.name.endswith("__main__"):
            _name_constructors(importlib.import_module(module.name))
    # pdoc finds the modules among the public names itself; the others are listed.
    known = (*jaxvae.__all__, "cli", "__main__")
    others = [f"jaxvae.{module.name}" for module in pkgutil.iter_modules(jaxvae.__path__) if module.name not in known]
    pdoc.render.configure(docformat="google")
    pdoc.pdoc("jaxvae", *others, output_directory=folder)
    print(f"{folder / 'jaxvae.html'}: the API reference")


def _name_constructors(module: object) -> None:
    """Set the module of each named tuple's constructor, where pdoc looks up the annotations of its fields."""
    for value in vars(module).values():
        if isinstance(value, type) and hasattr(value, "_fields") and value.__module__.startswith("jaxvae"):
            value.__new__.__module__ = value.__module__


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["site"]))
