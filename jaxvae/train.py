"""Training: Adam on the negative ELBO, one step or many steps as one program.

Settings that change shapes or the program are static (`TrainConfig`). Numbers are traced (`Hyperparams`), so another
learning rate does not compile again and a population of runs is one vmap. The step number and the state's key decide
the batch of each step, its augmentation and its noise. So a resumed run equals an uninterrupted one.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh

from jaxvae.errors import InputError
from jaxvae.models.model import Model, init_params
from jaxvae.objectives.elbo import elbo_terms, negative_elbo, pixel_sum
from jaxvae.ops.filters import unit_range
from jaxvae.ops.forms import by_platform
from jaxvae.sharding import over
from jaxvae.types import Array, ElboTerms, Key, Params, StepMetrics

Schedule = Literal["constant", "cosine", "exponential", "step"]
_ORDER = 0xFFFFFFFF  # Folded into the key for the order of each epoch; no step number is as large.


class Augment(Protocol):
    """A random change of a batch [B, H, W, C], such as `augment.Augmentation`."""

    def __call__(self, key: Key, images: Array, /) -> Array: ...


class Objective(Protocol):
    """A loss in two terms; the first one is weighted with beta.

    `elbo_terms` is the default. `functools.partial(elbo_terms, likelihood=...)` uses another likelihood. `parity` has
    the objective of the released code.
    """

    def __call__(
        self, model: Model, params: Params, images: Array, key: Key | None = None, *, log_scale: float | Array = 0.0
    ) -> ElboTerms: ...


@dataclass(frozen=True)
class TrainConfig:
    """The static settings of training.

    Args:
      batch_size: B; in the paper 128 for FashionMNIST and 64 for brains.
      clip_norm: gradients longer than this are shortened to it; None switches it off.
      schedule: of the learning rate. "cosine" falls to 0 over decay_steps. "exponential" multiplies it by decay_rate
        every decay_steps, continuously; "step" does so at the end of each decay_steps.
      warmup_steps: steps in which the learning rate rises linearly; the first step has 1 / warmup_steps of it.
      decay_steps, decay_rate: see schedule; the steps count from the end of the warm-up.

    Raises:
      ValueError: an unknown schedule, or a number out of range.
    """

    batch_size: int = 128
    clip_norm: float | None = None
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    decay_steps: int = 10_000
    decay_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"schedule={self.schedule!r}: unknown; use {', '.join(map(repr, get_args(Schedule)))}")
        for name, least in {"batch_size": 1, "warmup_steps": 0, "decay_steps": 1}.items():
            if not isinstance(getattr(self, name), int | np.integer) or getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be a whole number of at least {least}")
        for name in ("clip_norm", "decay_rate"):
            value = getattr(self, name)
            if not (value > 0 if value is not None else name == "clip_norm"):
                raise ValueError(f"{name}={value}: must be above 0")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hyperparams:
    """The traced numbers of training, [] each, or [R] for a population."""

    learning_rate: float | Array = 1e-3
    beta: float | Array = 1.0  # weight of the KL
    log_scale: float | Array = 0.0  # natural logarithm of the decoder's standard deviation


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The state that the next step needs."""

    step: Array  # [] int32, steps taken
    params: Params
    opt_state: Any
    key: Key  # constant during a run


def run_key(seed: int | Array) -> Key:
    """The key of a run, of the threefry generator whatever JAX's default is.

    Other generators draw different numbers for a population than for single runs.

    >>> jax.random.key_impl(run_key(0))
    'threefry2x32'
    """
    return jax.random.key(seed, impl="threefry2x32")


@jax.jit(static_argnames=("model", "config"))
def init(model: Model, config: TrainConfig, hparams: Hyperparams, key: Key) -> TrainState:
    """The state before the first step, with weights uniform in +-1/sqrt(fan_in).

    Args:
      key: consumed; decides the weights, the order of the images and all noise of the run.

    >>> import jax, jaxvae
    >>> model, config = jaxvae.DenseVAE(image_shape=(28, 28, 1)), jaxvae.TrainConfig()
    >>> state = jaxvae.init(model, config, jaxvae.Hyperparams(), jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(state.params))
    652824
    """
    params_key, run_key = jax.random.split(key)
    params = init_params(model, params_key)
    return TrainState(jnp.int32(0), params, _adam(config).init(params), run_key)


