"""The experiment on domains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments import domain
from jaxvae.data.volumes.cache import Cache
from jaxvae.data.volumes.slices import Slicing

VOLUMES = [{"start": 0, "stop": 4}, {"start": 4, "stop": 10}]


@pytest.fixture
def opened() -> Cache:
    """Two volumes with a bright lesion; the first row is background."""
    images = np.random.default_rng(0).normal(size=(10, 8, 8, 1)).astype(np.float32)
    heads, masks = np.ones(images.shape, bool), np.zeros(images.shape, bool)
    heads[:, 0] = False
    masks[:, 2:4, 2:4] = True
    return Cache(Path(), Slicing(), "", VOLUMES, np.where(heads, images + 5 * masks, 0), heads, masks)


@pytest.mark.parametrize("lesions", [True, False])
def test_a_volume_is_z_scored_with_or_without_its_lesion(opened: Cache, lesions: bool) -> None:
    found = domain.renormalised(opened, lesions=lesions)
    assert opened.masks is not None
    for volume in VOLUMES:
        part = slice(volume["start"], volume["stop"])
        counted = found[part][opened.brains[part] & (lesions | ~opened.masks[part])]
        assert counted.mean() == pytest.approx(0, abs=1e-5)
        assert counted.std() == pytest.approx(1, abs=1e-5)
    assert not found[~opened.brains].any()


def test_the_upper_half_of_each_head_is_used(opened: Cache) -> None:
    np.testing.assert_array_equal(domain.upper_halves(opened, np.arange(10)), [2, 3, 7, 8, 9])
