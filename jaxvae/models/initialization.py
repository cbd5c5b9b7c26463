"""The initial parameters of a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxvae.models.model import Model, checked_means, checked_posterior
from jaxvae.types import Array, Key, Params


def init_params(model: Model, key: Key) -> Params:
    """Draw the initial parameters.

    Raises:
      ValueError: the model's `encode` or `decode` returns wrong shapes.
    """

    def reconstruct(module: Any, images: Array) -> Array:
        latents = checked_posterior(model, module.encode(images), images).mean
        return checked_means(model, module.decode(latents), latents)

    return dict(model.init(key, jnp.zeros((1, *model.image_shape)), method=reconstruct)["params"])


def param_shapes(model: Model) -> Params:
    """The shapes and dtypes of the parameters, without computing them."""
    return jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))


def uniform(fan_in: int) -> Callable[..., Array]:
    """PyTorch's default initializer, uniform in +-1/sqrt(fan_in), as in the paper."""
    bound = 1 / math.sqrt(fan_in)

    def draw(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        # Drawn as one row, the numbers are the same and XLA's CPU compiler takes a quarter of the time.
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return draw
