"""Which scores a run has, by its model and its objective."""

from __future__ import annotations

import pytest

import jaxvae
from jaxvae.errors import ArgumentError
from jaxvae.objectives import OBJECTIVES
from jaxvae.runs.score_names import check_maps, maps_of
from jaxvae.scores import MAPS, known_maps

DENSE = jaxvae.DenseVAE((8, 8, 1), 2, 4)


def test_a_vae_has_all_maps_and_an_autoencoder_those_of_the_reconstruction() -> None:
    assert maps_of(DENSE, OBJECTIVES["vae"]) == MAPS
    assert maps_of(DENSE, OBJECTIVES["autoencoder"]) == ("rec_error", "rec_grad")


def test_only_a_model_with_dropout_has_its_scores() -> None:
    dropping = jaxvae.DenseVAE((8, 8, 1), 2, 4, dropout=0.5)
    found = [set(maps_of(model, OBJECTIVES["vae"], known_maps())) for model in (DENSE, dropping)]
    assert found[1] - found[0] == {"dropout_error", "dropout_variance"}


@pytest.mark.parametrize(
    ("name", "objective", "reason"),
    [
        (
            "kl_grad",
            "denoising",
            "needs a KL, and `objective` denoising has none; choose",
        ),
        ("restoration", "autoencoder", "needs a KL, and `objective` autoencoder has none"),
        ("dropout_error", "vae", "needs dropout, and the run has `dropout` 0"),
        ("unheard", "vae", "is unknown; choose from rec_error"),
    ],
)
def test_a_score_that_a_run_does_not_have_is_refused(name: str, objective: str, reason: str) -> None:
    with pytest.raises(ArgumentError, match=reason):
        check_maps(DENSE, OBJECTIVES[objective], [name])
