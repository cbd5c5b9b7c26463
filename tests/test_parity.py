"""Parity with the numbers of the released code in `golden/` (see its README)."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
from jaxvae import parity
from jaxvae.models import NETWORKS

pytestmark = pytest.mark.optimized

GOLDEN = Path(__file__).parent / "golden"
CONV = [("conv_64px", (8, 16, 32, 64), 32), ("conv_32px", (8, 16, 32), 16)]


def relative_error(got, expected) -> float:
    expected = np.asarray(expected, np.float64)
    return float(np.linalg.norm(np.asarray(got, np.float64) - expected) / np.linalg.norm(expected))


def torch_params(arrays) -> dict:
    return parity.params_from_torch({k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")})


def channels_last(array):
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


@pytest.fixture(autouse=True)
def in_float32():
    """JAX's default, which the functions of the library use. Those of `parity` are tested with others."""
    with jax.default_matmul_precision("float32"):
        yield


@pytest.mark.parametrize(("name", "features", "latent_size"), CONV)
def test_networks_equal_the_released_networks(name, features, latent_size):
    golden = np.load(GOLDEN / f"{name}.npz")
    images = channels_last(golden["input"])
    model = jaxvae.ConvVAE(images.shape[1:], latent_size, features)
    params = torch_params(golden)
    posterior = jaxvae.encode(model, params, images)
    assert relative_error(posterior.mean, golden["posterior_mean"]) < 1e-5
    assert relative_error(posterior.log_std, golden["posterior_log_std"]) < 1e-5
    reconstruction = jaxvae.decode(model, params, posterior.mean)
    assert relative_error(reconstruction, channels_last(golden["reconstruction"])) < 1e-5


@pytest.mark.parametrize("variant", ["released", "corrected"])
@pytest.mark.parametrize("log_scale", [0.0, -0.75])
@pytest.mark.parametrize(("name", "features", "latent_size"), CONV)
def test_scores_equal_those_of_the_brain_script(name, features, latent_size, log_scale, variant):
    golden = np.load(GOLDEN / f"{name}.npz")
    images = channels_last(golden["input"])
    model = jaxvae.ConvVAE(images.shape[1:], latent_size, features)
    with jax.default_matmul_precision("bfloat16"):
        scores = parity.pixel_scores(model, torch_params(golden), images, log_scale=log_scale, variant=variant)
    prefix = f"{variant}/log_scale={log_scale}/"
    expected = {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}
    assert scores.keys() == expected.keys()
    errors = {what: relative_error(scores[what], channels_last(expected[what])) for what in expected}
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("log_scale", [0.0, -0.75])
def test_library_scores_equal_the_corrected_scores(log_scale):
    golden = np.load(GOLDEN / "conv_64px.npz")
    images = channels_last(golden["input"])
    model, params = jaxvae.ConvVAE((64, 64, 1), 32, (8, 16, 32, 64)), torch_params(golden)
    samples = jaxvae.sample_scores(model, params, images, log_scale=log_scale)
    maps = jaxvae.pixel_scores(model, params, images, log_scale=log_scale)
    prefix = f"corrected/log_scale={log_scale}/"
    assert relative_error(samples.kl, golden[prefix + "kl"]) < 1e-5
    assert relative_error(samples.nll, golden[prefix + "nll"]) < 1e-5
    for name in ("elbo_grad", "kl_grad", "rec_grad"):
        # The released gradients are gradients of the batch mean, ours of each image.
        expected = channels_last(golden[f"{prefix}{name}_raw"]) * len(images)
        assert relative_error(getattr(maps, name), expected) < 1e-4, name


