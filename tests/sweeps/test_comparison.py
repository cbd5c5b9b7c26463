"""Ranking the settings of a sweep over their seeds."""

from __future__ import annotations

import math

import pytest

from jaxvae.sweeps import comparison


def test_a_run_that_diverged_has_no_score():
    rows = [{"beta": beta, "diverged": beta == 1, "loss": loss} for beta, loss in ((1, 3.0), (2, 5.0))]
    first, last = comparison.over_seeds(rows, ["beta"], "loss")
    assert (first["beta"], first["diverged"]) == (2, 0)
    assert (last["beta"], last["diverged"], last["mean"]) == (1, 1, None)


def test_settings_are_ranked_by_mean_and_diverged_ones_come_last():
    rows = [{"beta": beta, "seed": seed, "auroc": score} for beta, seed, score in [
        (1, 0, 0.7), (1, 1, 0.9), (2, 0, 0.81), (2, 1, 0.81), (4, 0, 0.99), (4, 1, None),
    ]]  # fmt: skip
    first, second, last = comparison.over_seeds(rows, ["beta"], "auroc")
    assert (first["beta"], second["beta"], last["beta"]) == (2, 1, 4)
    assert second["mean"] == pytest.approx(0.8)
    assert second["std"] == pytest.approx(0.2 / math.sqrt(2))
    assert (second["worst"], second["seeds"], last["diverged"]) == (0.7, 2, 1)
