"""Unsupervised anomaly localisation with variational auto-encoders in JAX.

Zimmerer et al., MICCAI 2019.

    state = init(model, config, hparams, key)
    state, metrics = fit(model, config, hparams, state, healthy_images, steps=10_000)
    maps = pixel_scores(model, state.params, new_images)
    anomaly = combine(maps)

__init__.pyi lists the public names and where they are defined. Each is imported when it is first used, so that
`import jaxvae` takes no time.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text())
_HOMES = {name.name: node.module for node in _STUB.body if isinstance(node, ast.ImportFrom) for name in node.names}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxvae' has no attribute {name!r}")
    home = import_module(str(_HOMES[name]))
    # A submodule becomes an attribute of its package when it is first imported.
    own = vars(home)
    globals()[name] = own[name] if name in own else import_module(f"{_HOMES[name]}.{name}")
    return globals()[name]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
