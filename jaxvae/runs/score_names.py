"""Which scores a run has: those that go with its model and its objective."""

from collections.abc import Sequence

from jaxvae.errors import ArgumentError
from jaxvae.models.model import Model, has_latent, has_own_prior
from jaxvae.objectives import NamedObjective
from jaxvae.scores import MAPS, METHODS, SCORES, known_maps


def lack(name: str, model: Model, objective: NamedObjective) -> str | None:
    """Why a run has no score of that name; None if it has it.

    >>> import jaxvae
    >>> from jaxvae.objectives import OBJECTIVES
    >>> lack("kl_grad", jaxvae.DenseVAE((28, 28, 1)), OBJECTIVES["denoising"])
    'needs a KL, and `objective` denoising has none'
    """
    score = SCORES[name]
    needs = METHODS[score.method].needs if score.method else ()
    if score.gradient in ("kl_grad", "elbo_grad"):
        needs = ("kl",)
    if {"latent", "kl", "normal_prior"} & {*needs} and not has_latent(model):
        return f"needs a latent, and the run's model is {type(model).__name__}"
    if "kl" in needs and not objective.kl:
        return f"needs a KL, and `objective` {objective.name} has none"
    if "normal_prior" in needs and has_own_prior(model):
        return f"needs the prior N(0, I), and the run's model is {type(model).__name__}"
    if "dropout" in needs and not getattr(model, "dropout", 0.0):
        return "needs dropout, and the run has `dropout` 0"
    return None


def maps_of(model: Model, objective: NamedObjective, maps: Sequence[str] = MAPS) -> tuple[str, ...]:
    """Those of the maps that a run has."""
    return tuple(name for name in maps if lack(name, model, objective) is None)


def check_maps(model: Model, objective: NamedObjective, maps: Sequence[str]) -> None:
    """Raise ArgumentError if a score is unknown, or if the run does not have it."""
    if isinstance(maps, str):
        raise ArgumentError("maps", maps, f"is one name; give a tuple, ({maps!r},)")
    for name in maps:
        problem = "is unknown" if name not in known_maps() else lack(name, model, objective)
        if problem is not None:
            fits = ", ".join(maps_of(model, objective, known_maps()))
            raise ArgumentError("maps", name, f"{problem}; choose from {fits}")
