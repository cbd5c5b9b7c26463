"""Where images come from. Each module stands alone and returns `dataset.Dataset` records of NumPy arrays.

They are imported when they are first used: `jaxvae.data.phantom.load()`.
"""

from importlib import import_module
from types import ModuleType

__all__ = ["dataset", "fashion_mnist", "images", "phantom", "volumes"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module 'jaxvae.data' has no attribute {name!r}")
    return import_module(f"jaxvae.data.{name}")


def __dir__() -> list[str]:
    return __all__
