"""Scores of batches do not depend on the batch size and need few passes."""

from __future__ import annotations

import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
from jaxvae.models.model import param_shapes
from jaxvae.ops import filters
from jaxvae.ops.forms import PLATFORMS
from jaxvae.scores import MAPS, PIXEL_SCORES
from oracle import assert_close

pytestmark = pytest.mark.optimized
GRADIENTS = ("elbo_grad", "kl_grad", "rec_grad")
COMBINATIONS = {name: one.combination for name, one in PIXEL_SCORES.items() if one.combination is not None}


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_scores_do_not_depend_on_the_batch_size(vae, images, batch_size):
    model, params = vae
    batches = list(jaxvae.score_batches(model, params, np.asarray(images), batch_size=batch_size, reconstructions=True))
    assert [len(batch.samples.kl) for batch in batches] == [
        min(batch_size, 6 - i) for i in range(0, 6, min(batch_size, 6))
    ]
    whole, raw = jaxvae.sample_scores(model, params, images), jaxvae.pixel_scores(model, params, images)
    np.testing.assert_allclose(np.concatenate([batch.samples.elbo for batch in batches]), whole.elbo, rtol=1e-5)
    maps = {name: np.concatenate([batch.maps[name] for batch in batches]) for name in MAPS}
    assert_close(maps["rec_error"], raw.rec_error)
    for name, knobs in COMBINATIONS.items():
        assert_close(maps[name], jaxvae.combine(raw, **knobs))
    for name in GRADIENTS:
        assert_close(maps[name], filters.gaussian_smooth(getattr(raw, name), sigma=3.0, window=7))
    reconstructions = np.concatenate([batch.reconstructions for batch in batches])
    assert_close(np.square(images - reconstructions), raw.rec_error)


def test_settings_change_every_map(vae, images):
    model, params = vae
    settings = {"log_scale": -0.7, "sigma": 1.0, "window": 5}
    (batch,) = jaxvae.score_batches(model, params, images, **settings)
    samples = jaxvae.sample_scores(model, params, images, log_scale=-0.7)
    np.testing.assert_allclose(batch.samples.nll, samples.nll, rtol=1e-5)
    raw = jaxvae.pixel_scores(model, params, images, log_scale=-0.7)
    for name, knobs in COMBINATIONS.items():
        assert_close(batch.maps[name], jaxvae.combine(raw, **settings, **knobs))
    for name in GRADIENTS:
        assert_close(batch.maps[name], filters.gaussian_smooth(getattr(raw, name), sigma=1.0, window=5))


