from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
import oracle
from jaxvae import models, parity


def count(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def parameters_of(model):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *model.image_shape)))["params"]


def test_the_papers_networks_have_the_papers_sizes():
    assert count(parameters_of(jaxvae.ConvVAE((64, 64, 1), 256, (16, 32, 64, 256)))) == 3_752_448
    assert count(parameters_of(jaxvae.DenseVAE((28, 28, 1), 20))) == 652_824


@pytest.mark.parametrize("shape", [(16, 16, 1), (32, 16, 3), (8, 40, 5)])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_any_size_and_any_channels_come_back(kind, shape):
    model = jaxvae.ConvVAE(shape, 3, (2, 4, 6)) if kind == "conv" else jaxvae.DenseVAE(shape, 3, 8)
    images = jnp.zeros((2, *shape))
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    posterior = jaxvae.encode(model, params, images)
    assert posterior.mean.shape == posterior.log_std.shape == (2, 3)
    assert jaxvae.decode(model, params, posterior.mean).shape == (2, *shape)


def test_a_size_the_levels_do_not_divide_names_the_way_out():
    with pytest.raises(ValueError, match=r"image_shape=\(30, 64, 1\) cannot be halved 3 times; use 32x64 images or"):
        jaxvae.ConvVAE((30, 64, 1), features=(4, 8, 16))


def test_images_of_another_shape_are_refused(vae):
    model, params = vae
    with pytest.raises(ValueError, match=r"images are \[2, 8, 8, 1\]; the model wants"):
        jaxvae.encode(model, params, jnp.zeros((2, 8, 8, 1)))


def test_both_networks_against_float64(vae, images):
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


def test_weights_start_uniform_within_one_over_the_root_of_fan_in():
    model = jaxvae.ConvVAE((64, 64, 1), 256)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 1)))["params"]
    # Fan-ins as PyTorch counts them: of a transposed convolution on its output side.
    fan_ins = {"encoder_0": 16, "encoder_3": 64 * 16, "encoder_latent": 4096, "decoder_latent": 4096, "decoder_0": 1024}
    for name, fan_in in fan_ins.items():
        bound = fan_in**-0.5
        weights = np.asarray(params[name])
        assert np.abs(weights).max() <= bound
        np.testing.assert_allclose(weights.std(), bound / np.sqrt(3), rtol=0.15)


def test_a_draw_in_one_row_is_the_draw_of_its_shape():
    key, shape = jax.random.key(3), (4, 4, 3, 5)
    np.testing.assert_array_equal(
        models._uniform(25)(key, shape), jax.random.uniform(key, shape, minval=-0.2, maxval=0.2)
    )


def test_equal_models_are_one_value():
    first, second = jaxvae.ConvVAE((64, 64, 1), features=(4, 8)), jaxvae.ConvVAE((64, 64, 1), features=(4, 8))
    assert first == second
    assert hash(first) == hash(second)
    assert first != jaxvae.ConvVAE((64, 64, 1), features=(4, 16))
    for dtype in ("float32", np.dtype("float32"), np.float32):
        same = jaxvae.ConvVAE((64, 64, 1), features=(4, 8), dtype=dtype)
        assert (same, hash(same)) == (first, hash(first))
    with pytest.raises(ValueError, match="has no fractions"):
        jaxvae.ConvVAE((64, 64, 1), dtype=np.int32)


def test_bfloat16_stays_near_float32_and_ends_in_float32(images):
    model = jaxvae.ConvVAE((16, 24, 2), 5, (4, 8))
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    half = jaxvae.ConvVAE((16, 24, 2), 5, (4, 8), dtype=jnp.bfloat16)
    full_posterior, half_posterior = (jaxvae.encode(m, params, images) for m in (model, half))
    assert half_posterior.mean.dtype == jnp.float32
    np.testing.assert_allclose(half_posterior.mean, full_posterior.mean, atol=0.02)


def test_a_draw_has_the_posteriors_moments():
    posterior = jaxvae.Posterior(
        jnp.full((20_000, 2), 3.0), jnp.broadcast_to(jnp.log(jnp.array([0.5, 2.0])), (20_000, 2))
    )
    draws = np.asarray(jaxvae.reparameterize(posterior, jax.random.key(0)))
    np.testing.assert_allclose(draws.mean(axis=0), 3.0, atol=0.05)
    np.testing.assert_allclose(draws.std(axis=0), [0.5, 2.0], rtol=0.03)
    np.testing.assert_array_equal(jaxvae.reparameterize(posterior, None), posterior.mean)


