"""Train many runs as one program.

    population = grid(seed=range(3), learning_rate=[1e-3, 1e-4])
    states, metrics = fit_many(model, config, population, images, steps=10_000)
    scores = score_many(model, states.params, images, log_scale=population.hparams.log_scale)

Each run equals the same run trained alone, to float tolerance. A program has one shape of images, features and batches,
so loop over these in Python.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from jaxvae.errors import InputError
from jaxvae.models.model import Model, has_own_prior, param_shapes
from jaxvae.objectives.elbo import elbo_terms
from jaxvae.ops.forms import Platform, platform_here
from jaxvae.population.axes import Population
from jaxvae.sharding import cut, filled, replicate, shared_out, spread
from jaxvae.train import Augment, Hyperparams, Objective, TrainConfig, TrainState, advance, init, run_key
from jaxvae.types import Array, ElboTerms, Key, Params, StepMetrics

Start = tuple[Params, Any, Key]  # parameters, Adam's moments, key


def init_many(model: Model, config: TrainConfig, population: Population, *, mesh: Mesh | None = None) -> TrainState:
    """The states before the first step, padded with zeros for smaller latents.

    A latent with a kernel of zeros has mean 0, log_std 0 and KL 0, and does not change the image.
    """
    seeds_and_sizes, sizes = _sizes(model, population)
    return _init_many(model, config, seeds_and_sizes, sizes=sizes, mesh=mesh)


def _sizes(model: Model, population: Population) -> tuple[tuple[Array, np.ndarray], tuple[int, ...]]:
    """The seed of each run with the number of its latent size, [R] each, and the different latent sizes."""
    if population.latent_mask is None:
        return (population.seed, np.zeros(len(population), np.int32)), (model.latent_size,)
    largest = population.latent_mask.shape[1]
    if largest != model.latent_size:
        raise InputError(f"latent_size={largest}: the largest must be that of the model, {model.latent_size}")
    if has_own_prior(model):
        problem = "a population of models with a prior of their own must have one latent size"
        raise InputError(f"latent_size: {problem}; make a population for each")
    sizes, number = np.unique(np.asarray(population.latent_mask).sum(axis=1), return_inverse=True)
    return (population.seed, number.astype(np.int32)), tuple(sizes.tolist())


@jax.jit(static_argnames=("model", "config", "sizes", "mesh"))
def _init_many(
    model: Model,
    config: TrainConfig,
    seeds_and_sizes: tuple[Array, np.ndarray],
    *,
    sizes: tuple[int, ...],
    mesh: Mesh | None,
) -> TrainState:
    """One program for all latent sizes. Each device makes its own states, because all of them may not fit one."""

    def of_size(size: int) -> Callable[[Array], TrainState]:
        smaller = model if size == model.latent_size else model.clone(latent_size=size)
        return lambda seed: init(smaller, config, Hyperparams(), run_key(seed))

    like = jax.eval_shape(of_size(model.latent_size), 0)

    def padded(size: int) -> Callable[[Array], TrainState]:
        return lambda seed: jax.tree.map(lambda leaf, whole: _padded(leaf, whole, size), of_size(size)(seed), like)

    def one(run: tuple[Array, Array]) -> TrainState:
        seed, number = run
        return lax.switch(number, [padded(size) for size in sizes], seed)

    return shared_out(lambda runs: lax.map(one, runs), mesh, whole=(False,))(seeds_and_sizes)


def _padded(leaf: Array, whole: jax.ShapeDtypeStruct, size: int) -> Array:
    """Pad a leaf to a larger latent; each half of an axis of 2 Z is padded."""
    for axis, (have, want) in enumerate(zip(leaf.shape, whole.shape, strict=True)):
        if have != want:
            halves = leaf.reshape(*leaf.shape[:axis], have // size, size, *leaf.shape[axis + 1 :])
            pads = [(0, 0)] * halves.ndim
            pads[axis + 1] = (0, (want - have) // (have // size))
            leaf = jnp.pad(halves, pads).reshape(whole.shape[: axis + 1] + leaf.shape[axis + 1 :])
    return leaf


def fit_many(
    model: Model,
    config: TrainConfig,
    population: Population,
    images: Array,
    *,
    steps: int,
    states: TrainState | None = None,
    mesh: Mesh | None = None,
    objective: Objective = elbo_terms,
    augment: Augment | None = None,
    side_by_side: int | None = None,
) -> tuple[TrainState, StepMetrics]:
    """`fit` for each run of a population, as one program.

    If the loss or the gradient of a run is not finite, the run keeps its parameters and its metrics are NaN from then
    on. The other runs go on. Two calls of 10 steps, the second with the states of the first, equal one of 20.

    Args:
      model: with the largest latent_size of the runs.
      images: the data set of all runs, [N, H, W, C], uint8 or float.
      steps: S.
      states: from an earlier call, to continue it; consumed. None: from `init_many`.
      mesh: from `sharding.run_mesh`; the runs are spread over its devices.
      objective, augment: see `step`.
      side_by_side: runs that each device trains at once. The default is one on a CPU, whose caches hold one run. On a
        TPU it is what the vector memory holds or an equal part of it, and on a GPU what keeps it busy.

    Returns:
      States with a leading axis R, and metrics [R, S].

    Raises:
      InputError: a largest latent_size other than the model's, or another number of images than of `grid`'s labels.
      ValueError: fewer images than one batch.
    """
    count = len(population)
    population, images = _placed(population, images, mesh)
    if states is None:
        states, step = init_many(model, config, population, mesh=mesh), np.int32(0)
    else:
        # All runs have taken the same number of steps. As one number it needs no branch per run.
        states, step = filled(states, count, mesh), states.step[0]
    start, step = _start(states, step, mesh)
    settings = {"objective": objective, "augment": augment, "side_by_side": side_by_side}
    result = _fit_many(model, config, population, start, images, step, steps=steps, mesh=mesh, **settings)
    return cut(result, count, mesh)


def compile_fit_many(
    model: Model,
    config: TrainConfig,
    population: Population,
    images: Array | jax.ShapeDtypeStruct,
    *,
    steps: int,
    mesh: Mesh | None = None,
    objective: Objective = elbo_terms,
    augment: Augment | None = None,
    side_by_side: int | None = None,
) -> TrainState:
    """Compile the programs of `fit_many`: a later call with these arguments compiles nothing.

    XLA compiles outside Python's global lock, so call it in a thread while another program runs (`compiled_ahead`).
    Give shapes instead of images, which a mesh would copy to its devices. JAX's settings must be the same in both
    calls, and some belong to a thread, such as `jax.default_matmul_precision`.

    Args:
      images: the data set or its shape and dtype.
      steps, mesh, objective, augment, side_by_side: see `fit_many`.

    Returns:
      The shapes of the states, to give their params to `compile_score_many`.
    """
    count = len(population)
    population, images = _placed(population, images, mesh)
    seeds_and_sizes, sizes = _sizes(model, population)
    beginning = _init_many.lower(model, config, seeds_and_sizes, sizes=sizes, mesh=mesh)
    states = beginning.out_info
    start, step = _start(states, np.int32(0), mesh)
    settings = {"objective": objective, "augment": augment, "side_by_side": side_by_side}
    training = _fit_many.lower(model, config, population, start, images, step, steps=steps, mesh=mesh, **settings)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda lowered: lowered.compile(), (beginning, training)))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), states)


def _placed(population: Population, images: Any, mesh: Mesh | None) -> tuple[Population, Any]:
    """The runs and images on the devices, once their numbers are checked."""
    if population.image_count not in (None, images.shape[0]):
        count = images.shape[0]
        raise InputError(f"labels: {population.image_count} for {count} images; give one label per image")
    if mesh is None:
        return population, images
    return spread(filled(population, len(population), mesh), mesh), replicate(images, mesh)


def _start(states: TrainState, step: Any, mesh: Mesh | None) -> tuple[Start, Any]:
    """The states and their step as `_fit_many` takes them, on the devices."""
    start = states.params, states.opt_state, states.key
    return (start, step) if mesh is None else (spread(start, mesh), replicate(step, mesh))


def side_by_side_on(platform: Platform, model: Model, runs: int) -> int:
    """How many of the runs of a device it trains at once by default: one or more, as many as `platform` says."""
    copies = 3  # the parameters and Adam's two moments
    state = copies * sum(leaf.dtype.itemsize * leaf.size for leaf in jax.tree.leaves(param_shapes(model)))
    most = min(runs, max(1, platform.state_bytes // state))
    # XLA compiles a smaller last part as a second loop.
    equal = next(size for size in range(most, 0, -1) if runs % size == 0)
    return equal if 2 * equal > most else most


@jax.jit(
    static_argnames=("model", "config", "steps", "mesh", "objective", "augment", "side_by_side"),
    donate_argnames="start",
)
def _fit_many(
    model: Model,
    config: TrainConfig,
    population: Population,
    start: Start,
    images: Array,
    step: Array,
    *,
    steps: int,
    mesh: Mesh | None,
    objective: Objective,
    augment: Augment | None,
    side_by_side: int | None,
) -> tuple[TrainState, StepMetrics]:
    def one(member: tuple[Population, Start], images: Array, step: Array) -> tuple[TrainState, StepMetrics]:
        run, (params, opt_state, key) = member
        state = TrainState(step, params, opt_state, key)
        masked = objective if run.latent_mask is None else _masked(objective, model, run.latent_mask)
        settings = {"objective": masked, "augment": augment, "index": run.index, "freeze": True}
        return advance(model, config, run.hparams, state, images, steps=steps, **settings)

    def several(members: tuple[Population, Start], shared: tuple[Array, Array]) -> tuple[TrainState, StepMetrics]:
        together = side_by_side
        if together is None:
            together = side_by_side_on(platform_here(), model, len(members[0]))
        return lax.map(lambda run: one(run, *shared), members, batch_size=together if together > 1 else None)

    return shared_out(several, mesh, whole=(False, True))((population, start), (images, step))


def _masked(objective: Objective, model: Model, mask: Array) -> Objective:
    """The objective, with zeros as padding of smaller latents, so it has no gradient."""

    def zero_padding(leaf: Array, one_more: jax.ShapeDtypeStruct) -> Array:
        for axis, (have, more) in enumerate(zip(leaf.shape, one_more.shape, strict=True)):
            if have != more:
                factor = jnp.tile(mask, have // len(mask)).astype(leaf.dtype)
                leaf = leaf * jnp.expand_dims(factor, [other for other in range(leaf.ndim) if other != axis])
        return leaf

    def apply(
        model: Model, params: Params, images: Array, key: Key | None = None, *, log_scale: Any = 0.0
    ) -> ElboTerms:
        params = jax.tree.map(zero_padding, params, param_shapes(model.clone(latent_size=model.latent_size + 1)))
        return objective(model, params, images, key, log_scale=log_scale)

    return apply