def test_scores_of_many_images_are_the_scores_of_their_batches(vae, images):
    (model, params), images = vae, np.asarray(images)
    settings, done = {"log_scale": -0.7, "batch_size": 4, "maps": ("combi", "rec_error")}, []
    scores = jaxvae.score_images(model, params, images, reconstructions=True, progress=done.append, **settings)
    batches = list(jaxvae.score_batches(model, params, images, reconstructions=True, **settings))
    assert done == [4, 2]
    for name, values in scores.image_scores.items():
        np.testing.assert_array_equal(values, np.concatenate([getattr(batch.samples, name) for batch in batches]))
    for name, values in scores.maps.items():
        maps = np.concatenate([batch.maps[name] for batch in batches])
        np.testing.assert_allclose(values, maps.mean(axis=-1, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(scores.reconstructions, np.concatenate([batch.reconstructions for batch in batches]))
    without = jaxvae.score_images(model, params, images[:0], maps=())
    assert without.maps == {}
    assert without.reconstructions.shape == (0, *model.image_shape)


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_the_same_alone_and_among_others(vae, images, name):
    model, params = vae
    alone = jaxvae.score_batch(model, params, images, log_scale=-0.5, maps=(name,)).maps
    among = jaxvae.score_batch(model, params, images, log_scale=-0.5).maps
    assert alone.keys() == {name}
    assert_close(alone[name], among[name])


def test_arrays_of_two_dtypes_are_refused(vae, images):
    model, params = vae
    raw = np.zeros(images.shape, np.uint8)
    with pytest.raises(ValueError, match="images: float32 follows uint8; give all images in one dtype"):
        list(jaxvae.score_batches(model, params, iter([raw, np.asarray(images)]), batch_size=64))


def test_a_partial_batch_uses_the_compiled_program(vae, images, compilations):
    (model, params), images = vae, np.asarray(images)
    assert len(list(jaxvae.score_batches(model, params, images[:4], batch_size=2))) == 2
    compilations.clear()
    assert len(list(jaxvae.score_batches(model, params, images[:5], batch_size=2))) == 3
    assert compilations == []


def test_only_requested_maps_are_returned(vae, images):
    model, params = vae
    (batch,) = jaxvae.score_batches(model, params, images, maps=("kl_grad",))
    assert set(batch.maps) == {"kl_grad"}
    assert batch.reconstructions is None
    with pytest.raises(ValueError, match=r"maps=\['kl'\]: unknown; choose from rec_error"):
        list(jaxvae.score_batches(model, params, images, maps=("kl",)))
    assert list(jaxvae.score_batches(model, params, images[:0])) == []


@pytest.mark.parametrize(
    ("maps", "passes"),
    [
        # Encoder, decoder, the decoder's pullback, and the encoder's of two cotangents at once.
        (("rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi"), {"one": 3, "two": 1}),
        (("rec_error",), {"one": 2}),  # Encoder and decoder
        (("kl_grad",), {"one": 2}),  # Encoder and its pullback; no decoder
        (("combi",), {"one": 3}),  # Encoder, decoder, the encoder's pullback; not the decoder's
        (("elbo_grad",), {"one": 4}),  # Encoder, decoder and one pullback of each
    ],
)
def test_the_program_has_the_fewest_passes(maps, passes):
    model, batch = jaxvae.ConvVAE((32, 32, 1), 8, (4, 8, 6)), 7
    params = jaxvae.init(model, jaxvae.TrainConfig(), jaxvae.Hyperparams(), jax.random.key(0)).params

    def only_maps(params, images):
        return jaxvae.score_batch(model, params, images, maps=maps).maps

    program = jax.jit(only_maps).lower(params, jnp.zeros((batch, 32, 32, 1))).compile().as_text()
    # Each level and each latent layer is one convolution or product; its size tells how many images it has.
    products = re.findall(r"= f32(\[[0-9,]*\])\S* (?:convolution|dot)\(", program)
    sizes = [math.prod(json.loads(size)) for size in products]
    assert len(sizes) == sum(passes.values()) * (len(model.features) + 1), products
    assert sizes.count(2 * batch * 4 * 4 * 6) == passes.get("two", 0), products
    for word in ("callback", "infeed", "outfeed"):
        assert word not in program


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="these products are those of a CPU")
@pytest.mark.parametrize("maps", [MAPS, ("combi", "elbo_grad")])
def test_the_brain_networks_program_is_minimal_in_work_and_memory(maps):
    model = jaxvae.ConvVAE((64, 64, 1))
    params, images = param_shapes(model), jax.ShapeDtypeStruct((PLATFORMS["cpu"].batch, 64, 64, 1), jnp.float32)

    def scores(params, images, log_scale):
        return jaxvae.score_batch(model, params, images, log_scale=log_scale, maps=maps)

    program = jax.jit(scores).lower(params, images, jax.ShapeDtypeStruct((), jnp.float32)).compile()
    products = re.findall(r"= f32\[[0-9,]*\]\S* (?:convolution|dot)\(", program.as_text())
    # Encoder and decoder pullback: one product and three times Winograd's nine each. Decoder and encoder pullback: one
    # product, one convolution and two times nine each. Four latent layers, and the sum of the likelihood over pixels.
    assert len(products) == 2 * (1 + 3 * 9) + 2 * (2 + 2 * 9) + 4 + 1
    # Above 32 MiB, glibc requests the memory from the system in each call; its page faults take a sixth of the time.
    assert program.memory_analysis().temp_size_in_bytes < 2**25


def test_programs_compile_for_cpu_cuda_and_tpu(vae, images):
    model, params = vae
    platforms = ("cpu", "cuda", "tpu")

    def maps(params, images):
        return jaxvae.score_batch(model, params, images).maps

    assert jax.export.export(jax.jit(maps), platforms=platforms)(params, images).platforms == platforms
    config, hparams = jaxvae.TrainConfig(batch_size=2), jaxvae.Hyperparams()
    state = jaxvae.init(model, config, hparams, jax.random.key(0))

    def train(params, images):
        fresh = jaxvae.TrainState(state.step, params, state.opt_state, state.key)
        return jaxvae.fit(model, config, hparams, fresh, images, steps=2)[1]

    assert jax.export.export(jax.jit(train), platforms=platforms)(params, images).platforms == platforms


def test_nan_in_an_image_makes_only_its_scores_nan(vae, images):
    model, params = vae
    scores = jaxvae.score_batch(model, params, images.at[0, 0, 0, 0].set(jnp.nan))
    for values in (*scores.samples, *scores.maps.values()):
        assert np.isnan(values[0]).any()
        assert np.isfinite(values[1:]).all()


def test_similar_numbers_of_images_share_a_program(vae, images, compilations):
    (model, params), images = vae, np.asarray(images)

    def score(count):
        (found,) = jaxvae.score_batches(model, params, images[:count], maps=("rec_error",), window=3)
        assert len(found.samples.kl) == count

    for first, another in [(3, 4), (5, 6)]:
        score(first)
        compilations.clear()
        score(another)
        assert compilations == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"maps": ("nonsense",)}, r"maps=\['nonsense'\]: unknown; choose from rec_error"),
        ({"maps": "combi"}, r"maps='combi': is one name; give a tuple, \('combi',\)"),
    ],
)
def test_bad_arguments_are_refused_before_scoring(vae, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        jaxvae.score_batches(*vae, images[:0], **arguments)
