"""Preparation of images: what is kept, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from jaxvae.data.images.preparation import Preparation, prepare
from jaxvae.data.normalization import as_float
from jaxvae.data.resampling import resize
from jaxvae.errors import InputError


def test_bytes_stay_bytes_without_resizing():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert prepare(image, Preparation()) is image
    chosen = prepare(image, Preparation(channels=(2, 0)))
    assert chosen.dtype == np.uint8
    np.testing.assert_array_equal(chosen, image[..., [2, 0]])


def test_resized_bytes_lie_between_0_and_1():
    image = np.random.default_rng(3).integers(0, 256, (10, 10, 1), dtype=np.uint8)
    resized = prepare(image, Preparation(size=5))
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, resize(image / np.float32(255), 5, kind="image"), rtol=1e-5)
    np.testing.assert_allclose(as_float(image), image / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"size": 0}, "size=0"),
        ({"size": (8, 0)}, r"size=\(8, 0\)"),
        ({"channels": ()}, "channels="),
        ({"channels": (-1,)}, "channels="),
        ({"normalise": "minmax"}, "normalise='minmax'"),
    ],
)
def test_impossible_preparations_name_the_argument(arguments, named):
    with pytest.raises(InputError, match=named):
        Preparation(**arguments)


def test_a_missing_channel_is_named():
    with pytest.raises(InputError, match=r"channels=\(0, 3\): channels are counted from 0; the image has 3"):
        prepare(np.zeros((2, 3, 3), np.uint8), Preparation(channels=(0, 3)))


def test_a_preparation_survives_json():
    preparation = Preparation(size=64, channels=(1,), normalise="robust")
    written = json.loads(json.dumps(asdict(preparation)))
    assert Preparation(**{**written, "channels": tuple(written["channels"])}) == preparation
    assert hash(preparation) == hash(Preparation(64, (1,), "robust"))
