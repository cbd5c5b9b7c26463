"""Unsupervised anomaly localisation with variational auto-encoders (Zimmerer et al., MICCAI 2019), in JAX.

    state = init(model, config, hparams, key)
    state, metrics = fit(model, config, hparams, state, healthy_images, steps=10_000)
    maps = pixel_scores(model, state.params, new_images)
    anomaly = combine(maps)

Names are imported when they are first used, so that `import jaxvae` and `jaxvae --help` cost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jaxvae import data as data
    from jaxvae import metrics as metrics
    from jaxvae import parity as parity
    from jaxvae import sharding as sharding
    from jaxvae.errors import InputError as InputError
    from jaxvae.evaluation import image_metrics as evaluation  # noqa: F401
    from jaxvae.evaluation import postprocessing as postprocessing
    from jaxvae.metrics import auroc as auroc
    from jaxvae.metrics import average_precision as average_precision
    from jaxvae.metrics import best_dice as best_dice
    from jaxvae.metrics import healthy_threshold as healthy_threshold
    from jaxvae.models import ConvVAE as ConvVAE
    from jaxvae.models import DenseVAE as DenseVAE
    from jaxvae.models import Model as Model
    from jaxvae.models import decode as decode
    from jaxvae.models import encode as encode
    from jaxvae.models import reparameterize as reparameterize
    from jaxvae.objectives.elbo import Likelihood as Likelihood
    from jaxvae.objectives.elbo import elbo_terms as elbo_terms
    from jaxvae.objectives.elbo import gaussian_kl as gaussian_kl
    from jaxvae.objectives.elbo import gaussian_nll as gaussian_nll
    from jaxvae.objectives.elbo import negative_elbo as negative_elbo
    from jaxvae.ops import filters as filters
    from jaxvae.population.axes import Runs as Runs
    from jaxvae.population.axes import grid as grid
    from jaxvae.population.fit_many import fit_many as fit_many
    from jaxvae.population.fit_many import score_many as score_many
    from jaxvae.runs.checkpoint import Run as Run
    from jaxvae.runs.checkpoint import load as load
    from jaxvae.runs.checkpoint import restore as restore
    from jaxvae.runs.checkpoint import save as save
    from jaxvae.scores.batches import BatchScores as BatchScores
    from jaxvae.scores.batches import score_batch as score_batch
    from jaxvae.scores.batches import score_batches as score_batches
    from jaxvae.scores.combine import combine as combine
    from jaxvae.scores.gradients import pixel_scores as pixel_scores
    from jaxvae.scores.gradients import sample_scores as sample_scores
    from jaxvae.train import Augment as Augment
    from jaxvae.train import Hyperparams as Hyperparams
    from jaxvae.train import Objective as Objective
    from jaxvae.train import TrainConfig as TrainConfig
    from jaxvae.train import TrainState as TrainState
    from jaxvae.train import fit as fit
    from jaxvae.train import init as init
    from jaxvae.train import step as step
    from jaxvae.train import train_step as train_step
    from jaxvae.types import ElboTerms as ElboTerms
    from jaxvae.types import PixelScores as PixelScores
    from jaxvae.types import Posterior as Posterior
    from jaxvae.types import SampleScores as SampleScores
    from jaxvae.types import StepMetrics as StepMetrics

_MODULES = {
    "data": "data",
    "evaluation": "evaluation.image_metrics",
    "filters": "ops.filters",
    "metrics": "metrics",
    "parity": "parity",
    "postprocessing": "evaluation.postprocessing",
    "sharding": "sharding",
}
_NAMES = {
    "errors": ("InputError",),
    "metrics": ("auroc", "average_precision", "best_dice", "healthy_threshold"),
    "models": ("ConvVAE", "DenseVAE", "Model", "decode", "encode", "reparameterize"),
    "objectives.elbo": ("Likelihood", "elbo_terms", "gaussian_kl", "gaussian_nll", "negative_elbo"),
    "population.axes": ("Runs", "grid"),
    "population.fit_many": ("fit_many", "score_many"),
    "runs.checkpoint": ("Run", "load", "restore", "save"),
    "scores.batches": ("BatchScores", "score_batch", "score_batches"),
    "scores.combine": ("combine",),
    "scores.gradients": ("pixel_scores", "sample_scores"),
    "train": ("Augment", "Hyperparams", "Objective", "TrainConfig", "TrainState", "fit", "init", "step", "train_step"),
    "types": ("ElboTerms", "PixelScores", "Posterior", "SampleScores", "StepMetrics"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted([*_MODULES, *_HOMES])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"jaxvae.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"jaxvae.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'jaxvae' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
