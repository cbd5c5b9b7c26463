"""Training states for tests of checkpoints."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae import ConvVAE, DenseVAE, Hyperparams, TrainConfig, TrainState, init


def at_step(model: DenseVAE | ConvVAE, step: int) -> TrainState:
    """A state whose leaves all differ from those of other steps."""
    rng = np.random.default_rng(step)
    state = jax.eval_shape(lambda: init(model, TrainConfig(), Hyperparams(), jax.random.key(0)))
    params, opt_state = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), (state.params, state.opt_state)
    )
    return TrainState(jnp.int32(step), params, opt_state, jax.random.key(step))


def assert_equal_states(one: TrainState, other: TrainState) -> None:
    for (path, a), (_, b) in zip(*map(jax.tree.leaves_with_path, (one, other)), strict=True):
        assert a.dtype == b.dtype, path
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b, err_msg=str(path))