def test_a_latent_has_the_same_noise_however_many_there_are():
    """So that a sweep over the size of the latent equals runs of each size."""
    few, many = (jaxvae.Posterior(jnp.zeros((3, size)), jnp.zeros((3, size))) for size in (2, 5))
    key = jax.random.key(0)
    np.testing.assert_array_equal(jaxvae.reparameterize(few, key), jaxvae.reparameterize(many, key)[:, :2])


class Own(nn.Module):
    """A network as one writes it without having read of any other: compact, of two layers, and no `__call__`."""

    image_shape: tuple[int, int, int] = (8, 8, 1)
    latent_size: int = 3
    wrong: str = ""

    def setup(self):
        self.heads, self.back = nn.Dense(2 * self.latent_size), nn.Dense(64)

    def encode(self, images):
        mean, log_std = jnp.split(self.heads(images.reshape(len(images), -1)), 2, axis=-1)
        log_std = log_std[:, :1] if self.wrong == "log_std" else log_std
        return (mean, log_std) if self.wrong == "tuple" else jaxvae.Posterior(mean, log_std)

    def decode(self, latents):
        image = self.back(latents).reshape(len(latents), 8, 8, 1)
        return image[:, :, :1] if self.wrong == "decode" else image


def laplace_nll(images, means, *, log_scale):
    return jnp.abs(images - means) * jnp.exp(-log_scale) + log_scale + jnp.log(2.0)


def test_a_model_and_a_likelihood_of_ones_own_train_and_score():
    model, config = Own(), jaxvae.TrainConfig(batch_size=4)
    hparams = jaxvae.Hyperparams(learning_rate=1e-2, log_scale=-1.0)
    images = jax.random.uniform(jax.random.key(0), (12, 8, 8, 1))
    objective = functools.partial(jaxvae.elbo_terms, likelihood=laplace_nll)
    state = jaxvae.init(model, config, hparams, jax.random.key(0))
    state, metrics = jaxvae.fit(model, config, hparams, state, images, steps=60, objective=objective)
    assert metrics.loss[-5:].mean() < metrics.loss[:5].mean() - 5
    runs = jaxvae.grid(learning_rate=[1e-2], latent_size=[2, 3])
    states, _ = jaxvae.fit_many(model, config, runs, images, steps=3, objective=objective)
    assert states.params["heads"]["kernel"].shape == (2, 64, 6)

    def nll(images):
        means = jaxvae.decode(model, state.params, jaxvae.encode(model, state.params, images).mean)
        return laplace_nll(images, means, log_scale=-1.0).sum(axis=(1, 2, 3))

    scores = jaxvae.score_batch(model, state.params, images, log_scale=-1.0, likelihood=laplace_nll, window=1)
    np.testing.assert_allclose(scores.samples.nll, nll(images), rtol=1e-5)
    expected = jnp.abs(jax.grad(lambda images: nll(images).sum())(images))
    np.testing.assert_allclose(scores.maps["rec_grad"], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("log_std", r"Own.encode gives mean \[1, 3\] and log_std \[1, 1\]; both have to be \[B, Z\], \[1, 3\]"),
        ("tuple", r"Own.encode gives tuple; return jaxvae.Posterior\(mean, log_std\)"),
        ("decode", r"Own.decode gives \[1, 8, 1, 1\]; it has to be \[B, H, W, C\], \[1, 8, 8, 1\]"),
    ],
)
def test_a_model_of_ones_own_that_gives_other_shapes_is_told_so(wrong, message):
    with pytest.raises(ValueError, match=message):
        jaxvae.init(Own(wrong=wrong), jaxvae.TrainConfig(), jaxvae.Hyperparams(), jax.random.key(0))


def test_bytes_are_fractions_everywhere(vae):
    model, params = vae
    raw = np.random.default_rng(0).integers(0, 256, (2, *model.image_shape), np.uint8)
    for function in (jaxvae.encode, jaxvae.elbo_terms, parity.dense_elbo_terms):
        got, expected = (function(model, params, images) for images in (raw, raw / np.float32(255)))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, expected)


def test_a_list_of_sizes_is_as_good_as_a_tuple():
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
def test_sizes_that_no_network_has_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
