"""ReLU and LeakyReLU whose gradient uses the sign of the output.

The output is stored anyway, so the backward pass keeps no extra array. The backward pass is one multiplication. JAX's
own gradient of a maximum keeps the input, selects twice and adds. A multiplication also passes NaN on. A selection
would turn NaN into a gradient of 0, the score of a healthy pixel.
"""

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
