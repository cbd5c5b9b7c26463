"""Scores without a model: laws that all of them obey."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
from jaxvae.scores import METHODS
from oracle import assert_close

NAMES = ("atlas", "components", "patch_neighbours", "tissues", "symmetry")
SETTINGS = {"log_scale": 0.0, "likelihood": jaxvae.gaussian_nll}


def scored(name: str, healthy: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The only score of a method, fitted on healthy images."""
    method = METHODS[name]
    state = method.function("fit")(None, {}, healthy, **SETTINGS) if method.fitted else None
    found = method.function("score")(None, {}, images, state=state, **SETTINGS)
    assert list(found) == [score.name for score in method.scores]
    (maps,) = found.values()
    assert maps.shape == images.shape
    assert maps.dtype == np.float32
    return np.asarray(maps)


def smooth(count: int, seed: int = 0, shape: tuple[int, ...] = (16, 20, 1)) -> np.ndarray:
    """Images in 0..1 with some structure in common."""
    rng = np.random.default_rng(seed)
    common = np.linspace(0, 0.5, shape[0], dtype=np.float32)[:, None, None]
    return (common + 0.2 * rng.random((count, *shape))).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_scores_do_not_depend_on_the_batch(name: str, channels: int) -> None:
    healthy, images = smooth(12, 1, (16, 20, channels)), smooth(6, 2, (16, 20, channels))
    together = scored(name, healthy, images)
    alone, among_others = scored(name, healthy, images[2:3]), images.copy()
    among_others[3:] = 40.0
    assert_close(alone[0], together[2])
    assert_close(scored(name, healthy, among_others)[2], together[2])


@pytest.mark.parametrize("name", NAMES)
def test_a_lesion_scores_higher_than_healthy_pixels(name: str) -> None:
    healthy, images = smooth(40, 1), smooth(2, 2)
    images[:, 4:8, 4:8] = 1.0
    maps = scored(name, healthy, images)
    inside = maps[:, 5:7, 5:7].mean()
    assert inside > np.quantile(np.delete(maps, slice(2, 10), axis=1), 0.99)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_score_like_floats(name: str) -> None:
    healthy, images = ((255 * smooth(count, count)).astype(np.uint8) for count in (9, 3))
    as_floats = scored(name, np.float32(healthy) / 255, np.float32(images) / 255)
    assert_close(scored(name, healthy, images), as_floats, 1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("healthy", [np.zeros((3, 9, 10, 3)), np.full((1, 9, 10, 3), 0.3), smooth(1, 0, (9, 10, 3))])
def test_constant_images_and_a_single_one_give_finite_scores(name: str, healthy: np.ndarray) -> None:
    healthy = healthy.astype(np.float32)
    others = [np.zeros_like(healthy), np.ones_like(healthy), smooth(2, 5, healthy.shape[1:])]
    for images in (healthy, *others):
        assert np.isfinite(scored(name, healthy, images)).all()


@pytest.mark.parametrize("name", NAMES)
def test_scores_work_for_a_population(name: str) -> None:
    healthy, images, method = smooth(9, 1), smooth(2, 2), METHODS[name]
    state = method.function("fit")(None, {}, healthy, **SETTINGS) if method.fitted else None

    def score(params: dict) -> dict:
        return method.function("score")(None, params, jnp.asarray(images), state=state, **SETTINGS)

    found = jax.vmap(score, axis_size=2)({"weight": jnp.zeros(2)})
    for name, maps in found.items():
        assert_close(jnp.broadcast_to(maps, (2, *images.shape))[1], score({"weight": jnp.zeros(())})[name])
