"""Distances to neighbours in the latent space against scikit-learn."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

import jaxvae
from image_score_laws import MODELS, check_laws, model_and_images
from jaxvae.models.model import encode
from jaxvae.scores import latent_neighbours


def healthy_images(model, count: int) -> np.ndarray:
    return np.asarray(jax.random.uniform(jax.random.key(9), (count, *model.image_shape)))


@pytest.mark.parametrize("kind", list(MODELS))
@pytest.mark.parametrize("neighbours", [1, 5])
def test_distances_equal_those_of_scikit_learn(kind: str, neighbours: int) -> None:
    model, params, images = model_and_images(kind)
    healthy = healthy_images(model, 90)  # Two batches, the last one padded.
    means = np.asarray(encode(model, params, healthy).mean, np.float64).reshape(90, -1)
    state = latent_neighbours.fit(model, params, healthy)
    np.testing.assert_allclose(state["means"], means, rtol=1e-4, atol=1e-6)
    queries = np.asarray(encode(model, params, images).mean, np.float64).reshape(5, -1)
    expected = NearestNeighbors().fit(means).kneighbors(queries, neighbours)[0][:, -1]
    got = latent_neighbours.score(model, params, images, state=state, neighbours=neighbours)["knn_latent"]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_means_far_from_zero_keep_their_digits() -> None:
    model, params, images = model_and_images("dense")
    params["encoder_mean"]["bias"] = params["encoder_mean"]["bias"] + 1000.0
    state = latent_neighbours.fit(model, params, healthy_images(model, 40))
    queries = np.asarray(encode(model, params, images).mean, np.float64)
    expected = NearestNeighbors().fit(np.asarray(state["means"], np.float64)).kneighbors(queries, 5)[0][:, -1]
    got = latent_neighbours.score(model, params, images, state=state)["knn_latent"]
    np.testing.assert_allclose(got, expected, rtol=1e-3)


def test_a_healthy_image_has_no_distance_to_itself() -> None:
    model, params, images = model_and_images("dense")
    state = latent_neighbours.fit(model, params, np.asarray(images))
    nearest = latent_neighbours.score(model, params, images, state=state, neighbours=1)["knn_latent"]
    np.testing.assert_allclose(nearest, 0, atol=1e-5)
    # With five healthy images, the sixth neighbour is the farthest.
    farthest = latent_neighbours.score(model, params, images, state=state, neighbours=6)["knn_latent"]
    fifth = latent_neighbours.score(model, params, images, state=state, neighbours=5)["knn_latent"]
    np.testing.assert_array_equal(farthest, fifth)


def test_the_state_keeps_evenly_spaced_images() -> None:
    model, params, _ = model_and_images("dense")
    healthy = healthy_images(model, 21)
    every = latent_neighbours.fit(model, params, healthy)["means"]
    np.testing.assert_allclose(latent_neighbours.fit(model, params, healthy, most=5)["means"], every[::5], rtol=1e-6)


@pytest.mark.parametrize("kind", list(MODELS))
def test_the_laws_of_scores_hold(kind: str) -> None:
    model, params, _ = model_and_images(kind)
    check_laws(latent_neighbours, kind, latent_neighbours.fit(model, params, healthy_images(model, 30)))


def test_a_missing_state_is_refused() -> None:
    model, params, images = model_and_images("dense")
    with pytest.raises(jaxvae.InputError, match="knn_latent: needs the posterior means of healthy images; call fit"):
        latent_neighbours.score(model, params, images)
