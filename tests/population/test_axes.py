"""Populations from the values of their axes."""

from __future__ import annotations

import numpy as np
import pytest

import jaxvae


def test_a_grid_is_the_product_of_its_axes():
    population = jaxvae.grid(seed=[0, 1], log_scale=[0.5, -1.0, -2.0])
    assert len(population) == 6
    np.testing.assert_array_equal(population.seed, [0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(population.hparams.log_scale, [0.5, -1.0, -2.0] * 2)
    np.testing.assert_allclose(population.hparams.learning_rate, 1e-3)
    assert population.index is None
    assert population.latent_mask is None
    np.testing.assert_array_equal(population[2:4].seed, [0, 1])
    assert len(jaxvae.grid()) == 1


@pytest.mark.parametrize(
    ("axes", "complaint"),
    [
        ({"rate": [1]}, "rate: no such axis; the axes are seed, learning_rate"),
        ({"beta": []}, "beta: no values; give at least one"),
        ({"seed": 3}, r"seed=3: is one value; give a list, \[3\]"),
        ({"seed": "12"}, r"seed='12': is one value; give a list, \['12'\]"),
        ({"beta": ["a"]}, "beta='a': give a number of at least 0"),
        ({"learning_rate": [-1.0]}, "learning_rate=-1.0: give a number of at least 0"),
        ({"log_scale": [float("nan")]}, "log_scale=nan: give a number"),
        ({"latent_size": [2.5]}, "latent_size=2.5: give a whole number of at least 1"),
        ({"hold_out": [1]}, "hold_out: needs the classes of the images"),
        (
            {"hold_out": [7], "labels": np.array([0, 1])},
            "hold_out=7: no image has this class; choose from 0",
        ),
        ({"hold_out": [0, 1], "labels": np.array([0, 1, 1])}, "hold_out: the classes have different numbers of images"),
    ],
)
def test_wrong_axes_are_refused(axes, complaint):
    with pytest.raises(jaxvae.InputError, match=complaint):
        jaxvae.grid(**axes)
