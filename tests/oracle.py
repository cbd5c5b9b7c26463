"""Models and scores in NumPy and float64, one image and one pixel at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from scipy.signal import correlate2d


def convolve(image: np.ndarray, kernel: np.ndarray, stride: int = 2, padding: int = 1) -> np.ndarray:
    """[H, W, c] with [h, w, c, d] -> [H', W', d]; half of H and W for a 4x4 kernel."""
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return np.stack(
        [
            sum(correlate2d(padded[..., c], kernel[..., c, d], mode="valid") for c in range(image.shape[-1]))
            for d in range(kernel.shape[-1])
        ],
        axis=-1,
    )[::stride, ::stride]


def convolve_transposed(features: np.ndarray, kernel: np.ndarray, padding: int = 1) -> np.ndarray:
    """[h, w, d] with [k, k, c, d] -> [2h, 2w, c]: each feature adds a patch of k x k pixels."""
    (height, width, _), extent = features.shape, len(kernel)
    canvas = np.zeros((2 * height - 2 + extent, 2 * width - 2 + extent, kernel.shape[2]))
    for i, j in itertools.product(range(height), range(width)):
        canvas[2 * i : 2 * i + extent, 2 * j : 2 * j + extent] += kernel @ features[i, j]
    return canvas[padding : padding + 2 * height, padding : padding + 2 * width]


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


def float64(params: dict) -> dict:
    """Nested parameters in float64."""
    return {k: float64(v) if isinstance(v, dict) else np.asarray(v, np.float64) for k, v in params.items()}


def dense(layer: dict, x: np.ndarray) -> np.ndarray:
    """A dense layer of the last axis, with or without a bias."""
    return x @ layer["kernel"] + layer.get("bias", 0)


def group_norm(layer: dict, image: np.ndarray) -> np.ndarray:
    """[H, W, C], normalised over pixels and each of up to 8 groups of channels."""
    height, width, channels = image.shape
    grouped = image.reshape(height, width, math.gcd(channels, 8), -1)
    mean, variance = (f(grouped, axis=(0, 1, 3), keepdims=True) for f in (np.mean, np.var))
    return ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(image.shape) * layer["scale"] + layer["bias"]


def spatial_vae(params: dict, levels: int) -> tuple[Callable, Callable]:
    """(encode, decode) of one image, from a SpatialVAE's parameters."""
    params = float64(params)

    def encode(image):
        for i in range(levels):
            image = convolve(image, params[f"encoder_{i}"], padding=2)
            image = leaky_relu(group_norm(params[f"encoder_norms_{i}"], image))
        return dense(params["encoder_mean"], image), dense(params["encoder_log_std"], image)

    def decode(latent):
        features = dense(params["decoder_code"], latent)
        for i in range(levels):
            features = convolve_transposed(features, params[f"decoder_{i}"], padding=2)
            features = leaky_relu(group_norm(params[f"decoder_norms_{i}"], features))
        return dense(params["decoder_image"], features)

    return encode, decode


def unet(params: dict, levels: int) -> Callable:
    """reconstruct(image), from a UNet's parameters."""
    params = float64(params)

    def level(layers, image):
        for i in range(2):
            kernel = layers[f"kernel_{i}"]
            kernel = (kernel - kernel.mean((0, 1, 2))) / np.sqrt(kernel.var((0, 1, 2)) + 1e-5)
            image = group_norm(layers[f"norm_{i}"], convolve(image, kernel, stride=1))
            image = image / (1 + np.exp(-image))
        return image

    def reconstruct(image):
        rows, columns = image.shape[:2]
        factor = 2 ** (levels - 1)
        features = np.pad(image, ((0, -rows % factor), (0, -columns % factor), (0, 0)), mode="edge")
        finer = []
        for i in range(levels):
            if i:
                finer.append(features)
                features = sum(features[a::2, b::2] for a in (0, 1) for b in (0, 1)) / 4
            features = level(params[f"encoder_levels_{i}"], features)
        for i in range(levels - 1):
            parts = np.split(dense(params[f"doubled_{i}"], features), 4, axis=-1)
            height, width, channels = parts[0].shape
            pixels = np.zeros((2 * height, 2 * width, channels))
            for k, part in enumerate(parts):
                pixels[k // 2 :: 2, k % 2 :: 2] = part
            features = level(params[f"decoder_levels_{i}"], np.concatenate([finer[-1 - i], pixels], axis=-1))
        return dense(params["image"], features)[:rows, :columns]

    return reconstruct


def second_stage(params: dict) -> Callable:
    """The negative ELBO of one latent at u = mean, from the parameters of a TwoStageVAE."""
    params = float64(params["second"])

    def hidden(name, x):
        h = x
        for i in range(3):
            h = np.maximum(dense(params[f"{name}_hidden_{i}"], h), 0)
        return np.concatenate([h, x])

    def negative_elbo(latent):
        features = hidden("encoder", latent)
        mean, log_std = dense(params["encoder_mean"], features), dense(params["encoder_log_std"], features)
        scale = -6 + np.log1p(np.exp(params["decoder_log_scale"] + 6))
        return kl(mean, log_std) + nll(latent, dense(params["decoder_mean"], hidden("decoder", mean)), scale).sum()

    return negative_elbo
