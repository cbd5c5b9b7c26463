"""Postprocessing equals SciPy's filters over whole volumes, and obeys laws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from jaxvae.errors import InputError
from jaxvae.evaluation.postprocessing import median


def brain(seed: int, shape: tuple[int, int, int] = (17, 19, 15)) -> tuple[np.ndarray, np.ndarray]:
    """A map with ties and both signs that is 0 outside a ball, and that ball."""
    generator = np.random.default_rng(seed)
    middle = np.array(shape) / 2
    inside = ((np.indices(shape).T - middle) ** 2).sum(axis=-1).T < 45
    return (np.round(generator.normal(size=shape), 1) * inside).astype(np.float32), inside


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_median_equals_that_of_scipy(seed, size):
    volume, _ = brain(seed)
    for scores in (volume, np.abs(volume), volume + 1, volume.astype(np.float64)):
        result = median(scores, size)
        assert result.dtype == scores.dtype
        np.testing.assert_array_equal(result, ndimage.median_filter(scores, size, mode="constant", cval=0.0))


def test_the_median_takes_any_memory_order():
    volume, _ = brain(2)
    before = volume.copy()
    np.testing.assert_array_equal(median(np.asfortranarray(volume)), median(volume))
    np.testing.assert_array_equal(volume, before)


def test_the_median_of_many_parts_equals_that_of_one():
    volume = np.random.default_rng(0).random((24, 25, 26), dtype=np.float32)
    np.testing.assert_array_equal(median(volume, 3), ndimage.median_filter(volume, 3, mode="constant", cval=0.0))


def test_the_median_removes_specks_and_keeps_constants():
    speck = np.zeros((9, 9, 9), dtype=np.float32)
    speck[4, 4, 4] = 7
    assert not median(speck).any()
    constant = np.full((9, 9, 9), 3, dtype=np.float32)
    np.testing.assert_array_equal(median(constant)[2:-2, 2:-2, 2:-2], 3)
    assert not median(np.zeros((3, 3, 3), dtype=np.float32)).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda volume: median(volume, 4), "size=4: must be odd"),
        (lambda volume: median(volume[0]), r"volume has shape \(19, 15\)"),
        (lambda volume: median(volume * np.nan), "NaN"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(brain(0)[0])
