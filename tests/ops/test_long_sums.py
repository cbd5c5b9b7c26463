"""Compiled sums of products over more than 32,768 rows are correct.

On CPUs, jax 0.10.2 is wrong from row 32,768 on for some sums after a product with a 3x3 matrix (jax-ml/jax#39103).
Three channels, three latents and 36,865 rows trigger the fault.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae import ConvVAE, DenseVAE, parity
from jaxvae.models.model import Model, init_params
from jaxvae.objectives.elbo import elbo_terms, negative_elbo
from jaxvae.scores.gradients import pixel_scores, sample_scores
from jaxvae.types import Params

pytestmark = pytest.mark.optimized  # An optimization causes the fault.
ROWS = 36_865


def params_and_images(model: Model, count: int) -> tuple[Params, np.ndarray]:
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), init_params(model, jax.random.key(0)))
    return jax.tree.map(jnp.float32, params), rng.random((count, *model.image_shape), np.float32)


def dense_in_float64(params: Params, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, Params]:
    """KL [N], NLL [N, P] and the gradient of a DenseVAE's mean ELBO, at z = mean."""
    weights: Any = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[name]["kernel"] + weights[name]["bias"]

    def pull(name: str, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        gradient[name] = {"kernel": x.T @ out, "bias": out.sum(axis=0)}
        return out @ weights[name]["kernel"].T

    x = images.reshape(len(images), -1).astype(np.float64)
    hidden = np.maximum(linear("encoder_hidden", x), 0)
    mean, log_std = linear("encoder_mean", hidden), linear("encoder_log_std", hidden)
    back = np.maximum(linear("decoder_hidden", mean), 0)
    y = 1 / (1 + np.exp(-linear("decoder_image", back)))
    kl = 0.5 * (np.exp(2 * log_std) - 1 - 2 * log_std + mean**2).sum(axis=1)
    nll = 0.5 * (x - y) ** 2 + 0.5 * np.log(2 * np.pi)
    gradient: Params = {}
    to_back = pull("decoder_image", back, (y - x) * y * (1 - y) / len(x)) * (back > 0)
    to_mean = pull("decoder_hidden", mean, to_back) + mean / len(x)
    to_hidden = pull("encoder_mean", hidden, to_mean)
    to_hidden += pull("encoder_log_std", hidden, (np.exp(2 * log_std) - 1) / len(x))
    pull("encoder_hidden", x, to_hidden * (hidden > 0))
    return kl, nll, gradient


@pytest.mark.parametrize("shape", [(1, 2, 3), (33, 993, 1)], ids=["many images", "many pixels"])
def test_the_dense_elbo_and_its_gradient_equal_float64(shape: tuple[int, int, int]) -> None:
    model = DenseVAE(shape, 3, 3)
    params, images = params_and_images(model, ROWS if shape[0] == 1 else 3)

    @jax.jit
    def compiled(params: Params) -> tuple[Any, Params]:
        def loss(params: Params) -> Any:
            terms = elbo_terms(model, params, images)
            return jnp.mean(negative_elbo(terms)), terms

        gradient, terms = jax.grad(loss, has_aux=True)(params)
        return terms, gradient

    terms, gradient = compiled(params)
    kl, nll, expected = dense_in_float64(params, images)
    np.testing.assert_allclose(terms.kl, kl, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(terms.nll.reshape(nll.shape), nll, rtol=1e-5)
    for (path, got), (_, want) in zip(*map(jax.tree.leaves_with_path, (gradient, expected)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max(), err_msg=str(path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "count", "part"),
    [
        (DenseVAE((1, 2, 3), 3, 3), ROWS, 7373),
        (ConvVAE((4, 4, 3), 3, (3,)), ROWS, 7373),
        (ConvVAE((32, 32, 3), 3, (3,)), 145, 29),
    ],
    ids=["dense", "conv, many images", "conv, many pixels"],
)
def test_many_rows_equal_parts_of_them(model: Model, count: int, part: int) -> None:
    """Scores do not depend on the batch, and gradients of a mean are means."""
    params, images = params_and_images(model, count)

    @jax.jit
    def compiled(images: np.ndarray) -> tuple[Any, Any]:
        def loss(params: Params, terms_of: Any) -> Any:
            return jnp.mean(negative_elbo(terms_of(model, params, images)))

        gradients = [jax.grad(loss)(params, terms_of) for terms_of in (elbo_terms, parity.dense_elbo_terms)]
        scores = pixel_scores(model, params, images), sample_scores(model, params, images)
        return scores, gradients

    scores, gradients = compiled(images)
    parts = [compiled(images[start : start + part]) for start in range(0, count, part)]
    weights = [len(images[start : start + part]) / count for start in range(0, count, part)]
    expected = (
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *(one for one, _ in parts)),
        jax.tree.map(lambda *leaves: np.tensordot(weights, np.float64(leaves), 1), *(two for _, two in parts)),
    )
    for (path, got), (_, want) in zip(*map(jax.tree.leaves_with_path, ((scores, gradients), expected)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max(), err_msg=str(path))
