"""Statistics over predictions: over draws of z, dropout or models."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxvae.objectives.elbo import Likelihood, nll_of
from jaxvae.types import Array, Decoded


class Predictive(NamedTuple):
    """Statistics over L predictions p(x|.) of each image, [B, H, W, C] each."""

    nll: Array  # mean over the predictions of -log p(x|.), in nats
    mean: Array  # of the predicted means
    variance: Array  # of the predicted means, their squared differences from `mean` divided by L - 1
    noise: Array | None  # mean of exp(2 log_scale) over the predictions; None if the decoder has not learned its scale

    def error(self, images: Array, count: int) -> Array:
        """The mean squared difference between images and the means of `count` predictions."""
        return jnp.square(images - self.mean) + self.variance * ((count - 1) / count)


def predictive(
    predict: Callable[[Any], Decoded],
    items: Any,
    images: Array,
    *,
    log_scale: float | Array,
    likelihood: Likelihood,
) -> Predictive:
    """Predict the images once per item, in turn, and keep running sums only.

    Args:
      predict: from an item to p(x|.) of all images.
      items: leaves [L, ...], such as L draws of noise, keys or parameters.
      images: [B, H, W, C], float.
      log_scale: natural logarithm of the decoder's standard deviation, unless it is learned.
      likelihood: of the decoder's output.

    Reference: Welford 1962, "Note on a Method for Calculating Corrected Sums of Squares and Products".
    """
    count = jax.tree.leaves(items)[0].shape[0]
    first = jax.eval_shape(predict, jax.tree.map(lambda leaf: leaf[0], items))
    zeros = jnp.zeros_like(images)

    def add(sums: Predictive, numbered: tuple[Array, Any]) -> tuple[Predictive, None]:
        number, item = numbered
        output = predict(item)
        change = output.mean - sums.mean
        mean = sums.mean + change / number
        learned = None if output.log_scale is None else jnp.exp(2 * output.log_scale)
        noise = None if sums.noise is None or learned is None else sums.noise + learned
        nll = sums.nll + nll_of(likelihood, images, output, log_scale)
        return Predictive(nll, mean, sums.variance + change * (output.mean - mean), noise), None

    start = Predictive(zeros, zeros, zeros, None if first.log_scale is None else zeros)
    numbers = jnp.arange(1, count + 1, dtype=images.dtype)
    sums, _ = lax.scan(add, start, (numbers, items))
    noise = None if sums.noise is None else sums.noise / count
    return Predictive(sums.nll / count, sums.mean, sums.variance / (count - 1), noise)
