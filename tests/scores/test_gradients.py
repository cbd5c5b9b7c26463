"""Laws of the scores: what they are made of, and what they must not depend on."""

from __future__ import annotations

import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
import oracle
from jaxvae.models import param_shapes
from jaxvae.ops import filters
from jaxvae.scores import MAPS, PIXEL_SCORES
from jaxvae.scores.gradients import BATCH, BLOCK

pytestmark = pytest.mark.optimized

GRADIENTS = ("elbo_grad", "kl_grad", "rec_grad")
COMBINATIONS = {name: one.combination for name, one in PIXEL_SCORES.items() if one.combination is not None}


def assert_close(got, expected, tolerance=1e-5):
    expected = np.asarray(expected)
    np.testing.assert_allclose(got, expected, atol=tolerance * np.abs(expected).max(), rtol=0)


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


def test_every_score_against_float64_and_central_differences(vae, images):
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


def test_an_image_does_not_know_its_neighbours(vae, images):
    model, params = vae
    together = jaxvae.pixel_scores(model, params, images)
    alone = jaxvae.pixel_scores(model, params, images[2:3])
    among_strangers = jaxvae.pixel_scores(model, params, images.at[3:].set(100.0))
    for name, maps in together._asdict().items():
        assert_close(getattr(alone, name)[0], maps[2])
        assert_close(getattr(among_strangers, name)[2], maps[2])


def test_a_large_batch_goes_in_blocks_and_gives_the_same_scores(vae, images):
    model, params = vae
    many = jnp.concatenate([images] * 22)[: 2 * BLOCK + 2]  # Three blocks of 44, the last one filled up
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


def test_vmap_over_a_population_of_parameters(vae, images):
    model, params = vae
    others = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf, -leaf]), params)
    population = jax.vmap(lambda p: jaxvae.sample_scores(model, p, images))(others)
    for r, factor in enumerate((1.0, 0.5, -1.0)):
        single = jaxvae.sample_scores(model, jax.tree.map(lambda leaf, f=factor: f * leaf, params), images)
        np.testing.assert_allclose(population.elbo[r], single.elbo, rtol=1e-4)


def test_scores_without_a_key_repeat_and_inputs_survive(vae, images):
    model, params = vae
    first = jaxvae.sample_scores(model, params, images)
    second = jaxvae.sample_scores(model, params, images)
    np.testing.assert_array_equal(first.elbo, second.elbo)
    np.testing.assert_allclose(first.elbo, first.kl + first.nll, rtol=1e-6)
    assert not images.is_deleted()


def test_uint8_images_are_fractions(vae):
    model, params = vae
    raw = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 2), dtype=np.uint8)
    assert_close(
        jaxvae.pixel_scores(model, params, raw).rec_error,
        jaxvae.pixel_scores(model, params, raw / np.float32(255)).rec_error,
    )


def scores_of(images):
    keys = jax.random.split(jax.random.key(0), 4)
    return jaxvae.PixelScores(*(jax.random.uniform(key, images.shape) for key in keys))


def test_every_variant_of_combi_by_its_formula(images):
    raw = scores_of(images)
    smooth = filters.gaussian_smooth(raw.kl_grad, sigma=3.0, window=7)
    smooth_error = filters.gaussian_smooth(raw.rec_error, sigma=3.0, window=7)
    assert_close(jaxvae.combine(raw), raw.rec_error * smooth)
    assert_close(jaxvae.combine(raw, smoothed="both"), smooth_error * smooth)
    nll = raw.rec_error / (2 * np.exp(-1.1) ** 2) - 1.1 + 0.5 * np.log(2 * np.pi)
    signed = jaxvae.combine(raw, variant="nll_product", log_scale=-1.1)
    assert_close(signed, nll * smooth)
    assert (np.asarray(signed) < 0).any()
    assert_close(jaxvae.combine(raw, variant="weighted_sum", weight=0.2), 0.8 * raw.rec_error + 0.2 * smooth)
    with pytest.raises(ValueError, match="variant='sum' is unknown"):
        jaxvae.combine(raw, variant="sum")  # pyright: ignore[reportArgumentType]


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


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_images_are_scored_in_single_precision(vae, images, dtype):
    model, params = vae
    narrow = images.astype(dtype)
    maps = jaxvae.pixel_scores(model, params, narrow, log_scale=-6.0)
    expected = jaxvae.pixel_scores(model, params, narrow.astype(jnp.float32), log_scale=-6.0)
    for got, wanted in zip(maps, expected, strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_array_equal(got, wanted)


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


def test_in_sixteen_bits_an_image_does_not_know_its_neighbours_either():
    model = jaxvae.ConvVAE((16, 16, 1), 8, (8, 32), dtype=jnp.bfloat16)
    images = jax.random.uniform(jax.random.key(2), (128, 16, 16, 1))  # 2^16 features of the second level.
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    together, alone = (jaxvae.sample_scores(model, params, some) for some in (images, images[:1]))
    np.testing.assert_allclose(together.kl[:1], alone.kl, rtol=1e-5)


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
