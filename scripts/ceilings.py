"""The least time that a computation can take: its work, counted from the layers, and the rates of the hardware."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from timing import seconds_of

import jaxvae


class Ceilings(NamedTuple):
    """FLOP/s of a large matrix product, and bytes/s of a large copy."""

    flops: float
    bandwidth: float

    def least_seconds(self, work: Work) -> float:
        return max(work.flops / self.flops, work.moved / self.bandwidth)


class Work(NamedTuple):
    """FLOP by definition (Winograd's form needs fewer), and the least bytes that memory must move."""

    flops: float
    moved: float


class Layer(NamedTuple):
    """FLOP of one pass for one image, parameters, and elements in and out for one image."""

    flops: int
    parameters: int
    elements: int


def layers_of(model: jaxvae.ConvVAE | jaxvae.DenseVAE) -> tuple[list[Layer], list[Layer]]:
    """Encoder and decoder."""
    height, width, fine = model.image_shape
    size, latent = height * width * fine, model.latent_size
    if isinstance(model, jaxvae.DenseVAE):
        hidden = model.hidden_size

        def dense(inputs: int, outputs: int) -> Layer:
            return Layer(2 * inputs * outputs, inputs * outputs + outputs, inputs + outputs)

        return [dense(size, hidden), dense(hidden, 2 * latent)], [dense(latent, hidden), dense(hidden, size)]
    levels = []
    for coarse in model.features:
        height, width = height // 2, width // 2
        kernel, positions = 16 * fine * coarse, height * width
        levels.append(Layer(2 * positions * kernel, kernel, positions * (4 * fine + coarse)))
        fine = coarse
    size = height * width * fine

    def full_size(outputs: int) -> Layer:
        return Layer(2 * size * outputs, size * outputs, size + outputs)

    return [*levels, full_size(2 * latent)], [full_size(latent), *levels[::-1]]


def work_of_scores(model: jaxvae.ConvVAE, batch: int) -> Work:
    """All maps: one pass of both networks, one pullback of the decoder and two of the encoder."""
    encoder, decoder = layers_of(model)
    passes = [(3, layer) for layer in encoder] + [(2, layer) for layer in decoder]
    flops = sum(count * layer.flops for count, layer in passes)
    elements = batch * sum(count * layer.elements for count, layer in passes)
    return Work(float(batch * flops), 4.0 * (elements + 2 * sum(layer.parameters for _, layer in passes)))


def work_of_step(model: jaxvae.ConvVAE | jaxvae.DenseVAE, batch: int) -> Work:
    """One step of training: a pass, the gradients of features and of parameters, and Adam.

    The image needs no gradient. Adam reads parameters, gradients and two moments, and writes all but the gradients.
    """
    encoder, decoder = layers_of(model)
    layers = encoder + decoder
    flops = 3 * sum(layer.flops for layer in layers) - encoder[0].flops
    elements = 3 * batch * sum(layer.elements for layer in layers)
    return Work(float(batch * flops), 4.0 * (elements + 7 * sum(layer.parameters for layer in layers)))


def measured(precision: str) -> Ceilings:
    """Time a large matrix product and a large copy.

    2048 x 2048 and 8 MB (its caches) on a processor, 8192 x 8192 and 2 GB on an accelerator.
    """
    on_processor = jax.default_backend() == "cpu"
    size = 2048 if on_processor else 8192
    matrix = jnp.ones((size, size), jnp.bfloat16 if precision == "bfloat16" else jnp.float32)
    with jax.default_matmul_precision("float32" if precision == "bfloat16" else precision):
        product_s = _best_of_ten(jax.jit(jnp.matmul), matrix, matrix)
    held = [jnp.ones(2**21 if on_processor else 2**29)]
    negate = jax.jit(lambda array: -array, donate_argnums=0)

    def copy() -> jax.Array:
        held[0] = negate(held[0])
        return held[0]

    return Ceilings(2 * size**3 / product_s, 2 * held[0].nbytes / _best_of_ten(copy))


def _best_of_ten(function: Callable[..., Any], *arguments: Any) -> float:
    jax.block_until_ready(function(*arguments))
    return min(seconds_of(lambda: jax.block_until_ready(function(*arguments))) for _ in range(10))