def test_25_training_steps_equal_those_of_the_fashion_mnist_script():
    golden = np.load(GOLDEN / "dense_train_25_steps.npz")
    model, config = jaxvae.DenseVAE((28, 28, 1)), jaxvae.TrainConfig(batch_size=32)
    hparams = jaxvae.Hyperparams(learning_rate=1e-3, log_scale=float(golden["log_scale"]))
    state = jaxvae.init(model, config, hparams, jax.random.key(0))
    # A new state, because leaves of an initial state can share a buffer.
    state = jaxvae.TrainState(state.step, torch_params(golden), state.opt_state, state.key)

    def with_noise(noise):
        def objective(model, params, images, key=None, *, log_scale=0.0):
            posterior = jaxvae.encode(model, params, images)
            latents = posterior.mean + jnp.exp(0.5 * posterior.log_std) * noise
            nll = jaxvae.gaussian_nll(images, jaxvae.decode(model, params, latents), log_scale=log_scale)
            return jaxvae.ElboTerms(jaxvae.gaussian_kl(posterior), nll)

        return objective

    @jax.jit
    def update(state, images, noise):
        return jaxvae.step(model, config, hparams, state, images, objective=with_noise(noise))

    losses, kls, nlls = [], [], []
    for images, noise in zip(golden["images"], golden["eps"], strict=True):
        state, metrics = update(state, images.reshape(-1, 28, 28, 1), noise)
        losses.append(metrics.loss)
        kls.append(metrics.kl)
        nlls.append(metrics.nll)
    np.testing.assert_allclose(losses, golden["loss"], rtol=1e-4)
    np.testing.assert_allclose(kls, golden["kl"].mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(nlls, golden["nll"].mean(axis=1), rtol=1e-4)
    final = state.params
    np.testing.assert_allclose(final["decoder_image"]["bias"], golden["final/fc4.bias"], atol=1e-5)
    assert relative_error(jnp.linalg.norm(final["encoder_hidden"]["kernel"]), golden["final/fc1.weight_norm"]) < 1e-5


def test_the_released_objective_draws_with_half_the_log_std():
    model = jaxvae.DenseVAE((8, 8, 1), latent_size=3, hidden_size=16)
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 1))
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    key = jax.random.key(2)
    posterior = jaxvae.encode(model, params, images)
    noise = jax.random.normal(key, posterior.mean.shape[::-1]).T
    reconstruction = jaxvae.decode(model, params, posterior.mean + jnp.exp(posterior.log_std / 2) * noise)
    released = parity.dense_elbo_terms(model, params, images, key)
    np.testing.assert_allclose(released.nll, jaxvae.gaussian_nll(images, reconstruction, log_scale=0.0), rtol=1e-6)
    np.testing.assert_allclose(released.kl, jaxvae.gaussian_kl(posterior))
    scores = parity.sample_scores(model, params, images, key)
    np.testing.assert_allclose(scores.elbo, released.kl + released.nll.sum(axis=(1, 2, 3)), rtol=1e-5)
    corrected = parity.sample_scores(model, params, images, key, variant="corrected")
    expected = jaxvae.sample_scores(model, params, images, key)
    np.testing.assert_allclose(corrected.elbo, expected.elbo, rtol=1e-5)


@pytest.mark.parametrize("default", ["bfloat16", "tensorfloat32"])
def test_products_are_float32_whatever_the_default(default):
    conv, dense = jaxvae.ConvVAE((16, 16, 1), 4, (4, 8)), jaxvae.DenseVAE((8, 8, 1), 3, 16)
    key = jax.random.key(0)

    def maps(params, images):
        return parity.pixel_scores(conv, params, images, log_scale=0.0, variant="released")

    def image_scores(params, images):
        return parity.sample_scores(dense, params, images, key)

    def loss(params, images):
        return parity.dense_elbo_terms(dense, params, images, key).nll.sum()

    def library(params, images):
        return jaxvae.encode(dense, params, images)

    cases = [(conv, maps), (dense, image_scores), (dense, jax.grad(loss)), (dense, library)]
    found = []
    with jax.default_matmul_precision(default):
        for model, function in cases:
            images = jnp.zeros((3, *model.image_shape))
            params = jax.eval_shape(model.init, key, images)["params"]
            lowered = jax.jit(function).lower(params, images).as_text()
            precisions = re.findall(r"\b(?:DEFAULT|HIGH|HIGHEST)\b", lowered)
            assert len(precisions) == 2 * len(re.findall(r"stablehlo\.(?:dot_general|convolution)\b", lowered)) > 0
            found.append({*precisions})
    assert found == [{"HIGHEST"}] * 3 + [{{"bfloat16": "DEFAULT", "tensorfloat32": "HIGH"}[default]}]


def test_an_unknown_state_dict_is_refused():
    with pytest.raises(ValueError, match=r"not of a released VAE, because fc1\.weight"):
        parity.params_from_torch({"layer.weight": np.zeros((2, 2))})


def test_an_unknown_variant_is_refused(vae, images):
    model, params = vae
    for call in (
        lambda: parity.pixel_scores(model, params, images, log_scale=0.0, variant="Released"),
        lambda: parity.sample_scores(model, params, images, jax.random.key(0), variant="Released"),
    ):
        with pytest.raises(ValueError, match="variant='Released': unknown; use 'released' or 'corrected'"):
            call()


def test_each_arithmetic_has_a_model():
    assert set(parity.ARITHMETICS) == {name for network in NETWORKS.values() for name in network.arithmetics}
    assert {name for name, arithmetic in parity.ARITHMETICS.items() if arithmetic.at_draw} == {"released"}
