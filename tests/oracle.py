"""Models and scores in NumPy and float64, one image and one pixel at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from scipy.signal import correlate2d


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """[H, W, c] with [4, 4, c, d], stride 2, padding 1 -> [H/2, W/2, d]."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    return np.stack(
        [
            sum(correlate2d(padded[..., c], kernel[..., c, d], mode="valid") for c in range(image.shape[-1]))[::2, ::2]
            for d in range(kernel.shape[-1])
        ],
        axis=-1,
    )


def convolve_transposed(features: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """[h, w, d] with [4, 4, c, d] -> [2h, 2w, c]: each feature adds a 4x4 patch."""
    height, width, _ = features.shape
    canvas = np.zeros((2 * height + 2, 2 * width + 2, kernel.shape[2]))
    for i, j in itertools.product(range(height), range(width)):
        canvas[2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += kernel @ features[i, j]
    return canvas[1:-1, 1:-1]


def leaky_relu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.01 * x)


def conv_vae(params: dict, levels: int) -> tuple[Callable, Callable]:
    """(encode, decode) of one image, from a ConvVAE's parameters."""
    params = {name: np.asarray(value, np.float64) for name, value in params.items()}

    def encode(image):
        for i in range(levels):
            image = leaky_relu(convolve(image, params[f"encoder_{i}"]))
        return np.split(np.einsum("hwc,hwcz->z", image, params["encoder_latent"]), 2)

    def decode(latent):
        features = params["decoder_latent"] @ latent
        for i in range(levels):
            features = convolve_transposed(leaky_relu(features), params[f"decoder_{i}"])
        return features

    return encode, decode


def dense_vae(params: dict, shape: tuple[int, ...]) -> tuple[Callable, Callable]:
    """(encode, decode) of one image, from a DenseVAE's parameters."""

    def linear(name, x):
        layer = params[name]
        return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)

    def encode(image):
        hidden = np.maximum(linear("encoder_hidden", image.ravel()), 0)
        return linear("encoder_mean", hidden), linear("encoder_log_std", hidden)

    def decode(latent):
        logits = linear("decoder_image", np.maximum(linear("decoder_hidden", latent), 0))
        return (1 / (1 + np.exp(-logits))).reshape(shape)

    return encode, decode


def kl(mean: np.ndarray, log_std: np.ndarray) -> float:
    return float(sum(0.5 * (math.exp(2 * s) + m * m - 1 - 2 * s) for m, s in zip(mean, log_std, strict=True)))


def nll(image: np.ndarray, reconstruction: np.ndarray, log_scale: float) -> np.ndarray:
    scale = math.exp(log_scale)
    return -np.log(np.exp(-((image - reconstruction) ** 2) / (2 * scale**2)) / (scale * math.sqrt(2 * math.pi)))


def gradient(function: Callable[[np.ndarray], float], image: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences, one pixel at a time."""
    result = np.zeros_like(image)
    for index in np.ndindex(image.shape):
        shift = np.zeros_like(image)
        shift[index] = step
        result[index] = (function(image + shift) - function(image - shift)) / (2 * step)
    return result


def assert_close(got: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    """Equal to within `tolerance` of the largest expected value."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(got, expected, atol=tolerance * np.abs(expected).max(), rtol=0)


def enlarged(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """[h, w, c] enlarged to `shape` with bilinear interpolation between the centres of pixels."""

    def along(image, size):
        places = np.clip((np.arange(size) + 0.5) * len(image) / size - 0.5, 0, len(image) - 1)
        below = np.minimum(places.astype(int), len(image) - 2)
        share = (places - below)[:, None, None]
        return (1 - share) * image[below] + share * image[below + 1]

    return along(along(image, shape[0]).swapaxes(0, 1), shape[1]).swapaxes(0, 1)


def dense_log_scale(params: dict, latent: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The second output of a DenseVAE's decoder, before its bound."""
    params = {k: {n: np.asarray(v, np.float64) for n, v in params[k].items()} for k in params if k.startswith("dec")}
    hidden = np.maximum(latent @ params["decoder_hidden"]["kernel"] + params["decoder_hidden"]["bias"], 0)
    return (hidden @ params["decoder_log_scales"]["kernel"] + params["decoder_log_scales"]["bias"]).reshape(shape)


def conv_log_scale(params: dict, latent: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The second output of the decoder of a ConvVAE with two levels, before its bound."""
    params = {name: np.asarray(value, np.float64) for name, value in params.items()}
    features = convolve_transposed(leaky_relu(params["decoder_latent"] @ latent), params["decoder_0"])
    return convolve_transposed(leaky_relu(features), params["decoder_log_scale"]).reshape(shape)
