"""Fitting the scores that need statistics of healthy images, once per run."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxvae import files
from jaxvae.data.dataset import Splits
from jaxvae.data.normalization import as_float
from jaxvae.models.model import Model
from jaxvae.objectives.elbo import gaussian_nll
from jaxvae.progress import Bar
from jaxvae.runs import run_images, score_names, score_states
from jaxvae.runs.run import Run
from jaxvae.runs.score_states import State
from jaxvae.scores import METHODS
from jaxvae.types import Params

HEALTHY_BYTES = 2**30  # of the images that methods are fitted on, as float32


def fit_scores(
    run: Run,
    maps: Sequence[str],
    images: np.ndarray | None = None,
    *,
    own: Callable[[], Splits] | None = None,
) -> None:
    """Fit the scores that need healthy images and are not fitted yet, and keep their states in the run.

    Args:
      maps: names of scores; those that need nothing are skipped.
      images: healthy images, prepared as the run's own, [N, H, W, C]; None: the images that the run was trained on.
      own: loads the images of the run, if they may be loaded already.

    Raises:
      InputError: the run does not have one of the scores, its images are gone or have changed, or its folder cannot be
        written to.
    """
    score_names.check_maps(run.model, run.objective, maps)
    missing = [name for name in score_states.methods_of(maps) if score_states.read(run.run_dir, run.step, name) is None]
    if not missing:
        return
    if images is None:
        images = (own() if own else run_images.open_own(run)).train.images
    with files.locked(run.run_dir):
        for name in Bar(missing, "fit", unit="method"):
            scores = [score.name for score in METHODS[name].scores]
            states = fit_states(run.model, run.params, images, scores, log_scale=run.config["hparams"]["log_scale"])
            score_states.write(run.run_dir, run.step, name, states[name])


def fit_states(
    model: Model, params: Params, images: np.ndarray, maps: Sequence[str], *, log_scale: float
) -> dict[str, State]:
    """The states of the methods of these scores, by method; empty if none needs healthy images.

    Args:
      images: healthy images, [N, H, W, C], uint8 or float. The methods get float images, and of very many an evenly
        spaced part.
      log_scale: of the decoder.
    """
    most = max(1, HEALTHY_BYTES // (4 * math.prod(images.shape[1:])))
    if len(images) > most:
        images = images[np.linspace(0, len(images) - 1, most).astype(int)]
    images, settings = as_float(images), {"log_scale": log_scale, "likelihood": gaussian_nll}
    functions = {name: METHODS[name].function("fit") for name in score_states.methods_of(maps)}
    return {name: dict(fit(model, params, images, **settings)) for name, fit in functions.items()}
