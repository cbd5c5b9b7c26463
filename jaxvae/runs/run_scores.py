"""Scores of images by a trained run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae import sharding
from jaxvae.data import kinds
from jaxvae.data.dataset import Dataset
from jaxvae.data.images.preparation import prepare
from jaxvae.data.normalization import as_float
from jaxvae.errors import InputError, counted
from jaxvae.machine import product_precision
from jaxvae.parity import ARITHMETICS
from jaxvae.population.score_many import score_many
from jaxvae.progress import Bar
from jaxvae.runs import score_names, score_states
from jaxvae.runs.config import likelihood_of
from jaxvae.scores import IMAGE_SCORES
from jaxvae.scores.batches import Scores, score_images
from jaxvae.train import run_key

if TYPE_CHECKING:
    from jaxvae.runs.run import Run


def score_dataset(
    run: Run,
    dataset: Dataset,
    *,
    maps: Sequence[str] | None = None,
    reconstructions: bool = True,
    batch_size: int | None = None,
    label: str = "score",
) -> Scores:
    """Score the images of a data set that was prepared as the run's own images.

    Args:
      maps: names of `scores.known_maps`; None: the run's `maps`.
      reconstructions: return these too, if there are maps.
      batch_size: images at a time, on each device of this process; see `score_batches`.
      label: of the progress bar, which shows on a terminal only.

    Raises:
      InputError: a score is NaN or infinite, because the values of an image are far out of range.
    """
    maps = run.maps if maps is None else maps
    with Bar(total=len(dataset), unit="image", desc=label) as bar:
        settings = {"reconstructions": reconstructions and bool(maps), "batch_size": batch_size, "progress": bar.update}
        return score_finite(run, dataset.images, dataset.names, maps=maps, **settings)


def score_finite(run: Run, images: np.ndarray, names: Sequence[str], *, maps: Sequence[str], **settings) -> Scores:
    """`score_prepared`, but InputError is raised if a score is NaN or infinite."""
    scores = score_prepared(run, images, maps=maps, **settings)
    _, reasons = finite_rows({**scores.image_scores, **scores.maps}, names)
    if reasons:
        raise InputError(next(iter(reasons.values())))
    return scores


def prepare_images(run: Run, images: np.ndarray | Iterable[np.ndarray]) -> np.ndarray:
    """Images as the model of a run takes them, [N, H, W, C].

    Images for a run on a folder of images are resized and normalised, and their channels are selected. Images for other
    runs stay as they are.

    Raises:
      InputError: there is no image, an image is neither uint8 nor float, or it has another shape once prepared.
    """
    preparation = kinds.preparation(run.source) if run.kind is kinds.IMAGES else None
    prepared: list[np.ndarray] = []
    for i, image in enumerate(images):
        image, name = np.asarray(image), f"images[{i}]"
        if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
            raise InputError(f"{name}: has type {image.dtype}; give uint8, which is divided by 255, or float")
        if image.ndim not in (2, 3):
            raise InputError(f"{name}: has shape {image.shape}; give images of shape (H, W, C) or (H, W)")
        image = image[..., None] if image.ndim == 2 else image
        image = image if preparation is None else prepare(image, preparation)
        check_shape(run, image[None], name)
        prepared.append(image if image.dtype == np.uint8 else image.astype(np.float32, copy=False))
    if not prepared:
        raise InputError("images: there is none; give at least one")
    same = len({image.dtype for image in prepared}) == 1
    return np.stack(prepared if same else [as_float(image) for image in prepared])


def batch_settings(run: Run, maps: Sequence[str]) -> dict[str, Any]:
    """The settings of `scores.batches.score_batches` for scores of a run.

    Raises:
      InputError: the run does not have one of the scores, or it is not fitted.
    """
    score_names.check_maps(run.model, run.objective, maps)
    states = score_states.read_all(run.run_dir, run.step, maps)
    return {
        "log_scale": run.config["hparams"]["log_scale"],
        "likelihood": likelihood_of(run.config),
        "maps": maps,
        "mesh": sharding.own_mesh(),
        "states": states,
    }


def with_kl_of(run: Run, image_scores: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of whole images, with a KL of 0 if the run was trained without one."""
    if run.objective.kl:
        return dict(image_scores)
    return {**image_scores, "elbo": image_scores["nll"], "kl": np.zeros_like(image_scores["kl"])}


def score_prepared(run: Run, images: np.ndarray, *, maps: Sequence[str], **settings) -> Scores:
    """Score prepared images with a run's model, log scale and arithmetic.

    The released arithmetic computes image scores by its own rule, at a draw of z.

    Args:
      images: [N, H, W, C], uint8 or float.
      maps: names of `scores.known_maps`.
      settings: reconstructions, batch_size and progress of `scores.batches.score_images`.

    Raises:
      InputError: as `batch_settings`.
    """
    of_run = batch_settings(run, maps)
    log_scale, arithmetic = of_run["log_scale"], ARITHMETICS[run.config["arithmetic"]]
    scores = score_images(run.model, run.params, images, **of_run, **settings)
    if not arithmetic.at_draw:
        return replace(scores, image_scores=with_kl_of(run, scores.image_scores))
    # As in a sweep, where the runs are a population: the draws depend on the run's seed and the image's position.
    params, keys = jax.tree.map(lambda leaf: leaf[None], (run.params, run_key(run.config["seed"])))
    on_device, rule = jnp.asarray(images), arithmetic.sample_scores
    at_draw = score_many(run.model, params, on_device, keys, log_scale=log_scale, score=rule)
    drawn = dict(zip(IMAGE_SCORES, np.stack(at_draw)[:, 0], strict=True))
    return replace(scores, image_scores=scores.image_scores | drawn)


def score_precision(run: Run) -> dict[str, str]:
    """The precision in which `score_prepared` computes maps and image scores on this machine."""
    default = product_precision(getattr(run.model, "dtype", jnp.float32))
    exact = ARITHMETICS[run.config["arithmetic"]].at_draw  # `parity` has its own precision.
    return {"maps": default, "image_scores": "float32" if exact else default}


def finite_rows(scores: Mapping[str, np.ndarray], names: Sequence[str]) -> tuple[np.ndarray, dict[int, str]]:
    """[N] bool: images with finite scores only; and error messages of the rest."""
    reasons: dict[int, str] = {}
    way_out = "bring its values into the range of the training images, or leave it out"
    for score, values in scores.items():
        for i in np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))).tolist():
            reasons.setdefault(i, f"{names[i]}: {score} is NaN or infinite; {way_out}")
    return np.array([i not in reasons for i in range(len(names))], dtype=bool), reasons


def check_shape(run: Run, images: np.ndarray, where: str) -> None:
    """Raise InputError if prepared images do not fit the run's model."""
    shapes = tuple(images.shape[1:]), tuple(run.model.image_shape)
    if shapes[0] != shapes[1]:
        found, wanted = (f"{height}x{width} with {counted(count, 'channel')}" for height, width, count in shapes)
        raise InputError(
            f"{where}: the images are {found} once prepared, and the run was trained on {wanted}; "
            "bring them to that size and those channels, or train a run with another `size` and `channels`"
        )
