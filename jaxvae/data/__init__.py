"""Sources of images.

Each module returns `dataset.Dataset` records and is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxvae.data import dataset, fashion_mnist, images, phantom, volumes

__all__ = ["dataset", "fashion_mnist", "images", "phantom", "volumes"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'jaxvae.data' has no attribute {name!r}")
    return import_module(f"jaxvae.data.{name}")


def __dir__() -> list[str]:
    return __all__
