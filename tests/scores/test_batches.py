"""Scores of batches: each image keeps its score, and the program computes nothing twice."""

from __future__ import annotations

import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
from jaxvae.models import param_shapes
from jaxvae.ops import filters
from jaxvae.scores import MAPS, PIXEL_SCORES
from jaxvae.scores.batches import BATCH
from oracle import assert_close

pytestmark = pytest.mark.optimized
GRADIENTS = ("elbo_grad", "kl_grad", "rec_grad")
COMBINATIONS = {name: one.combination for name, one in PIXEL_SCORES.items() if one.combination is not None}


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_batches_give_every_image_its_score_whatever_their_size(vae, images, batch_size):
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


def test_settings_reach_every_map(vae, images):
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


@pytest.mark.parametrize("name", MAPS)
def test_a_map_alone_is_that_among_all(vae, images, name):
    model, params = vae
    alone = jaxvae.score_batch(model, params, images, log_scale=-0.5, maps=(name,)).maps
    among = jaxvae.score_batch(model, params, images, log_scale=-0.5).maps
    assert alone.keys() == {name}
    assert_close(alone[name], among[name])


def test_a_stream_of_two_kinds_of_images_is_refused(vae, images):
    model, params = vae
    raw = np.zeros(images.shape, np.uint8)
    with pytest.raises(ValueError, match="images of uint8 are followed by float32; give all in one kind"):
        list(jaxvae.score_batches(model, params, iter([raw, np.asarray(images)]), batch_size=64))


def test_a_partial_batch_compiles_nothing_anew(vae, images, compilations):
    (model, params), images = vae, np.asarray(images)
    assert len(list(jaxvae.score_batches(model, params, images[:4], batch_size=2))) == 2
    compilations.clear()
    assert len(list(jaxvae.score_batches(model, params, images[:5], batch_size=2))) == 3
    assert compilations == []


def test_only_what_is_asked_for_and_nothing_unknown(vae, images):
    model, params = vae
    (batch,) = jaxvae.score_batches(model, params, images, maps=("kl_grad",))
    assert set(batch.maps) == {"kl_grad"}
    assert batch.reconstructions is None
    with pytest.raises(ValueError, match=r"maps=\['kl'\] are unknown; choose from rec_error"):
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
def test_the_program_holds_nothing_twice_and_nothing_in_vain(maps, passes):
    model, batch = jaxvae.ConvVAE((32, 32, 1), 8, (4, 8, 6)), 7
    params = jaxvae.init(model, jaxvae.TrainConfig(), jaxvae.Hyperparams(), jax.random.key(0)).params

    def only_maps(params, images):
        return jaxvae.score_batch(model, params, images, maps=maps).maps

    program = jax.jit(only_maps).lower(params, jnp.zeros((batch, 32, 32, 1))).compile().as_text()
    # Every level and every latent layer is one convolution or one product, whose operands tell how many images it has.
    products = re.findall(r"= f32(\[[0-9,]*\])\S* (?:convolution|dot)\(", program)
    sizes = [math.prod(json.loads(size)) for size in products]
    assert len(sizes) == sum(passes.values()) * (len(model.features) + 1), products
    assert sizes.count(2 * batch * 4 * 4 * 6) == passes.get("two", 0), products
    for word in ("callback", "infeed", "outfeed"):
        assert word not in program


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the forms are a processor's")
@pytest.mark.parametrize("maps", [MAPS, ("combi", "elbo_grad")])
def test_the_brain_networks_batch_holds_nothing_twice_and_stays_below_what_malloc_keeps(maps):
    model = jaxvae.ConvVAE((64, 64, 1))
    params, images = param_shapes(model), jax.ShapeDtypeStruct((BATCH, 64, 64, 1), jnp.float32)

    def scores(params, images, log_scale):
        return jaxvae.score_batch(model, params, images, log_scale=log_scale, maps=maps)

    program = jax.jit(scores).lower(params, images, jax.ShapeDtypeStruct((), jnp.float32)).compile()
    products = re.findall(r"= f32\[[0-9,]*\]\S* (?:convolution|dot)\(", program.as_text())
    # Two passes down (encoder and the decoder's pullback) of one product and three times Winograd's nine, two up of one
    # product, one convolution and two times nine, four latent layers, and the likelihood summed over the pixels.
    assert len(products) == 2 * (1 + 3 * 9) + 2 * (2 + 2 * 9) + 4 + 1
    # Above 32 MiB glibc asks the system for the memory in every call, and its page faults cost a sixth of the time.
    assert program.memory_analysis().temp_size_in_bytes < 2**25


def test_every_program_lowers_for_every_platform(vae, images):
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


def test_an_image_that_is_no_number_has_no_number_for_a_score(vae, images):
    model, params = vae
    scores = jaxvae.score_batch(model, params, images.at[0, 0, 0, 0].set(jnp.nan))
    for values in (*scores.samples, *scores.maps.values()):
        assert np.isnan(values[0]).any()
        assert np.isfinite(values[1:]).all()


def test_a_few_images_share_a_program(vae, images, compilations):
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
        ({"batch_size": 0}, "batch_size=0 is no number of images"),
        ({"maps": ("nonsense",)}, r"maps=\['nonsense'\] are unknown; choose from rec_error"),
        ({"maps": "combi"}, r"maps='combi' is a name; give a tuple of them, \('combi',\)"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_scored(vae, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        jaxvae.score_batches(*vae, images[:0], **arguments)
