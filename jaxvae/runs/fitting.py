"""Fitting the scores that need statistics of healthy images, once per run."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxvae.data.dataset import Splits
from jaxvae.data.normalization import as_float
from jaxvae.errors import InputError
from jaxvae.models.model import Model
from jaxvae.ops.spacing import evenly_spaced
from jaxvae.progress import Bar
from jaxvae.runs import run_images, run_scores, score_names, score_states
from jaxvae.runs.config import likelihood_of
from jaxvae.runs.run import Run
from jaxvae.runs.score_states import State
from jaxvae.scores import METHODS
from jaxvae.types import Params

HEALTHY_BYTES = 2**30  # of the images that methods are fitted on, as float32


def fit_scores(
    run: Run,
    maps: Sequence[str],
    images: np.ndarray | Iterable[np.ndarray] | None = None,
    *,
    own: Callable[[], Splits] | None = None,
) -> None:
    """Fit the scores that need healthy images, and keep their states in the run.

    Args:
      maps: names of scores; those that need nothing are skipped.
      images: healthy images, as for `Run.score`; scores that are fitted already are fitted again. None: the images that
        the run was trained on, for the scores that are not fitted yet.
      own: loads the images of the run, if they may be loaded already.

    Raises:
      InputError: the run does not have one of the scores, its images are gone or have changed, the images do not fit
        it, a method's `fit` is wrong, or the run's folder cannot be written to.
    """
    score_names.check_maps(run.model, run.objective, maps)
    methods = score_states.methods_of(maps)
    if images is None:
        methods = [name for name in methods if score_states.read(run.run_dir, run.step, name) is None]
    if not methods:
        return
    if images is None:
        healthy = _own_images(run, methods, own or (lambda: run_images.open_own(run)))
    else:
        healthy = run_scores.prepare_images(run, images)
    settings = {"log_scale": run.config["hparams"]["log_scale"], "likelihood": likelihood_of(run.config)}
    for name, state in _fitted(run.model, run.params, healthy, Bar(methods, "fit", unit="method"), settings):
        score_states.write(run.run_dir, run.step, name, state)


def _own_images(run: Run, methods: Sequence[str], own: Callable[[], Splits]) -> np.ndarray:
    try:
        return own().train.images
    except InputError as error:
        names = ", ".join(score.name for name in methods for score in METHODS[name].scores)
        raise InputError(f"{error}; or leave out {names}, which the run's healthy images are needed for") from error


def fit_states(
    model: Model, params: Params, images: np.ndarray, maps: Sequence[str], **settings: Any
) -> dict[str, State]:
    """The states of the methods of these scores that need healthy images, by method.

    Args:
      images: healthy images, [N, H, W, C], uint8 or float. The methods get float images, and of very many an evenly
        spaced part.
      settings: log_scale and likelihood, as of `score_batches`.

    Raises:
      InputError: a method's `fit` returns something else than a dictionary of finite numbers.
    """
    return dict(_fitted(model, params, images, score_states.methods_of(maps), settings))


def _fitted(
    model: Model, params: Params, images: np.ndarray, methods: Iterable[str], settings: Mapping[str, Any]
) -> Iterable[tuple[str, State]]:
    """Each method with its state, one after the other."""
    healthy = None
    for name in methods:
        if healthy is None:
            most = max(1, HEALTHY_BYTES // (4 * math.prod(images.shape[1:])))
            healthy = as_float(images[evenly_spaced(len(images), most)] if len(images) > most else images)
        fit = METHODS[name].function("fit")
        yield name, _checked(name, fit(model, params, healthy, **settings))


def _checked(method: str, state: Any) -> State:
    """Check what a method's `fit` returned."""
    if not isinstance(state, Mapping):
        raise InputError(f"{method}: its fit gave {type(state).__name__}; return a dictionary of arrays")
    for path, leaf in jax.tree.leaves_with_path(dict(state)):
        name, array = jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf)
        if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
            raise InputError(f"{method}: its fit gave {name} of type {array.dtype}; return arrays of numbers")
        if not np.isfinite(array).all():
            raise InputError(f"{method}: its fit gave NaN or infinity in {name}; look at the healthy images")
    return dict(state)
