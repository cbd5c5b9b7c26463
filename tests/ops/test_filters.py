from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxvae.ops import filters

pytestmark = pytest.mark.optimized


@pytest.mark.parametrize(("sigma", "window"), [(3.0, 7), (1.0, 5), (0.4, 1), (2.0, 15)])
def test_smoothing_matches_scipy(sigma, window):
    maps = np.asarray(jax.random.uniform(jax.random.key(0), (3, 12, 17, 2)))
    offsets = np.arange(window) - window // 2
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    expected = ndimage.convolve(maps.astype(np.float64), kernel[None, :, :, None], mode="constant")
    np.testing.assert_allclose(filters.gaussian_smooth(maps, sigma=sigma, window=window), expected, atol=1e-6)


def test_constants_are_unchanged_away_from_the_border():
    smooth = np.asarray(filters.gaussian_smooth(np.full((1, 20, 20, 1), 5, np.float32), sigma=3.0, window=7))
    np.testing.assert_allclose(smooth[0, 3:-3, 3:-3], 5, rtol=1e-5)
    assert (smooth[0, 0] < 4).all()


@pytest.mark.parametrize(
    ("settings", "message"), [((0.0, 7), "sigma=0.0"), ((3.0, 8), "window=8"), ((3.0, 0), "window=0")]
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        filters.gaussian_smooth(np.zeros((1, 8, 8, 1), np.float32), sigma=settings[0], window=settings[1])


def test_uint8_is_divided_by_255_and_floats_stay():
    np.testing.assert_allclose(filters.unit_range(np.array([0, 51, 255], np.uint8)), [0, 0.2, 1], rtol=1e-6)
    values = jax.numpy.array([-3.0, 700.0])
    assert filters.unit_range(values) is values


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, bool])
def test_whole_numbers_are_smoothed_in_float32(dtype):
    maps = np.arange(2 * 9 * 9).reshape(2, 9, 9, 1).astype(dtype)
    smoothed = filters.gaussian_smooth(maps, sigma=1.0, window=3)
    assert smoothed.dtype == jnp.float32
    np.testing.assert_allclose(smoothed, filters.gaussian_smooth(maps.astype(np.float32), sigma=1.0, window=3))


def test_a_single_map_is_refused():
    with pytest.raises(ValueError, match=r"maps: \[9, 9, 1\]; must be \[B, H, W, C\], for one map maps\[None\]"):
        filters.gaussian_smooth(jnp.ones((9, 9, 1)), sigma=3.0, window=7)
