"""Overlays: grey where the map is 0, more colour where it is higher."""

from __future__ import annotations

import numpy as np
import pytest

from jaxvae import InputError
from jaxvae.scoring.overlay import overlay


def test_overlay_is_grey_at_zero_and_saturates_at_high() -> None:
    rng = np.random.default_rng(0)
    image, heat = rng.normal(size=(6, 7, 1)), rng.random((6, 7, 1))
    bare = overlay(image, 0 * heat, high=1.0)
    assert bare.dtype == np.uint8
    assert bare.shape == (6, 7, 3)
    assert np.all(bare == bare[..., :1])
    full = overlay(image, 0 * heat + 1, high=1.0)
    np.testing.assert_array_equal(full, overlay(image, 0 * heat + 50, high=1.0))
    np.testing.assert_array_equal(overlay(image, heat, high=0.9), overlay(5 * image - 3, 8 * heat, high=8 * 0.9))


def test_overlay_has_more_colour_where_the_map_is_higher() -> None:
    heat = np.linspace(0, 1, 64)[None, :, None]
    shown = overlay(np.zeros((1, 64, 1)), heat, high=1.0).astype(int)
    assert np.all(np.diff(shown.sum(axis=-1)) >= 0)
    assert np.ptp(shown[0, -1]) > 100  # a colour, not a grey


@pytest.mark.parametrize("high", [0.0, -1.0, float("nan"), float("inf")])
def test_overlay_refuses_a_scale_without_a_top(high: float) -> None:
    with pytest.raises(InputError, match="high="):
        overlay(np.zeros((4, 4, 1)), np.zeros((4, 4, 1)), high=high)
    with pytest.raises(InputError, match=r"the map is \(4, 4\)"):
        overlay(np.zeros((4, 4, 1)), np.zeros((4, 4)), high=1.0)
