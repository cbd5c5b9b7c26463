"""The experiments' own arithmetic; what they take minutes or hours for is only begun here."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from experiments import fashion_mnist, gaussian_mixture


def test_the_mixture_is_scipys_and_its_score_the_gradient():
    points = np.random.default_rng(0).random((50, 2))
    logarithm, score = gaussian_mixture.log_density(points)
    parts = [multivariate_normal(mean, gaussian_mixture.STD**2).pdf(points) for mean in gaussian_mixture.MEANS]
    np.testing.assert_allclose(logarithm, np.log(gaussian_mixture.WEIGHTS @ np.array(parts)), rtol=1e-9)
    step = 1e-6
    for axis in (0, 1):
        shifted = [gaussian_mixture.log_density(points + sign * step * np.eye(2)[axis])[0] for sign in (1, -1)]
        np.testing.assert_allclose(score[:, axis], (shifted[0] - shifted[1]) / (2 * step), rtol=1e-5, atol=1e-5)


def test_errors_of_fields_that_are_known():
    truth = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    assert gaussian_mixture.errors(0.5 * truth, truth) == {
        "angle_median": pytest.approx(0, abs=1e-5),
        "within_45_degrees": 1.0,
        "length_ratio": pytest.approx(0.5),
    }
    turned = truth @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    assert gaussian_mixture.errors(turned, truth)["angle_median"] == pytest.approx(90)


def test_the_gradient_of_the_elbo_points_where_the_density_rises():
    config = gaussian_mixture.Config(samples=5000, steps=2000)
    rows = gaussian_mixture.compare(config, gaussian_mixture.train(config))
    of = {(row["field"], row["points"]): row for row in rows}
    assert of["ELBO", "samples"]["angle_median"] < 30
    assert of["ELBO", "square"]["angle_median"] < 20
    assert of["ELBO", "samples"]["angle_median"] < of["-KL", "samples"]["angle_median"]


def test_the_figure_is_150_runs_and_what_is_done_is_not_done_again():
    config = fashion_mnist.Config()
    programs = list(fashion_mnist.missing(config, []))
    runs = [run for _, members in programs for run in members]
    assert len(runs) == 2 * 3 * (5 + 4 + 5 + 11)
    assert len({json.dumps(run, sort_keys=True) for run in runs}) == len(runs)
    for program, members in programs:
        assert len(members) <= config.together
        assert {(run["scaling"], run["latent_size"], run["arithmetic"]) for run in members} == {
            (program["scaling"], program["latent_size"], program["arithmetic"])
        }
    done = [{"run": run} for run in runs[:40]]
    left = [run for _, members in fashion_mnist.missing(config, done) for run in members]
    assert left == runs[40:]


def test_a_panel_is_summarised_beside_the_paper():
    config = fashion_mnist.Config(arithmetics=("released",))
    runs = [run for _, members in fashion_mnist.missing(config, []) for run in members]
    done = [{"run": run, "auroc": {"rec": 0.5 + 0.1 * run["seed"], "kl": 0.4, "elbo": 0.3}} for run in runs]
    rows = fashion_mnist.summary(config, done)
    assert len(rows) == 3 * (6 + 5 + 6 + 11)
    tuned = next(row for row in rows if row["value"] == "5*" and row["score"] == "rec")
    assert (tuned["seeds"], tuned["paper"]) == (3, 0.72)
    assert tuned["auroc_mean"] == pytest.approx(0.6)
    assert tuned["auroc_std"] == pytest.approx(0.1)
    classes = next(row for row in fashion_mnist.distances(rows) if row["panel"] == "held_out_class")
    papers = [values[1] for values in fashion_mnist.PAPER["held_out_class"].values()]
    assert classes["kl"] == pytest.approx(np.mean(np.abs(0.4 - np.array(papers))))
