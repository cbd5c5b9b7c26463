"""The table of objectives: the name, the loss and the requirements of each.

An objective is a function `(model, params, images, key, *, log_scale) -> ElboTerms`. Training minimizes the mean of
beta * KL + NLL. To add one, write such a function in a module here and a line in the table, or call `add`. Importing
the table does not import JAX.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class NamedObjective:
    """One objective of the table.

    Args:
      name: in the command, in config.json and in Python.
      place: its module in `jaxvae.objectives` and its function, such as "elbo.elbo_terms".
      summary: what it is, in a few words.
      kl: whether it trains the posterior with a KL; without, a model has no scores of the KL and of the ELBO.
      networks: the names in `models.NETWORKS` that it needs; empty: any that fits `kl`.
      terms: the function, if it is not in a module of `jaxvae.objectives`.
      likelihood: the one that it trains with, for scores and validation; None: `elbo.gaussian_nll`.
    """

    name: str
    place: str = ""
    summary: str = ""
    kl: bool = True
    networks: tuple[str, ...] = ()
    terms: Callable[..., Any] | None = None
    likelihood: Callable[..., Any] | None = None

    def function(self) -> Callable[..., Any]:
        """The objective, imported when it is used."""
        module, _, name = self.place.partition(".")
        return self.terms or getattr(import_module(f"jaxvae.objectives.{module}"), name)


OBJECTIVES = {
    objective.name: objective
    for objective in (
        NamedObjective("vae", "elbo.elbo_terms", "the negative ELBO"),
        NamedObjective("autoencoder", "autoencoder.autoencoder_terms", "NLL at the mean of z", kl=False),
        NamedObjective("ce", "context.context_terms", "NLL of the image without its erased squares", kl=False),
        NamedObjective("cevae", "context.cevae_terms", "the mean of vae and ce"),
        NamedObjective("denoising", "denoising.denoising_terms", "NLL of the image without coarse noise", kl=False),
        NamedObjective(
            "two_stage", "learned_prior.two_stage_terms", "a second VAE as the prior", networks=("two_stage",)
        ),
    )
}


def add(objective: NamedObjective) -> None:
    """Add an objective to the table that the library and the commands read.

    Raises:
      ValueError: another objective has that name.
    """
    if objective.name in OBJECTIVES:
        raise ValueError(f"{objective.name}: there is an objective of this name; name another")
    OBJECTIVES[objective.name] = objective
