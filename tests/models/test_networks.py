"""The networks of the paper."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
import oracle
from jaxvae.models import MODELS, NETWORKS
from jaxvae.models.model import has_latent


def count(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def parameters_of(model):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *model.image_shape)))["params"]


def test_the_papers_networks_have_its_numbers_of_parameters():
    assert count(parameters_of(jaxvae.ConvVAE((64, 64, 1), 256, (16, 32, 64, 256)))) == 3_752_448
    assert count(parameters_of(jaxvae.DenseVAE((28, 28, 1), 20))) == 652_824


@pytest.mark.parametrize("shape", [(16, 16, 1), (32, 16, 3), (8, 40, 5)])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_reconstructions_have_the_shape_of_the_images(kind, shape):
    model = jaxvae.ConvVAE(shape, 3, (2, 4, 6)) if kind == "conv" else jaxvae.DenseVAE(shape, 3, 8)
    images = jnp.zeros((2, *shape))
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    posterior = jaxvae.encode(model, params, images)
    assert posterior.mean.shape == posterior.log_std.shape == (2, 3)
    assert jaxvae.decode(model, params, posterior.mean).shape == (2, *shape)


def test_an_image_size_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match=r"image_shape=\(30, 64, 1\): cannot be halved 3 times; use 32x64 images or"):
        jaxvae.ConvVAE((30, 64, 1), features=(4, 8, 16))


def test_networks_match_float64(vae, images):
    model, params = vae
    if isinstance(model, jaxvae.ConvVAE):
        encode, decode = oracle.conv_vae(params, levels=2)
    else:
        encode, decode = oracle.dense_vae(params, model.image_shape)
    posterior = jaxvae.encode(model, params, images)
    reconstructions = jaxvae.decode(model, params, posterior.mean)
    for i, image in enumerate(np.asarray(images, np.float64)):
        mean, log_std = encode(image)
        np.testing.assert_allclose(posterior.mean[i], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(posterior.log_std[i], log_std, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(reconstructions[i], decode(mean), rtol=1e-4, atol=1e-5)


def test_equal_models_are_equal_and_hash_equally():
    first, second = jaxvae.ConvVAE((64, 64, 1), features=(4, 8)), jaxvae.ConvVAE((64, 64, 1), features=(4, 8))
    assert first == second
    assert hash(first) == hash(second)
    assert first != jaxvae.ConvVAE((64, 64, 1), features=(4, 16))
    for dtype in ("float32", np.dtype("float32"), np.float32):
        same = jaxvae.ConvVAE((64, 64, 1), features=(4, 8), dtype=dtype)
        assert (same, hash(same)) == (first, hash(first))
    with pytest.raises(ValueError, match="must be a floating-point type"):
        jaxvae.ConvVAE((64, 64, 1), dtype=np.int32)


def test_bfloat16_posteriors_are_float32_and_close(images):
    model = jaxvae.ConvVAE((16, 24, 2), 5, (4, 8))
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    half = jaxvae.ConvVAE((16, 24, 2), 5, (4, 8), dtype=jnp.bfloat16)
    full_posterior, half_posterior = (jaxvae.encode(m, params, images) for m in (model, half))
    assert half_posterior.mean.dtype == jnp.float32
    np.testing.assert_allclose(half_posterior.mean, full_posterior.mean, atol=0.02)


def test_lists_of_sizes_equal_tuples():
    assert jaxvae.DenseVAE([8, 8, 1]) == jaxvae.DenseVAE((8, 8, 1))
    assert hash(jaxvae.ConvVAE([8, 8, 1], features=[2, 4])) == hash(jaxvae.ConvVAE((8, 8, 1), features=(2, 4)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jaxvae.DenseVAE((28, 28)), r"image_shape=\(28, 28\): give \(H, W, C\), with C = 1 for grey"),
        (lambda: jaxvae.ConvVAE((0, 8, 1)), r"image_shape=\(0, 8, 1\)"),
        (lambda: jaxvae.ConvVAE((8, 8, 1), latent_size=0), "latent_size=0: give whole numbers above 0"),
        (lambda: jaxvae.ConvVAE((8, 8, 1), features=(4, 2.5)), r"features=\(4, 2.5\)"),
        (lambda: jaxvae.ConvVAE((8, 8, 1), features=()), r"features=\(\): give whole numbers above 0"),
        (lambda: jaxvae.DenseVAE((8, 8, 1), hidden_size=-1), r"latent_size, hidden_size=\(20, -1\)"),
    ],
)
def test_wrong_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_table_makes_every_network() -> None:
    for key, network in NETWORKS.items():
        model = network((16, 16, 1), network.latent_size)
        assert MODELS[type(model).__name__] is network
        assert type(model).latent_size == network.latent_size
        assert all(hasattr(model, name) for name in network.settings)
        assert network.name == key
        assert network.latent == has_latent(model)


def test_reading_the_table_does_not_import_jax() -> None:
    code = "import sys, jaxvae.models; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
