"""The table of models: the name, the class and the paper's settings of each.

A model is a frozen, hashable value: two with equal fields are equal and share one compiled program. To add one, write a
Flax module with the methods of `models.model.Model`, and a line here. Importing the table does not import JAX.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxvae.models.model import Model


@dataclass(frozen=True)
class Network:
    """One model of the table; called with its fields, it makes the model.

    Args:
      name: in the command and in Python; the class is in the module of this name.
      class_name: in config.json.
      widths: its fields that count units or channels.
      latent_size, batch_size, learning_rate: the paper's.
      arithmetics: the names in `parity.ARITHMETICS` that it can be trained with.
    """

    name: str
    class_name: str
    widths: tuple[str, ...]
    latent_size: int
    batch_size: int
    learning_rate: float
    arithmetics: tuple[str, ...] = ("corrected",)

    def __call__(self, *args: Any, **fields: Any) -> Model:
        return getattr(import_module(f"jaxvae.models.{self.name}"), self.class_name)(*args, **fields)


NETWORKS = {
    network.name: network
    for network in (
        Network("dense", "DenseVAE", ("hidden_size",), 20, 128, 1e-3, arithmetics=("corrected", "released")),
        Network("conv", "ConvVAE", ("features",), 256, 64, 1e-4),
    )
}
MODELS = {network.class_name: network for network in NETWORKS.values()}  # as config.json names them
