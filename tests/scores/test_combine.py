"""Combi against its formulas."""

from __future__ import annotations

import importlib

import jax
import numpy as np
import pytest

import jaxvae
from jaxvae.ops import filters
from oracle import assert_close

pytestmark = pytest.mark.optimized


def scores_of(images):
    keys = jax.random.split(jax.random.key(0), 4)
    return jaxvae.PixelScores(*(jax.random.uniform(key, images.shape) for key in keys))


def test_each_variant_of_combi_follows_its_formula(images):
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
    with pytest.raises(ValueError, match="variant='sum': unknown"):
        jaxvae.combine(raw, variant="sum")  # pyright: ignore[reportArgumentType]


def test_no_module_shadows_a_public_function():
    importlib.import_module("jaxvae.scores.combine")
    assert callable(jaxvae.combine)