def _adam(config: TrainConfig) -> optax.GradientTransformation:
    """Adam's direction; `step` applies the learning rate, so no counter is needed."""
    clip = optax.identity() if config.clip_norm is None else optax.clip_by_global_norm(config.clip_norm)
    # eps_root changes an update by at most 1e-6 of it. Without it, the derivative of an update is 0 / 0 where the
    # gradient is 0.
    return optax.chain(clip, optax.scale_by_adam(eps_root=1e-32))


def learning_rate(config: TrainConfig, hparams: Hyperparams, step: Array) -> Array:
    """The learning rate of a step, [], from the schedule of the config."""
    factor: Any = jnp.float32(1.0)
    decay_step = jnp.maximum(step - config.warmup_steps, 0)
    if config.schedule == "cosine":
        factor = optax.cosine_decay_schedule(1.0, config.decay_steps)(decay_step)
    elif config.schedule != "constant":
        staircase = config.schedule == "step"
        factor = optax.exponential_decay(1.0, config.decay_steps, config.decay_rate, staircase=staircase)(decay_step)
    if config.warmup_steps > 0:
        factor = factor * jnp.minimum((step + 1) / config.warmup_steps, 1.0)
    return hparams.learning_rate * factor


def step(
    model: Model,
    config: TrainConfig,
    hparams: Hyperparams,
    state: TrainState,
    images: Array,
    *,
    objective: Objective = elbo_terms,
    augment: Augment | None = None,
) -> tuple[TrainState, StepMetrics]:
    """One update with Adam on mean(beta * KL + NLL) of a batch.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      objective: the two terms of the loss; static under jit.
      augment: changes the batch first; static under jit.

    Returns:
      The next state, and the metrics of the batch before the update, [] each.

    Reference: Kingma & Ba 2015, algorithm 1.
    """
    augment_key, objective_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    images = unit_range(images)
    if augment is not None:
        images = augment(augment_key, images)

    def loss(params: Params) -> tuple[Array, ElboTerms]:
        terms = objective(model, params, images, objective_key, log_scale=hparams.log_scale)
        _check_terms(terms, images)
        return jnp.mean(negative_elbo(terms, beta=hparams.beta)), terms

    (value, terms), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    direction, opt_state = _adam(config).update(gradients, state.opt_state, state.params)
    norm = by_platform(lambda platform: platform.norm, gradients)
    # With the norm in the rate, every update waits for the last gradient. Otherwise XLA cannot know that a kernel is
    # read before it is overwritten, and copies the large ones first: a twentieth of the FashionMNIST network's step.
    rate = jnp.where(jnp.isnan(norm), jnp.nan, learning_rate(config, hparams, state.step))
    params = jax.tree.map(lambda param, change: (param - rate * change).astype(param.dtype), state.params, direction)
    metrics = StepMetrics(loss=value, kl=jnp.mean(terms.kl), nll=jnp.mean(pixel_sum(terms.nll)), grad_norm=norm)
    return TrainState(state.step + 1, params, opt_state, state.key), metrics


train_step = jax.jit(step, static_argnames=("model", "config", "objective", "augment"), donate_argnames="state")
train_step.__doc__ = "`step`, compiled. It consumes the state."


def _check_terms(terms: Any, images: Array) -> None:
    """Check what an objective returned while tracing, since wrong shapes would only change the loss."""
    if not isinstance(terms, ElboTerms):
        raise InputError(f"objective: gives {type(terms).__name__}; return jaxvae.ElboTerms(kl, nll)")
    found = [list(jnp.shape(term)) for term in terms]
    if found != [[len(images)], list(images.shape)]:
        wanted = f"[B] and [B, H, W, C], [{len(images)}] and {list(images.shape)}"
        raise InputError(f"objective: gives kl {found[0]} and nll {found[1]}; must be {wanted}")


def epoch_order(key: Key, epoch: Array, count: int) -> Array:
    """The order of `count` images in an epoch, [count] integers."""
    return jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, _ORDER), epoch), count)


