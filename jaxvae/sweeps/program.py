"""One program of a sweep: train its runs as a population, then test each."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae import sharding
from jaxvae.data.dataset import Splits
from jaxvae.evaluation import image_metrics
from jaxvae.metrics.ranking import pixel_metrics
from jaxvae.models.model import Model, param_shapes
from jaxvae.objectives.elbo import Likelihood
from jaxvae.parity import ARITHMETICS
from jaxvae.population.axes import Population, of_columns
from jaxvae.population.fit_many import compile_fit_many, fit_many
from jaxvae.population.score_many import compile_score_many, score_many
from jaxvae.progress import Bar
from jaxvae.runs.config import (
    Config,
    likelihood_of,
    model_from_config,
    objective_of,
    steps_per_epoch,
    terms_of,
    total_steps,
)
from jaxvae.runs.fitting import fit_states
from jaxvae.runs.score_names import maps_of
from jaxvae.runs.training import AUGMENTATIONS, VALIDATION_BATCH, validated_by, validation_elbo
from jaxvae.scores.batches import compile_score_batches, score_images
from jaxvae.sweeps.comparison import Row
from jaxvae.train import Hyperparams, TrainConfig, run_key
from jaxvae.types import Key, Params, SampleScores


class Shapes(NamedTuple):
    """What a program needs to know about its images to be compiled."""

    train: jax.ShapeDtypeStruct  # [N, H, W, C]
    validation: jax.ShapeDtypeStruct
    test: jax.ShapeDtypeStruct
    with_maps: bool  # whether maps are computed and compared with masks


def shapes_of(splits: Splits) -> Shapes:
    parts = (splits.train, splits.validation, splits.test)
    train, validation, test = (jax.ShapeDtypeStruct(it.images.shape, it.images.dtype) for it in parts)
    return Shapes(train, validation, test, _has_masks(splits))


class _Program(NamedTuple):
    """The arguments of `fit_many` and `score_many`, but for the images."""

    model: Model
    config: TrainConfig
    population: Population
    options: dict[str, Any]  # of `fit_many`
    keys: Key | None
    scoring: dict[str, Any]  # of `score_many`


def _program_of(config: Config, runs: Sequence[dict[str, Any]]) -> _Program:
    model, arithmetic = model_from_config(config["model"]), ARITHMETICS[config["arithmetic"]]
    axes = {name: [run[name] for run in runs] for name in runs[0]}
    if min(axes.get("latent_size", [model.latent_size])) == model.latent_size:
        axes.pop("latent_size", None)
    population, mesh = of_columns(axes, latents=model.latent_size), sharding.own_mesh(sharding.RUN)
    options = {"mesh": mesh, "objective": terms_of(config), "augment": AUGMENTATIONS[config["augment"]]}
    keys = jax.vmap(run_key)(population.seed) if arithmetic.at_draw else None
    scoring = {"log_scale": population.hparams.log_scale, "score": _image_scores(config), "mesh": mesh}
    return _Program(model, TrainConfig(**config["train"]), population, options, keys, scoring)


def _image_scores(config: Config) -> Callable[..., SampleScores]:
    """The function of the image scores: that of the run's arithmetic, with its likelihood."""
    rule = ARITHMETICS[config["arithmetic"]].sample_scores
    return rule if objective_of(config).likelihood is None else _with_likelihood(rule, likelihood_of(config))


@cache
def _with_likelihood(rule: Callable[..., SampleScores], likelihood: Likelihood) -> Callable[..., SampleScores]:
    """One function for each likelihood, so that it is compiled once."""
    return partial(rule, likelihood=likelihood)


def compile_program(config: Config, runs: Sequence[dict[str, Any]], shapes: Shapes) -> None:
    """Compile what `train_and_test` runs on images of these shapes, and run nothing.

    Call it in a thread while another program runs.
    """
    it, steps, epoch = _program_of(config, runs), total_steps(config), steps_per_epoch(config)
    states = None
    for length in {min(epoch, steps), steps % epoch} - {0}:
        states = compile_fit_many(it.model, it.config, it.population, shapes.train, steps=length, **it.options)
    assert states is not None
    compile_score_many(it.model, states.params, shapes.test, it.keys, **it.scoring)
    mesh, params = sharding.own_mesh(), param_shapes(it.model)
    if shapes.validation.shape[0] and validated_by(config) is None:
        compile_score_batches(it.model, params, shapes.validation, batch_size=VALIDATION_BATCH, maps=(), mesh=mesh)
    if shapes.with_maps:
        compile_score_batches(it.model, params, shapes.test, maps=maps_of(it.model, objective_of(config)), mesh=mesh)


