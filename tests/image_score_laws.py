"""Laws of every score of whole images, for the tests of each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae import ConvVAE, DenseVAE
from jaxvae.models.model import init_params
from jaxvae.models.two_stage import TwoStageVAE
from jaxvae.objectives.elbo import gaussian_nll
from linear_vae import SpatialVAE

MODELS = {"dense": DenseVAE((8, 8, 1), 3, 16), "conv": ConvVAE((8, 8, 3), 3, (4, 8)), "spatial": SpatialVAE()}
WITH_PRIOR = {"two_stage": TwoStageVAE((8, 8, 1), 3, 16, 8)}


def model_and_images(name: str) -> tuple[Any, dict, jax.Array]:
    """A model, its parameters, and five images."""
    model = (MODELS | WITH_PRIOR)[name]
    params = jax.tree.map(lambda leaf: 2 * leaf, init_params(model, jax.random.key(3)))
    return model, params, jax.random.uniform(jax.random.key(4), (5, *model.image_shape))


def check_laws(module: ModuleType, kind: str, state: Any = None, *, traceable: bool = True, **settings: Any) -> None:
    """One finite float32 number per image, whatever its batch, under jit and under vmap over parameters."""
    model, params, images = model_and_images(kind)
    score: Callable = partial(module.score, model, log_scale=-0.5, likelihood=gaussian_nll, **settings)
    [(name, values)] = score(params, images, state=state).items()
    assert values.shape == (5,)
    assert values.dtype == jnp.float32
    assert np.isfinite(values).all()
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3)
    close(score(params, images[3:4], state=state)[name][0], values[3])
    strangers = images.at[:3].set(1.0)[::-1]
    close(score(params, strangers, state=state)[name][:2][::-1], values[3:])
    if kind == "dense":
        raw = (255 * images).astype(jnp.uint8)
        close(score(params, raw, state=state)[name], score(params, raw / np.float32(255), state=state)[name])
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), (params, state))
    if traceable:
        mapped = jax.jit(jax.vmap(lambda images, both: score(both[0], images, state=both[1]), (None, 0)))(images, both)
    else:
        mapped = jax.vmap(lambda both: score(both[0], images, state=both[1]))(both)
    close(mapped[name][0], values)
    half_params, half_state = jax.tree.map(lambda leaf: 0.5 * leaf, (params, state))
    close(mapped[name][1], score(half_params, images, state=half_state)[name])