@jax.jit(static_argnames=("model", "config", "steps", "objective", "augment", "mesh"), donate_argnames="state")
def fit(
    model: Model,
    config: TrainConfig,
    hparams: Hyperparams,
    state: TrainState,
    images: Array,
    *,
    steps: int,
    objective: Objective = elbo_terms,
    augment: Augment | None = None,
    mesh: Mesh | None = None,
) -> tuple[TrainState, StepMetrics]:
    """`steps` updates as one program, on a data set in device memory.

    Each epoch visits the images in a new order and drops an incomplete last batch. Two calls of 10 steps equal one of
    20. Under `vmap`, the order is drawn again at every step; `fit_many` draws it once per epoch.

    Args:
      state: consumed.
      images: the data set, [N, H, W, C], uint8 or float; not consumed.
      steps: S.
      objective, augment: see `step`.
      mesh: from `sharding.data_mesh`; each batch is spread over its devices. Put the state and the images on them with
        `sharding.replicate` first. The result equals that of one device, to float tolerance.

    Returns:
      The state after the last step, and the metrics of each step, [S] each.

    Raises:
      ValueError: fewer images than one batch, or a batch that the mesh cannot share equally.

    >>> import jax, jaxvae
    >>> model, config = jaxvae.DenseVAE(image_shape=(8, 8, 1), latent_size=2), jaxvae.TrainConfig(batch_size=4)
    >>> hparams = jaxvae.Hyperparams(learning_rate=1e-3)
    >>> images = jax.random.uniform(jax.random.key(1), (10, 8, 8, 1))
    >>> state = jaxvae.init(model, config, hparams, jax.random.key(0))
    >>> state, metrics = jaxvae.fit(model, config, hparams, state, images, steps=6)
    >>> int(state.step), metrics.loss.shape
    (6, (6,))
    """
    return advance(model, config, hparams, state, images, steps=steps, objective=objective, augment=augment, mesh=mesh)


def advance(
    model: Model,
    config: TrainConfig,
    hparams: Hyperparams,
    state: TrainState,
    images: Array,
    *,
    steps: int,
    objective: Objective = elbo_terms,
    augment: Augment | None = None,
    mesh: Mesh | None = None,
    index: Array | None = None,
    freeze: bool = False,
) -> tuple[TrainState, StepMetrics]:
    """`fit`, not compiled, for programs with several runs.

    Args:
      index: [n] int, the images of the run; equals a run on `images[index]`. None: all images.
      freeze: at the first loss or gradient that is not finite, keep the parameters from before it. From then on the
        metrics are NaN, and so are Adam's moments, which mark the state as frozen for later calls.
    """
    if not (isinstance(steps, int | np.integer) and steps >= 0):
        raise ValueError(f"steps={steps}: must be a whole number of at least 0")
    count = len(images) if index is None else len(index)
    steps_per_epoch = count // config.batch_size
    if steps_per_epoch == 0:
        raise ValueError(f"batch_size={config.batch_size}: must be at most {count}, the number of images")
    if mesh is not None and config.batch_size % mesh.size:
        raise ValueError(f"batch_size={config.batch_size}: must be a multiple of {mesh.size}, the devices of the mesh")

    start, key = state.step, state.key

    def body(carry: tuple[TrainState, Array, Array], _: None) -> tuple[tuple[TrainState, Array, Array], Array]:
        state, order, alive = carry
        position = state.step % steps_per_epoch
        # The first step draws the order too. A sort before the loop would be a second one, slow to compile for a GPU.
        is_new = (position == 0) | (state.step == start)
        order = lax.cond(is_new, lambda: epoch_order(key, state.step // steps_per_epoch, count), lambda: order)
        batch = lax.dynamic_slice_in_dim(order, position * config.batch_size, config.batch_size)
        batch = images[batch if index is None else index[batch]]
        batch = batch if mesh is None else lax.with_sharding_constraint(batch, over(mesh))
        after, metrics = step(model, config, hparams, state, batch, objective=objective, augment=augment)
        if freeze:
            alive &= jnp.isfinite(metrics.loss) & jnp.isfinite(metrics.grad_norm)
            params = jax.tree.map(lambda new, old: jnp.where(alive, new, old), after.params, state.params)
            opt_state = jax.tree.map(lambda leaf: _unless(alive, leaf), after.opt_state)
            after = dataclasses.replace(after, params=params, opt_state=opt_state)
            metrics = jax.tree.map(lambda value: jnp.where(alive, value, jnp.nan), metrics)
        return (after, order, alive), jnp.stack(metrics)  # One array is one kernel.

    alive = ~_is_frozen(state) if freeze else jnp.bool_(True)
    (state, _, _), metrics = lax.scan(body, (state, jnp.zeros(count, int), alive), length=steps)
    return state, StepMetrics(*metrics.T)


def _unless(alive: Array, leaf: Array) -> Array:
    """The leaf if the run is alive, else NaN; integer leaves stay."""
    return jnp.where(alive, leaf, jnp.nan) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _is_frozen(state: TrainState) -> Array:
    moments = (leaf for leaf in jax.tree.leaves(state.opt_state) if jnp.issubdtype(leaf.dtype, jnp.floating))
    return jnp.isnan(next(moments).ravel()[0])