def train_and_test(
    config: Config, runs: Sequence[dict[str, Any]], splits: Splits, maps: Sequence[str] = ()
) -> list[Row]:
    """Train several runs as one program, then test each of them.

    Args:
      config: the configuration of one run (`make_config`), with the largest latent_size of all.
      runs: seed, learning_rate, beta, log_scale and latent_size of each run.
      maps: scores of methods that each row has beside the others.
      splits: the images of `config`. Metrics of images need test images of both labels, those of pixels masks.

    Returns:
      One row per run: its settings, `loss` (mean over the last epoch) and `diverged`. Rows of runs that did not diverge
      have `validation_elbo` if there are validation images, and METRIC/SCORE such as `image_auroc/elbo`.
    """
    it, steps, epoch = _program_of(config, runs), total_steps(config), steps_per_epoch(config)
    images, mesh = jnp.asarray(splits.train.images), it.options["mesh"]
    if mesh is not None:
        images = sharding.replicate(images, mesh)  # Once, not in every epoch.
    states, losses = None, np.empty((len(runs), 0), np.float32)
    # One call per epoch, because Ctrl-C has an effect between two calls only.
    for start in Bar(range(0, steps, epoch), "epochs", leave=False):
        length = min(epoch, steps - start)
        states, metrics = fit_many(
            it.model, it.config, it.population, images, steps=length, states=states, **it.options
        )
        losses = np.concatenate([losses, metrics.loss], axis=1)[:, -epoch:]
    assert states is not None
    scores = score_many(it.model, states.params, jnp.asarray(splits.test.images), it.keys, **it.scoring)
    rows = []
    for r, run in enumerate(runs):
        loss = float(losses[r].mean())
        params, hparams = jax.tree.map(lambda leaf, r=r: leaf[r], (states.params, it.population.hparams))
        image_scores = {name: np.asarray(values[r]) for name, values in scores._asdict().items()}
        metrics = _metrics(config, params, hparams, image_scores, splits, maps) if np.isfinite(loss) else None
        rows.append({**run, "loss": loss, "diverged": metrics is None, **(metrics or {})})
    return rows


def _has_masks(splits: Splits) -> bool:
    """Whether the masks of the test images have pixels of both kinds."""
    masks = splits.test.masks
    return masks is not None and bool(masks.any()) and not masks.all()


def _metrics(
    config: Config,
    params: Params,
    hparams: Hyperparams,
    image_scores: dict[str, np.ndarray],
    splits: Splits,
    wanted: Sequence[str],
) -> dict[str, float] | None:
    """All metrics of one run; None if a score is not finite, as after a last update that diverged."""
    test, validation, maps, mesh = splits.test, {}, {}, sharding.own_mesh()
    model, objective = model_from_config(config["model"]), objective_of(config)
    image_scores = {name: it for name, it in image_scores.items() if objective.kl or name == "nll"}
    if len(splits.validation):
        # With beta 1, because objectives with different beta cannot be compared; without a KL that was not trained.
        plain = dataclasses.replace(hparams, beta=float(objective.kl))
        settings = {"objective": validated_by(config), "mesh": mesh}
        validation["validation_elbo"] = validation_elbo(model, params, splits.validation.images, plain, **settings)
    names = [*dict.fromkeys((*(maps_of(model, objective) if _has_masks(splits) else ()), *wanted))]
    if names:
        settings = {"log_scale": float(hparams.log_scale), "likelihood": likelihood_of(config)}
        states = fit_states(model, params, splits.train.images, wanted, **settings)
        scores = score_images(model, params, test.images, maps=names, mesh=mesh, states=states, **settings)
        maps = scores.maps if _has_masks(splits) else {}
        image_scores |= {name: scores.image_scores[name] for name in names if name not in scores.maps}
        if not maps:  # Without masks, the score of an image is the mean of its map.
            image_scores |= image_metrics.map_means(scores.maps)
    values = [*validation.values(), *image_scores.values(), *maps.values()]
    if not all(np.isfinite(each).all() for each in values):
        return None
    images = {}
    if test.labels.any() and not test.labels.all():
        for row in image_metrics.sample_rows(image_scores, test.labels, test.groups, resamples=0):
            images |= {f"image_{key}/{row['score']}": row[key] for key in ("auroc", "average_precision")}
    pixels = {}
    for name, scores in maps.items():
        found = pixel_metrics(scores, np.asarray(test.masks))
        pixels |= {f"pixel_{key}/{name}": getattr(found, key) for key in ("auroc", "average_precision", "best_dice")}
    return validation | images | pixels
