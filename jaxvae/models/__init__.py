"""The table of models: the name, the class and the paper's settings of each.

A model is a frozen, hashable value: two with equal fields are equal and share one compiled program. To add one, write a
Flax module with the methods of `models.model.Model` and a line here, or call `add`. Importing the table does not import
JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
      settings: its fields that are settings of a run, beside latent_size, with their defaults.
      latent_size, batch_size, learning_rate: the paper's; a latent_size of 0 for a model without a latent.
      arithmetics: the names in `parity.ARITHMETICS` that it can be trained with.
      latent: whether it has one; without, it is trained with an objective without a KL.
      learns_scale: whether it always learns the decoder's scale, so that log_scale has no effect.
      objective: the one it is trained with by default.
      make: its class, if that is not in a module of `jaxvae.models`.
    """

    name: str
    class_name: str
    settings: Mapping[str, Any]
    latent_size: int
    batch_size: int
    learning_rate: float
    arithmetics: tuple[str, ...] = ("corrected",)
    latent: bool = True
    learns_scale: bool = False
    objective: str = "vae"
    make: Callable[..., Model] | None = None

    def __call__(self, *args: Any, **fields: Any) -> Model:
        make = self.make or getattr(import_module(f"jaxvae.models.{self.name}"), self.class_name)
        return make(*args, **fields)


_GENERAL = {"dropout": 0.0, "decoder_scale": "fixed"}
NETWORKS = {
    network.name: network
    for network in (
        Network("dense", "DenseVAE", {"hidden_size": 400, **_GENERAL}, 20, 128, 1e-3, ("corrected", "released")),
        Network("conv", "ConvVAE", {"features": (16, 32, 64, 256), **_GENERAL}, 256, 64, 1e-4),
        Network("spatial", "SpatialVAE", {"features": (32, 64, 128), **_GENERAL}, 128, 8, 1e-4),
        Network(
            "two_stage", "TwoStageVAE", {"hidden_size": 400}, 64, 64, 1e-4, learns_scale=True, objective="two_stage"
        ),
        Network("unet", "UNet", {"features": (64, 128, 256, 512)}, 0, 16, 1e-4, latent=False, objective="denoising"),
    )
}
MODELS = {network.class_name: network for network in NETWORKS.values()}  # as config.json names them


def add(network: Network) -> None:
    """Add a model to the tables that the library and the commands read.

    Raises:
      ValueError: another model has that name.
    """
    for name, table in ((network.name, NETWORKS), (network.class_name, MODELS)):
        if name in table:
            raise ValueError(f"{name}: there is a model of this name; name another")
    NETWORKS[network.name] = MODELS[network.class_name] = network
