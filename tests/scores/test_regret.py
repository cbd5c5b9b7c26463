"""Likelihood regret against the best posterior of a linear VAE, which is known."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from image_score_laws import check_laws
from jaxvae.scores import regret
from linear_vae import SHAPE, LinearVAE, linear_params, negative_elbo, posterior

SCALE = -0.3
IMAGES = np.asarray(jax.random.normal(jax.random.key(0), (7, *SHAPE)))


def score(params: dict, **settings: float) -> np.ndarray:
    settings = {"draws": 512, **settings}
    return np.asarray(regret.score(LinearVAE(), params, IMAGES, log_scale=SCALE, **settings)["likelihood_regret"])


@pytest.mark.parametrize("orthogonal", [True, False])
def test_the_regret_is_the_gap_to_the_best_posterior(orthogonal: bool) -> None:
    best, wrong = (linear_params(0, log_scale=SCALE, orthogonal=orthogonal, error=error) for error in (0.0, 0.3))
    before, after = (negative_elbo(best, IMAGES, *posterior(some, IMAGES), SCALE) for some in (wrong, best))
    assert (before - after > 0.1).all()
    np.testing.assert_allclose(score(wrong), before - after, rtol=0.1, atol=0.03)


def test_the_best_posterior_has_no_regret() -> None:
    values = score(linear_params(0, log_scale=SCALE, orthogonal=True))
    assert (values >= 0).all()
    np.testing.assert_allclose(values, 0, atol=0.02)


def test_no_step_is_no_regret_and_more_steps_find_more() -> None:
    params = linear_params(0, log_scale=SCALE, orthogonal=True, error=0.3)
    np.testing.assert_array_equal(score(params, steps=0), 0)
    assert (score(params, steps=5) < score(params, steps=100)).all()


@pytest.mark.parametrize("kind", ["dense", "spatial", "two_stage"])
def test_the_laws_of_scores_hold(kind: str) -> None:
    check_laws(regret, kind, steps=4, draws=2)
