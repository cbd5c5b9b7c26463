"""Augmentation against SciPy and its ranges, and training with it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.interpolate import BSpline

import jaxvae
from jaxvae.augment import Augmentation, elastic_field, places, warp

PAPER = Augmentation()
OFF = Augmentation(
    mirror=0.0, rotation=0.0, scale=(1.0, 1.0), elastic=0.0, brightness=(1.0, 1.0), noise_variance=(0.0, 0.0)
)
GEOMETRY = Augmentation(brightness=(1.0, 1.0), noise_variance=(0.0, 0.0))
KEY = jax.random.key(0)


def only(**fields) -> Augmentation:
    return dataclasses.replace(OFF, **fields)


def random_images(shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def drawn_affines(rows, columns):
    """Angle, scale and sign (-1: mirrored) of each image, from rigid coordinates."""
    rows, columns = np.asarray(rows, np.float64), np.asarray(columns, np.float64)
    cos, sin = rows[:, -1, 0] - rows[:, 0, 0], -(rows[:, 0, -1] - rows[:, 0, 0])
    cos, sin = cos / (rows.shape[1] - 1), sin / (rows.shape[2] - 1)
    return np.arctan2(sin, cos), np.hypot(sin, cos), np.sign(columns[:, 0, -1] - columns[:, 0, 0])


# Interpolation


@pytest.mark.parametrize("shape", [(3, 8, 8, 1), (2, 7, 12, 3), (1, 1, 9, 2), (2, 5, 1, 1)])
def test_warping_matches_scipy(shape):
    count, height, width, channels = shape
    images = random_images(shape)
    # Also far beyond the border, and of another size than the images.
    rng = np.random.default_rng(2)
    rows = rng.uniform(-3, height + 2, (count, 11, 6)).astype(np.float32)
    columns = rng.uniform(-3, width + 2, (count, 11, 6)).astype(np.float32)
    warped = np.asarray(warp(jnp.asarray(images), jnp.asarray(rows), jnp.asarray(columns)))
    assert warped.shape == (count, 11, 6, channels)
    for b in range(count):
        for c in range(channels):
            places_64 = np.stack([rows[b], columns[b]]).astype(np.float64)
            image_64 = images[b, ..., c].astype(np.float64)
            expected = ndimage.map_coordinates(image_64, places_64, order=1, mode="nearest")
            np.testing.assert_allclose(warped[b, ..., c], expected, atol=1e-5)


def test_whole_coordinates_give_exact_pixels():
    images = jnp.asarray(random_images((2, 5, 7, 2)))
    rows, columns = jnp.meshgrid(jnp.arange(5.0), jnp.arange(7.0), indexing="ij")
    rows, columns = (jnp.broadcast_to(place, (2, 5, 7)) for place in (rows, columns))
    np.testing.assert_array_equal(warp(images, rows, columns), images)
    np.testing.assert_array_equal(warp(images, 4 - rows, columns), images[:, ::-1])


# Geometry


def test_rotating_scaling_and_mirroring_match_scipy():
    images = random_images(shape := (6, 15, 22, 2))
    augmentation = only(mirror=0.5, rotation=0.4, scale=(0.7, 1.4))
    # `augment` gives its first subkey to the geometry.
    angles, scales, signs = drawn_affines(*places(jax.random.split(KEY, 4)[0], shape, augmentation))
    augmented = np.asarray(augmentation(KEY, jnp.asarray(images)))
    centre = (np.array(shape[1:3]) - 1) / 2
    for b, (angle, scale, sign) in enumerate(zip(angles, scales, signs, strict=True)):
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        matrix = np.array([[cos, -sin], [sign * sin, sign * cos]])
        for c in range(shape[-1]):
            image = images[b, ..., c].astype(np.float64)
            expected = ndimage.affine_transform(image, matrix, centre - matrix @ centre, order=1, mode="nearest")
            np.testing.assert_allclose(augmented[b, ..., c], expected, atol=3e-5)


def test_the_draws_fill_their_ranges():
    rigid = dataclasses.replace(PAPER, elastic=0.0)
    angles, scales, signs = drawn_affines(*places(KEY, (4000, 9, 9, 1), rigid))
    for values, low, high in ((angles, -0.1, 0.1), (scales, 0.9, 1.2)):
        assert low - 1e-5 < values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() < high + 1e-5
        np.testing.assert_allclose(values.mean(), (low + high) / 2, atol=0.02 * (high - low))
    np.testing.assert_allclose((signs < 0).mean(), 0.5, atol=0.03)
    # They are independent of each other: four standard errors.
    assert np.abs(np.triu(np.corrcoef([angles, scales, signs]), 1)).max() < 4 / np.sqrt(4000)


def test_mirroring_is_exact_and_its_own_inverse(images):
    mirrored = only(mirror=1.0)(KEY, images)
    np.testing.assert_array_equal(mirrored, images[:, :, ::-1])
    np.testing.assert_array_equal(only(mirror=1.0)(KEY, mirrored), images)


@pytest.mark.parametrize(("height", "width", "spacing"), [(33, 20, 8.0), (5, 16, 2.5), (9, 9, 30.0)])
def test_the_elastic_field_matches_scipys_spline(height, width, spacing):
    field = np.asarray(elastic_field(KEY, (2, height, width, 1), amplitude=3.0, spacing=spacing))
    counts = [int((size - 1) // spacing) + 4 for size in (height, width)]
    knots = np.asarray(jax.random.uniform(KEY, (2, 2, *counts), minval=-3, maxval=3), np.float64)
    for axis, size in ((2, height), (3, width)):
        # The spline's knots are at -3, -2, ... times the spacing, so the first basis function is centred at -1.
        spline = BSpline(np.arange(knots.shape[axis] + 4) - 3.0, knots, 3, axis=axis)
        knots = spline(np.arange(size) / spacing)
    assert field.shape == (2, 2, height, width)
    np.testing.assert_allclose(field, knots, atol=1e-5)


def test_displacements_stay_within_the_amplitude():
    field = np.asarray(elastic_field(KEY, (200, 64, 64, 1), amplitude=3.0, spacing=20.0))
    assert np.abs(field).max() <= 3
    # A uniform number has a variance of 1/3. The squares of a B-spline's values sum to 151/315 on average.
    np.testing.assert_allclose(field.std(axis=(1, 2, 3)), 3 * np.sqrt(1 / 3) * 151 / 315, rtol=0.05)
    assert np.abs(field.mean(axis=(1, 2, 3))).max() < 0.1


def test_the_strongest_elastic_field_does_not_fold():
    strongest = only(elastic=8 / 2.0464, elastic_spacing=8.0)
    rows, columns = np.asarray(places(KEY, (500, 33, 33, 1), strongest), np.float64)
    down = np.diff(rows, axis=1)[:, :, :-1], np.diff(columns, axis=1)[:, :, :-1]
    across = np.diff(rows, axis=2)[:, :-1], np.diff(columns, axis=2)[:, :-1]
    assert (down[0] * across[1] - down[1] * across[0]).min() > 0


def test_geometry_interpolates_all_channels_alike(images):
    masks = (images[..., :1] > 0.5).astype(jnp.float32)
    moved = np.asarray(GEOMETRY(KEY, jnp.concatenate([masks, 1 - masks, masks], axis=-1)))
    assert moved.min() >= 0
    assert moved.max() <= 1
    np.testing.assert_array_equal(moved[..., 0], moved[..., 2])
    np.testing.assert_allclose(moved[..., 0], 1 - moved[..., 1], atol=1e-6)
    constant = jnp.full_like(images, 0.7)
    np.testing.assert_allclose(GEOMETRY(KEY, constant), constant, rtol=1e-6)


# Values


def test_brightness_is_one_factor_per_image():
    images = random_images((2000, 3, 4, 2))
    factors = np.asarray(only(brightness=(0.95, 1.1))(KEY, jnp.asarray(images))) / images
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1, :1, :1], factors.shape), rtol=1e-6)
    factors = factors[:, 0, 0, 0]
    assert 0.95 - 1e-6 <= factors.min() < 0.952
    assert 1.098 < factors.max() <= 1.1 + 1e-6
    np.testing.assert_allclose(factors.mean(), 1.025, atol=0.004)


def test_the_variance_of_the_noise_is_drawn_per_image():
    noise = np.asarray(only(noise_variance=(0.0, 0.05))(KEY, jnp.zeros((300, 40, 30, 2))), np.float64)
    variance = noise.var(axis=(1, 2, 3))
    assert variance.min() < 0.001
    assert 0.047 < variance.max() < 0.055
    # The standard error of 300 uniform draws, three times.
    np.testing.assert_allclose(variance.mean(), 0.025, atol=3 * 0.05 / np.sqrt(12 * 300))
    np.testing.assert_allclose(variance.std(), 0.05 / np.sqrt(12), rtol=0.1)
    # Each pixel and channel has its own draw; scaled to one variance, the draws are Gaussian.
    scaled = noise / np.sqrt(variance)[:, None, None, None]
    assert abs((scaled[..., 0] * scaled[..., 1]).mean()) < 0.01
    assert abs((scaled[:, 1:] * scaled[:, :-1]).mean()) < 0.01
    assert abs((scaled[1:] * scaled[:-1]).mean()) < 0.01
    np.testing.assert_allclose((scaled**4).mean(), 3, atol=0.05)


def test_the_variance_can_be_fixed():
    noise = np.asarray(only(noise_variance=(0.04, 0.04))(KEY, jnp.zeros((4, 64, 64, 1))))
    np.testing.assert_allclose(noise.std(axis=(1, 2, 3)), 0.2, rtol=0.05)


# As a function


def test_switched_off_augmentation_keeps_every_bit(images):
    np.testing.assert_array_equal(OFF(KEY, images), images)
    np.testing.assert_array_equal(jax.jit(OFF)(KEY, images), images)


def test_each_key_and_each_image_has_its_own_draw(images):
    once = PAPER(KEY, images)
    assert once.shape == images.shape
    assert once.dtype == jnp.float32
    np.testing.assert_array_equal(once, PAPER(KEY, images))
    assert (np.asarray(once) != np.asarray(PAPER(jax.random.key(1), images))).any(axis=(1, 2, 3)).all()
    copies = np.asarray(GEOMETRY(KEY, jnp.repeat(images[:1], 6, axis=0)))
    for b in range(1, 6):
        assert not np.array_equal(copies[0], copies[b])


def test_jit_and_vmap_equal_a_loop(images):
    keys, per_run = jax.random.split(KEY, 2), jnp.stack([images, 2 * images[::-1]])
    looped = np.stack([PAPER(key, run) for key, run in zip(keys, per_run, strict=True)])
    np.testing.assert_allclose(jax.jit(PAPER)(keys[0], per_run[0]), looped[0], atol=2e-5)
    np.testing.assert_allclose(jax.vmap(PAPER)(keys, per_run), looped, atol=2e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mirror": 1.5}, r"mirror=1.5: .* 0\.\.1"),
        ({"mirror": float("nan")}, "mirror=nan"),
        ({"rotation": -0.1}, "rotation=-0.1: .* radians"),
        ({"rotation": 10.0}, r"rotation=10.0"),
        ({"scale": (1.2, 0.9)}, r"scale=\(1.2, 0.9\): must be \(low, high\), both above 0; \(1.0, 1.0\) switches"),
        ({"scale": (0.0, 1.0)}, r"scale=\(0.0, 1.0\)"),
        ({"brightness": (-1.0, 1.0)}, r"brightness=\(-1.0, 1.0\)"),
        ({"brightness": (1.0, float("inf"))}, r"brightness=\(1.0, inf\)"),
        ({"noise_variance": (-0.1, 0.05)}, r"noise_variance=\(-0.1, 0.05\): .* not below 0; \(0.0, 0.0\) switches"),
        ({"elastic": -1.0}, "elastic=-1.0"),
        ({"elastic": 5.0, "elastic_spacing": 10.0}, r"elastic=5.0: must be in 0..4.887 pixels, .* fold"),
        ({"elastic_spacing": 0.0}, "elastic_spacing=0.0"),
    ],
)
def test_values_out_of_range_are_refused(fields, message):
    with pytest.raises(jaxvae.InputError, match=message):
        Augmentation(**fields)


# In training

MODEL = jaxvae.DenseVAE((8, 8, 1), 3, 16)
CONFIG = jaxvae.TrainConfig(batch_size=4)
HPARAMS = jaxvae.Hyperparams(learning_rate=1e-2)
IMAGES = random_images((10, 8, 8, 1))


def start():
    return jaxvae.init(MODEL, CONFIG, HPARAMS, KEY)


def fit(state, steps, augment):
    return jaxvae.fit(MODEL, CONFIG, HPARAMS, state, IMAGES, steps=steps, augment=augment)


def test_training_with_augmentation_can_be_continued():
    whole, metrics = fit(start(), 6, Augmentation())
    state, first = fit(start(), 3, Augmentation())
    state, second = fit(state, 3, Augmentation())
    np.testing.assert_array_equal(np.concatenate([first.loss, second.loss]), metrics.loss)
    jax.tree.map(np.testing.assert_array_equal, state.params, whole.params)
    assert np.isfinite(metrics.loss).all()
    _, plain = fit(start(), 3, None)
    assert (np.asarray(plain.loss) != np.asarray(first.loss)).all()


def test_uint8_images_are_divided_before_augmentation():
    white, grey = jnp.full((4, 8, 8, 1), 255, jnp.uint8), jnp.full((4, 8, 8, 1), 0.5)
    _, metrics = jaxvae.train_step(MODEL, CONFIG, HPARAMS, start(), white, augment=only(brightness=(0.5, 0.5)))
    _, expected = jaxvae.train_step(MODEL, CONFIG, HPARAMS, start(), grey)
    np.testing.assert_allclose(metrics.loss, expected.loss, rtol=1e-6)


def test_equal_augmentations_share_a_program(compilations):
    state, _ = jax.block_until_ready(fit(start(), 2, only(brightness=(0.9, 1.1))))
    compilations.clear()
    state, _ = jax.block_until_ready(fit(state, 2, only(brightness=(0.9, 1.1))))
    assert compilations == []
    jax.block_until_ready(fit(state, 2, only(brightness=(0.8, 1.1))))
    assert len(compilations) == 1
