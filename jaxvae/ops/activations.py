"""What stands between the layers; derivatives are read off the sign of the output, which is kept anyway.

As a factor such a derivative transposes into one product, where that of a maximum would keep the input too, choose
twice and add. And a factor hands on what is no number, where a choice makes a gradient of 0 of it: the healthiest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxvae.types import Array


@jax.custom_jvp
def relu(features: Array) -> Array:
    """max(x, 0)."""
    return jnp.maximum(features, 0)


@jax.custom_jvp
def leaky_relu(features: Array) -> Array:
    """max(x, 0.01 x)."""
    return jnp.maximum(features, 0.01 * features)


def _jvp(
    activation: Callable[[Array], Array], below: float, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (features,), (tangent,) = primals, tangents
    activated = activation(features)
    return activated, tangent * jnp.where(activated > 0, jnp.ones_like(activated), jnp.full_like(activated, below))


relu.defjvp(partial(_jvp, relu, 0.0))
leaky_relu.defjvp(partial(_jvp, leaky_relu, 0.01))
