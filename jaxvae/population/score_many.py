"""Score images with many runs as one program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from jaxvae.models.model import Model
from jaxvae.scores.gradients import sample_scores
from jaxvae.sharding import cut, filled, replicate, shared_out, spread
from jaxvae.types import Array, Key, Params, SampleScores

AT_ONCE = 1000  # Images scored with one key for their draws of z: the released scores depend on this number.
Trained = tuple[Params, Key | None, Array]  # parameters, key and log_scale, leaves [R, ...]


def score_many(
    model: Model,
    params: Params,
    images: Array,
    keys: Key | None = None,
    *,
    log_scale: float | Array = 0.0,
    batch_size: int = AT_ONCE,
    score: Callable[..., SampleScores] = sample_scores,
    mesh: Mesh | None = None,
) -> SampleScores:
    """`sample_scores` of the same images for each run, as one program.

    Args:
      params: leaves [R, ...], as `fit_many` returns them.
      images: [N, H, W, C].
      keys: [R]. The key of a run and the number of a batch give the draws of z. None scores at z = mean.
      log_scale: one number, or [R].
      batch_size: images at a time; smaller needs less memory.
      score: another function of (model, params, images, key, log_scale=...), static.
      mesh: from `sharding.run_mesh`; the runs are spread over its devices.

    Returns:
      [R, N] each.

    Raises:
      ValueError: a batch_size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    count = len(jax.tree.leaves(params)[0])
    if len(images) == 0:
        return SampleScores(*jnp.zeros((3, count, 0)))
    runs, images = _placed(params, keys, log_scale, images, mesh)
    return cut(_score_many(model, runs, images, batch_size=batch_size, score=score, mesh=mesh), count, mesh)


def compile_score_many(
    model: Model,
    params: Params,
    images: Array | jax.ShapeDtypeStruct,
    keys: Key | None = None,
    *,
    log_scale: float | Array = 0.0,
    batch_size: int = AT_ONCE,
    score: Callable[..., SampleScores] = sample_scores,
    mesh: Mesh | None = None,
) -> None:
    """Compile the program of `score_many`: a later call with these arguments compiles nothing.

    Args:
      params: those of `compile_fit_many`.
      images: the images or their shape and dtype.
      keys, log_scale, batch_size, score, mesh: see `score_many`.
    """
    if images.shape[0]:
        runs, images = _placed(params, keys, log_scale, images, mesh)
        _score_many.lower(model, runs, images, batch_size=batch_size, score=score, mesh=mesh).compile()


def _placed(
    params: Params, keys: Key | None, log_scale: float | Array, images: Any, mesh: Mesh | None
) -> tuple[Trained, Any]:
    """The arguments of `_score_many` on the devices."""
    count = jax.tree.leaves(params)[0].shape[0]
    runs = params, keys, jnp.broadcast_to(log_scale, (count,))
    return (runs, images) if mesh is None else (spread(filled(runs, count, mesh), mesh), replicate(images, mesh))


@jax.jit(static_argnames=("model", "batch_size", "score", "mesh"))
def _score_many(
    model: Model, runs: Trained, images: Array, *, batch_size: int, score: Callable[..., Any], mesh: Mesh | None
) -> SampleScores:
    count, batch_size = len(images), min(batch_size, len(images))
    numbers = jnp.arange(-(-count // batch_size))

    def one(run: Trained, images: Array) -> SampleScores:
        params, key, log_scale = run

        def batch(number: Array) -> SampleScores:
            # The last batch is padded with the first images.
            place = (number * batch_size + jnp.arange(batch_size)) % count
            draw = None if key is None else jax.random.fold_in(key, number)
            return score(model, params, images[place], draw, log_scale=log_scale)

        return jax.tree.map(lambda values: values.reshape(-1)[:count], lax.map(batch, numbers))

    scored = shared_out(lambda runs, images: lax.map(lambda run: one(run, images), runs), mesh, whole=(False, True))
    return scored(runs, images)
