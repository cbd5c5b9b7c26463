"""Many runs as one program: all combinations of seeds, hyperparameters, held-out classes and sizes of the latent.

    runs = grid(seed=range(3), learning_rate=[1e-3, 1e-4])
    states, metrics = fit_many(model, config, runs, images, steps=10_000)
    scores = score_many(model, states.params, images, log_scale=runs.hparams.log_scale)

Every run of a population equals, to float tolerance, the same run on its own. What changes shapes (the images, the
features, the batch) is an outer loop in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from jaxvae.errors import InputError
from jaxvae.models import Model, param_shapes
from jaxvae.objectives.elbo import elbo_terms
from jaxvae.population.axes import Runs
from jaxvae.scores.gradients import AT_ONCE, sample_scores
from jaxvae.sharding import replicate, shared_out, spread
from jaxvae.train import Augment, Hyperparams, Objective, TrainConfig, TrainState, advance, init, run_key
from jaxvae.types import Array, ElboTerms, Key, Params, SampleScores, StepMetrics

Member = tuple[Runs, tuple[Params, Any, Key]]  # a run, and where it stands: parameters, Adam's moments, key
Tree = TypeVar("Tree")


def init_many(model: Model, config: TrainConfig, runs: Runs) -> TrainState:
    """The states before the first step, leaves [R]; those of a smaller latent padded with zeros.

    With zeros for its kernels a latent has mean 0, log_std 0 and so no KL, and moves nothing in the image.
    """
    if runs.latent_mask is None:
        return jax.vmap(lambda seed: init(model, config, Hyperparams(), run_key(seed)))(runs.seed)
    if runs.latent_mask.shape[1] != model.latent_size:
        raise InputError(
            f"the largest latent_size is {runs.latent_mask.shape[1]} and the model's {model.latent_size}; "
            "build the model with the largest"
        )
    sizes = np.asarray(runs.latent_mask).sum(axis=1)
    like = jax.eval_shape(lambda: init(model, config, Hyperparams(), run_key(0)))
    parts = []
    for size in np.unique(sizes):
        smaller = model.clone(latent_size=int(size))
        states = init_many(smaller, config, replace(runs[sizes == size], latent_mask=None))
        parts.append(jax.tree.map(lambda leaf, whole, size=size: _padded(leaf, whole, int(size)), states, like))
    order = np.argsort(np.concatenate([np.flatnonzero(sizes == size) for size in np.unique(sizes)]))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *parts)


def _padded(leaf: Array, whole: jax.ShapeDtypeStruct, size: int) -> Array:
    """[R, ...] of a smaller latent in the shape of a larger one; of an axis of 2 Z, each half is padded."""
    for axis, (have, want) in enumerate(zip(leaf.shape[1:], whole.shape, strict=True), start=1):
        if have != want:
            halves = leaf.reshape(*leaf.shape[:axis], have // size, size, *leaf.shape[axis + 1 :])
            pads = [(0, 0)] * halves.ndim
            pads[axis + 1] = (0, (want - have) // (have // size))
            leaf = jnp.pad(halves, pads).reshape(leaf.shape[0], *whole.shape)
    return leaf


def fit_many(
    model: Model,
    config: TrainConfig,
    runs: Runs,
    images: Array,
    *,
    steps: int,
    states: TrainState | None = None,
    mesh: Mesh | None = None,
    objective: Objective = elbo_terms,
    augment: Augment | None = None,
    together: int | None = None,
) -> tuple[TrainState, StepMetrics]:
    """`fit` for every run of a population, as one program.

    A run whose loss or gradient stops being finite keeps the parameters it had and has NaN for its metrics from then
    on; no other run notices. Two calls of 10 steps, the second with the states of the first, equal one of 20.

    Args:
      model: with the largest latent_size of the runs.
      images: the data set, [N, H, W, C], uint8 or float, shared by all.
      steps: S.
      states: what an earlier call returned, to go on from; consumed. None begins with `init_many`.
      mesh: from `sharding.run_mesh`; the runs are spread over its devices.
      objective, augment: see `step`.
      together: how many runs each device trains side by side. By default all on an accelerator, where one small run
        does not fill it, and one after the other on a processor, whose caches hold no more than one.
    Returns:
      States and metrics with a leading axis R; metrics [R, S].
    Raises:
      InputError: latents that are not the model's, or images that the runs' labels are not of.
      ValueError: fewer images than one batch.

    >>> import jax, jaxvae
    >>> model, config = jaxvae.DenseVAE(image_shape=(8, 8, 1), latent_size=2), jaxvae.TrainConfig(batch_size=4)
    >>> images = jax.random.uniform(jax.random.key(1), (10, 8, 8, 1))
    >>> states, metrics = fit_many(model, config, jaxvae.grid(seed=range(3)), images, steps=6)
    >>> metrics.loss.shape
    (3, 6)
    """
    if runs.of not in (None, len(images)):
        raise InputError(f"labels: there were {runs.of}, and there are {len(images)} images; give a label to each")
    count = len(runs)
    filled = _filled(runs, count, mesh)
    if together is None:
        together = 1 if jax.default_backend() == "cpu" else len(filled) // (1 if mesh is None else mesh.size)
    if mesh is not None:
        # The states are made where they will be: all of them may be more than one device holds.
        filled, images = spread(filled, mesh), replicate(images, mesh)
    states = init_many(model, config, filled) if states is None else _filled(states, count, mesh)
    # The clock is the same for all; as one number it decides without a choice a run.
    clock, start = states.step[0], (states.params, states.opt_state, states.key)
    if mesh is not None:
        start, clock = spread(start, mesh), replicate(clock, mesh)
    result = _fit_many(
        model,
        config,
        filled,
        start,
        images,
        clock,
        steps=steps,
        mesh=mesh,
        objective=objective,
        augment=augment,
        together=together,
    )
    return _cut(result, count, mesh)


@jax.jit(
    static_argnames=("model", "config", "steps", "mesh", "objective", "augment", "together"), donate_argnames="start"
)
def _fit_many(
    model: Model,
    config: TrainConfig,
    runs: Runs,
    start: tuple[Params, Any, Key],
    images: Array,
    clock: Array,
    *,
    steps: int,
    mesh: Mesh | None,
    objective: Objective,
    augment: Augment | None,
    together: int,
) -> tuple[TrainState, StepMetrics]:
    def one(member: Member, images: Array, clock: Array) -> tuple[TrainState, StepMetrics]:
        run, (params, opt_state, key) = member
        state = TrainState(clock, params, opt_state, key)
        masked = objective if run.latent_mask is None else _masked(objective, model, run.latent_mask)
        return advance(
            model,
            config,
            run.hparams,
            state,
            images,
            steps=steps,
            objective=masked,
            augment=augment,
            index=run.index,
            freeze=True,
        )

    def several(members: Member, shared: tuple[Array, Array]) -> tuple[TrainState, StepMetrics]:
        return lax.map(lambda member: one(member, *shared), members, batch_size=together if together > 1 else None)

    return shared_out(several, mesh, whole=(False, True))((runs, start), (images, clock))


def _masked(objective: Objective, model: Model, mask: Array) -> Objective:
    """The objective with the padding of a latent held at zero: what it would add has no gradient."""

    def hold(leaf: Array, one_more: jax.ShapeDtypeStruct) -> Array:
        for axis, (have, more) in enumerate(zip(leaf.shape, one_more.shape, strict=True)):
            if have != more:
                factor = jnp.tile(mask, have // len(mask)).astype(leaf.dtype)
                leaf = leaf * jnp.expand_dims(factor, [other for other in range(leaf.ndim) if other != axis])
        return leaf

    def held(model: Model, params: Params, images: Array, key: Key | None = None, *, log_scale: Any = 0.0) -> ElboTerms:
        params = jax.tree.map(hold, params, param_shapes(model.clone(latent_size=model.latent_size + 1)))
        return objective(model, params, images, key, log_scale=log_scale)

    return held


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
    """`sample_scores` of the same images by every run of a population, as one program.

    Args:
      params: leaves [R, ...], as `fit_many` returns them.
      images: [N, H, W, C].
      keys: [R], for a draw of z a run and a batch; None scores at z = mean.
      log_scale: one number, or [R].
      batch_size: images at a time, which bounds the memory.
      score: another function of (model, params, images, key, log_scale=...), static.
      mesh: from `sharding.run_mesh`; the runs are spread over its devices.
    Returns:
      [R, N] each.
    Raises:
      ValueError: a batch_size below 1.
    """
    count = len(jax.tree.leaves(params)[0])
    own = params, keys, jnp.broadcast_to(log_scale, (count,))
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is no number of images; give 1 or more")
    if len(images) == 0:
        return SampleScores(*jnp.zeros((3, count, 0)))
    if mesh is not None:
        own, images = spread(_filled(own, count, mesh), mesh), replicate(images, mesh)
    result = _score_many(model, own, images, batch_size=batch_size, score=score, mesh=mesh)
    return _cut(result, count, mesh)


def _filled(tree: Tree, count: int, mesh: Mesh | None) -> Tree:
    """Leaves [R, ...] with some runs a second time at the end, so that every device of the mesh has as many."""
    if mesh is None or count % mesh.size == 0:
        return tree
    return jax.tree.map(lambda leaf: leaf[jnp.arange(-(-count // mesh.size) * mesh.size) % count], tree)


def _cut(tree: Tree, count: int, mesh: Mesh | None) -> Tree:
    """Without the runs that `_filled` added."""
    return tree if mesh is None or count % mesh.size == 0 else jax.tree.map(lambda leaf: leaf[:count], tree)


@jax.jit(static_argnames=("model", "batch_size", "score", "mesh"))
def _score_many(
    model: Model,
    runs: tuple[Params, Key | None, Array],
    images: Array,
    *,
    batch_size: int,
    score: Callable[..., SampleScores],
    mesh: Mesh | None,
) -> SampleScores:
    count, batch_size = len(images), min(batch_size, len(images))
    numbers = jnp.arange(-(-count // batch_size))

    def one(run: tuple[Params, Key | None, Array], images: Array) -> SampleScores:
        params, key, log_scale = run

        def batch(number: Array) -> SampleScores:
            # The last batch is filled with images that have been scored already.
            place = (number * batch_size + jnp.arange(batch_size)) % count
            draw = None if key is None else jax.random.fold_in(key, number)
            return score(model, params, images[place], draw, log_scale=log_scale)

        return jax.tree.map(lambda values: values.reshape(-1)[:count], lax.map(batch, numbers))

    def several(runs: tuple[Params, Key | None, Array], images: Array) -> SampleScores:
        return lax.map(lambda run: one(run, images), runs)

    return shared_out(several, mesh, whole=(False, True))(runs, images)
