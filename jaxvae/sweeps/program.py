"""One program of a sweep: its runs, trained as a population and judged one by one."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae import sharding
from jaxvae.data.dataset import Splits
from jaxvae.evaluation import image_metrics
from jaxvae.metrics.ranking import pixel_metrics
from jaxvae.models import Model
from jaxvae.parity import ARITHMETICS
from jaxvae.population.axes import of_columns
from jaxvae.population.fit_many import fit_many, score_many
from jaxvae.progress import Bar
from jaxvae.runs.training import validation_elbo
from jaxvae.scoring.results import score_images
from jaxvae.train import Augment, Hyperparams, TrainConfig, run_key
from jaxvae.types import Params

Row = dict[str, Any]


def train_and_judge(
    model: Model,
    config: TrainConfig,
    runs: Sequence[dict[str, Any]],
    splits: Splits,
    epochs: int,
    arithmetic: str = "corrected",
    augment: Augment | None = None,
) -> list[Row]:
    """A row a run: its settings, its last loss, whether it diverged, and how well it finds what is wrong.

    Args:
      model: with the largest latent_size of the runs.
      runs: seed, learning_rate, beta, log_scale and latent_size of each.
      splits: trained on `train`; judged by `test`, images where they have labels of both kinds, pixels where masks; the
        ELBO is that of `validation`, where there is any.
      epochs: times to go through the training images.
      augment: see `step`.
    Returns:
      Rows with the keys of the run, `loss` (the mean of the last epoch) and `diverged`; of a run that did not,
      `validation_elbo` and METRIC/SCORE such as `image_auroc/elbo`.
    """
    axes = {name: [run[name] for run in runs] for name in runs[0]}
    if min(axes["latent_size"]) == model.latent_size:
        del axes["latent_size"]
    population = of_columns(axes, latents=model.latent_size)
    images, mesh = jnp.asarray(splits.train.images), sharding.own_mesh(sharding.RUN)
    if mesh is not None:
        images = sharding.replicate(images, mesh)  # Once, not an epoch.
    epoch = len(images) // config.batch_size
    states, metrics = None, None
    # An epoch at a time, in between which Ctrl-C is heard.
    for _ in Bar(range(epochs), "epochs", leave=False):
        states, metrics = fit_many(
            model,
            config,
            population,
            images,
            steps=epoch,
            states=states,
            mesh=mesh,
            objective=ARITHMETICS[arithmetic].objective,
            augment=augment,
        )
    assert states is not None
    assert metrics is not None
    scores = score_many(
        model,
        states.params,
        jnp.asarray(splits.test.images),
        jax.vmap(run_key)(population.seed) if ARITHMETICS[arithmetic].at_draw else None,
        log_scale=population.hparams.log_scale,
        score=ARITHMETICS[arithmetic].sample_scores,
        mesh=mesh,
    )
    losses = np.asarray(metrics.loss)
    rows = []
    for r, run in enumerate(runs):
        loss = float(losses[r].mean())
        params, hparams = jax.tree.map(lambda leaf, r=r: leaf[r], (states.params, population.hparams))
        of_images = {name: np.asarray(values[r]) for name, values in scores._asdict().items()}
        found = _judged(model, params, hparams, of_images, splits) if np.isfinite(loss) else None
        rows.append({**run, "loss": loss, "diverged": found is None, **(found or {})})
    return rows


def _judged(
    model: Model, params: Params, hparams: Hyperparams, of_images: dict[str, np.ndarray], splits: Splits
) -> dict[str, float] | None:
    """The metrics of a run; None where one of its scores is no number, which a last update may bring about."""
    validation = {}
    if len(splits.validation):
        # With beta 1: by what each was trained for, settings of beta could not be compared.
        plain = dataclasses.replace(hparams, beta=1.0)
        validation["validation_elbo"] = validation_elbo(model, params, splits.validation.images, plain)
    maps = {}
    if splits.test.masks is not None and splits.test.masks.any() and not splits.test.masks.all():
        maps = score_images(model, params, splits.test.images, log_scale=float(hparams.log_scale)).maps
    if not all(np.isfinite(values).all() for values in [*validation.values(), *of_images.values(), *maps.values()]):
        return None
    return validation | _images(of_images, splits) | _pixels(maps, splits.test.masks)


def _images(scores: dict[str, np.ndarray], splits: Splits) -> dict[str, float]:
    test = splits.test
    if not test.labels.any() or test.labels.all():
        return {}
    found = image_metrics.sample_rows(scores, test.labels, test.groups, resamples=0)
    kept = ("auroc", "average_precision")
    return {f"image_{key}/{row['score']}": row[key] for row, key in itertools.product(found, kept)}


def _pixels(maps: dict[str, np.ndarray], masks: Any) -> dict[str, float]:
    """Of the maps, which are none where there are no masks."""
    found = {name: pixel_metrics(scores, masks) for name, scores in maps.items()}
    kept = ("auroc", "average_precision", "best_dice")
    return {f"pixel_{key}/{name}": getattr(row, key) for name, row in found.items() for key in kept}
