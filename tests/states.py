"""Training states of checkpoints, and an untrained run with labelled images, for tests."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae import ConvVAE, DenseVAE, Hyperparams, TrainConfig, TrainState, init
from jaxvae.data.dataset import Dataset
from jaxvae.runs.run import Run


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


def untrained_run(config: dict) -> Run:
    """A run on images of 16x16 pixels with 2 channels, with larger parameters than those that training starts from."""
    model = ConvVAE((16, 16, 2), 3, (4, 8))
    state = init(model, TrainConfig(), Hyperparams(), jax.random.key(0))
    return Run(model, jax.tree.map(lambda leaf: 3 * leaf, state.params), 1, config, Path())


def labelled_images() -> Dataset:
    """Seven images for `untrained_run`, every second one anomalous."""
    images = np.random.default_rng(0).random((7, 16, 16, 2)).astype(np.float32)
    names = tuple(f"test/{i}.png" for i in range(7))
    labels = np.arange(7) % 2 == 0
    return Dataset(images, labels, None, names, names, tuple("bad" if label else "good" for label in labels))
