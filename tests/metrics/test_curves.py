"""Thinned curves: every point lies on the full curve."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score
from sklearn.metrics import roc_curve as whole_roc_curve

from jaxvae.errors import InputError
from jaxvae.metrics.curves import pr_curve, roc_curve
from jaxvae.metrics.ranking import auroc


def draw(size: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(size)
    labels = generator.random(size) < 0.2
    scores = generator.standard_exponential(size) + labels
    return np.round(scores * 8) if ties else scores, labels


@pytest.mark.parametrize("ties", [False, True])
def test_few_scores_give_the_full_roc_curve(ties):
    scores, labels = draw(300, ties=ties)
    curve = roc_curve(scores, labels)
    for ours, theirs in zip(curve, whole_roc_curve(labels, scores, drop_intermediate=False), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-15)


@pytest.mark.parametrize("ties", [False, True])
def test_few_scores_give_the_full_precision_recall_curve(ties):
    scores, labels = draw(300, ties=ties)
    curve = pr_curve(scores, labels)
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    np.testing.assert_allclose(curve.precision, precision[-2::-1], atol=1e-15)
    np.testing.assert_allclose(curve.recall, recall[-2::-1], atol=1e-15)
    np.testing.assert_array_equal(curve.thresholds, thresholds[::-1])


@pytest.mark.parametrize("points", [5, 6, 101, 1000])
def test_thinned_curve_points_are_exact(points):
    scores, labels = draw(20_000, ties=False)
    roc, pr = roc_curve(scores, labels, points=points), pr_curve(scores, labels, points=points)
    assert len(roc.thresholds) <= points
    assert len(pr.thresholds) <= points
    for fpr, tpr, threshold in zip(*roc, strict=True):
        predicted = scores >= threshold
        assert (fpr, tpr) == (predicted[~labels].mean(), predicted[labels].mean())
    for recall, precision, threshold in zip(*pr, strict=True):
        predicted = scores >= threshold
        assert (recall, precision) == (predicted[labels].mean(), labels[predicted].mean())
    assert (roc.false_positive_rate[[0, -1]] == [0, 1]).all()
    assert (roc.true_positive_rate[[0, -1]] == [0, 1]).all()
    assert pr.recall[-1] == 1


def test_a_thinned_curve_is_evenly_spaced_and_keeps_its_area():
    scores, labels = draw(20_000, ties=False)
    curve = roc_curve(scores, labels, points=1000)
    for rate, pixels in ((curve.false_positive_rate, np.sum(~labels)), (curve.true_positive_rate, np.sum(labels))):
        assert np.diff(rate).max() <= 2 / 996 + 1 / pixels
    assert auc(curve.false_positive_rate, curve.true_positive_rate) == pytest.approx(auroc(scores, labels), abs=1e-4)


@pytest.mark.parametrize("curve", [roc_curve, pr_curve])
def test_errors_name_the_argument(curve):
    scores, labels = draw(100, ties=False)
    with pytest.raises(InputError, match="points=2: must be 5 or more"):
        curve(scores, labels, points=2)
    with pytest.raises(InputError, match="labels lacks a class"):
        curve(scores, labels & False)


def test_all_of_a_few_distinct_scores_are_kept():
    scores = np.concatenate([np.zeros(9990), np.arange(1.0, 11.0), np.full(10, 0.5)]).astype(np.float32)
    labels = np.arange(scores.size) >= 10_000
    curve = roc_curve(scores, labels, points=1000)
    assert curve.thresholds.size == 13
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert area == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
