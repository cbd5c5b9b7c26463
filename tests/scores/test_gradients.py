"""Pixel and image scores against separate gradients, float64 and each other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
import oracle
from jaxvae.ops.forms import PLATFORMS
from oracle import assert_close

pytestmark = pytest.mark.optimized


@pytest.mark.parametrize("key", [None, jax.random.key(5)])
def test_one_pass_equals_three_separate_gradients(vae, images, key):
    model, params = vae

    def part(kl_weight, nll_weight):
        def total(images):
            terms = jaxvae.elbo_terms(model, params, images, key, log_scale=-0.5)
            return kl_weight * terms.kl.sum() + nll_weight * terms.nll.sum()

        return jnp.abs(jax.grad(total)(images))

    maps = jaxvae.pixel_scores(model, params, images, key, log_scale=-0.5)
    assert_close(maps.elbo_grad, part(1, 1))
    assert_close(maps.kl_grad, part(1, 0))
    assert_close(maps.rec_grad, part(0, 1))


def test_scores_match_float64_and_central_differences(vae, images):
    model, params = vae
    image, log_scale = np.asarray(images[0], np.float64), -0.5
    if isinstance(model, jaxvae.ConvVAE):
        encode, decode = oracle.conv_vae(params, levels=2)
    else:
        encode, decode = oracle.dense_vae(params, model.image_shape)

    def kl(x):
        return oracle.kl(*encode(x))

    def nll(x):
        return float(oracle.nll(x, decode(encode(x)[0]), log_scale).sum())

    samples = jaxvae.sample_scores(model, params, images, log_scale=log_scale)
    np.testing.assert_allclose(samples.kl[0], kl(image), rtol=1e-5)
    np.testing.assert_allclose(samples.nll[0], nll(image), rtol=1e-5)
    np.testing.assert_allclose(samples.elbo[0], kl(image) + nll(image), rtol=1e-5)
    maps = jaxvae.pixel_scores(model, params, images, log_scale=log_scale)
    assert_close(maps.rec_error[0], (image - decode(encode(image)[0])) ** 2)
    assert_close(maps.kl_grad[0], np.abs(oracle.gradient(kl, image)), 1e-4)
    assert_close(maps.rec_grad[0], np.abs(oracle.gradient(nll, image)), 1e-4)
    assert_close(maps.elbo_grad[0], np.abs(oracle.gradient(lambda x: kl(x) + nll(x), image)), 1e-4)


def test_scores_do_not_depend_on_the_batch(vae, images):
    model, params = vae
    together = jaxvae.pixel_scores(model, params, images)
    alone = jaxvae.pixel_scores(model, params, images[2:3])
    among_strangers = jaxvae.pixel_scores(model, params, images.at[3:].set(100.0))
    for name, maps in together._asdict().items():
        assert_close(getattr(alone, name)[0], maps[2])
        assert_close(getattr(among_strangers, name)[2], maps[2])


def test_blocks_of_a_large_batch_give_the_same_scores(vae, images):
    model, params = vae
    block = PLATFORMS["cpu"].block
    many = jnp.concatenate([images] * 22)[: 2 * block + 2]  # Three blocks of 44, the last one filled up
    sliced, whole = jaxvae.pixel_scores(model, params, many), jaxvae.pixel_scores(model, params, images)
    for got, expected in zip(sliced, whole, strict=True):
        assert_close(got[:6], expected)
        assert_close(got[66:72], expected)  # 66 is eleven times six.
    batch = jaxvae.score_batch(model, params, many, maps=("combi",), reconstructions=True)
    assert_close(batch.maps["combi"][66:72], jaxvae.combine(whole))
    np.testing.assert_allclose(batch.samples.elbo[66:72], jaxvae.sample_scores(model, params, images).elbo, rtol=1e-5)
    assert batch.reconstructions.shape == many.shape


def test_jit_equals_eager_and_vmap_equals_a_loop(vae, images):
    model, params = vae
    compiled = jaxvae.pixel_scores(model, params, images)
    with jax.disable_jit():
        eager = jaxvae.pixel_scores(model, params, images)
    mapped = jax.vmap(lambda image: jaxvae.pixel_scores(model, params, image[None]))(images)
    for a, b, c in zip(compiled, eager, mapped, strict=True):
        assert_close(a, b)
        assert_close(a, c[:, 0])


def test_vmap_over_parameters_equals_a_loop(vae, images):
    model, params = vae
    others = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf, -leaf]), params)
    population = jax.vmap(lambda p: jaxvae.sample_scores(model, p, images))(others)
    for r, factor in enumerate((1.0, 0.5, -1.0)):
        single = jaxvae.sample_scores(model, jax.tree.map(lambda leaf, f=factor: f * leaf, params), images)
        np.testing.assert_allclose(population.elbo[r], single.elbo, rtol=1e-4)


def test_scores_without_a_key_repeat_and_keep_their_inputs(vae, images):
    model, params = vae
    first = jaxvae.sample_scores(model, params, images)
    second = jaxvae.sample_scores(model, params, images)
    np.testing.assert_array_equal(first.elbo, second.elbo)
    np.testing.assert_allclose(first.elbo, first.kl + first.nll, rtol=1e-6)
    assert not images.is_deleted()


def test_uint8_images_are_divided_by_255(vae):
    model, params = vae
    raw = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 2), dtype=np.uint8)
    assert_close(
        jaxvae.pixel_scores(model, params, raw).rec_error,
        jaxvae.pixel_scores(model, params, raw / np.float32(255)).rec_error,
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_images_are_scored_in_single_precision(vae, images, dtype):
    model, params = vae
    narrow = images.astype(dtype)
    maps = jaxvae.pixel_scores(model, params, narrow, log_scale=-6.0)
    expected = jaxvae.pixel_scores(model, params, narrow.astype(jnp.float32), log_scale=-6.0)
    for got, wanted in zip(maps, expected, strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_array_equal(got, wanted)


def test_bfloat16_scores_do_not_depend_on_the_batch():
    model = jaxvae.ConvVAE((16, 16, 1), 8, (8, 32), dtype=jnp.bfloat16)
    images = jax.random.uniform(jax.random.key(2), (128, 16, 16, 1))  # 2^16 features of the second level.
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    together, alone = (jaxvae.sample_scores(model, params, some) for some in (images, images[:1]))
    np.testing.assert_allclose(together.kl[:1], alone.kl, rtol=1e-5)
