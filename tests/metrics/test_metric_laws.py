"""Laws of the metrics on small inputs with ties, huge, tiny and signed zero scores; scikit-learn is the oracle."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn

from jaxvae.errors import InputError
from jaxvae.metrics import curves, histograms, ranking

# Few distinct values, so that most inputs have ties, with the extremes and the smallest numbers of float32.
TIES = st.sampled_from((-3.4e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 0.1, 0.5, 0.5000001, 1.0, 3.4e38))
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
RATES = st.floats(0.001, 1.0)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(scores, labels) with at least one entry of each class."""
    count = draw(st.integers(2, 24))
    dtype = draw(st.sampled_from((np.float32, np.float64)))
    scores = draw(hnp.arrays(dtype, count, elements=draw(st.sampled_from((TIES, ANY)))))
    labels = draw(hnp.arrays(bool, count))
    labels[:2] = draw(st.sampled_from(((True, False), (False, True))))
    return scores, labels


def at(scores: np.ndarray, labels: np.ndarray, threshold: float) -> tuple[int, int]:
    """(true positives, false positives) of `scores >= threshold`, counted one by one."""
    found = [bool(label) for score, label in zip(scores, labels, strict=True) if score >= threshold]
    return sum(found), len(found) - sum(found)


@given(labelled())
def test_auroc_equals_scikit_learns(labelled):
    scores, labels = labelled
    assert ranking.auroc(scores, labels) == pytest.approx(
        sklearn.roc_auc_score(labels, scores.astype(float)), abs=1e-12
    )


@given(labelled())
def test_average_precision_equals_scikit_learns(labelled):
    scores, labels = labelled
    expected = sklearn.average_precision_score(labels, scores.astype(float))
    assert ranking.average_precision(scores, labels) == pytest.approx(expected, abs=1e-12)


@given(labelled())
def test_best_dice_is_the_best_of_all_thresholds(labelled):
    scores, labels = labelled
    dice = {}
    for threshold in scores.tolist():
        found, wrong = at(scores, labels, threshold)
        dice[threshold] = 2 * found / (found + wrong + labels.sum())
    value, threshold = ranking.best_dice(scores, labels)
    assert value == pytest.approx(max(dice.values()), abs=1e-12)
    assert threshold == max(at for at, one in dice.items() if one == max(dice.values()))


@given(labelled(), RATES)
def test_dice_at_fpr_is_at_the_lowest_allowed_threshold(labelled, rate):
    scores, labels = labelled
    healthy = np.count_nonzero(~labels)
    allowed = [one for one in scores.tolist() if at(scores, labels, one)[1] / healthy <= rate]
    found, wrong = at(scores, labels, min(allowed, default=np.inf))
    expected = 2 * found / (found + wrong + labels.sum())
    assert ranking.pixel_metrics(scores, labels, fpr=rate).dice_at_fpr == pytest.approx(expected, abs=1e-12)


@given(labelled(), RATES)
def test_fpr_at_tpr_is_the_lowest_possible(labelled, share):
    scores, labels = labelled
    counts = [at(scores, labels, one) for one in scores.tolist()]
    enough = [wrong for found, wrong in counts if found / labels.sum() >= share]
    expected = min(enough) / np.count_nonzero(~labels)
    assert ranking.pixel_metrics(scores, labels, tpr=share).fpr_at_tpr == pytest.approx(expected, abs=1e-12)


@given(labelled())
def test_pixel_metrics_equal_the_single_metrics(labelled):
    scores, labels = labelled
    every = ranking.pixel_metrics(scores, labels)
    assert (every.auroc, every.average_precision) == ranking.auroc_and_average_precision(scores, labels)
    assert (every.best_dice, every.best_dice_threshold) == ranking.best_dice(scores, labels)


@given(labelled())
def test_the_roc_curve_equals_scikit_learns(labelled):
    scores, labels = labelled
    curve = curves.roc_curve(scores, labels)
    expected = sklearn.roc_curve(labels, scores.astype(float), drop_intermediate=False)
    for found, wanted in zip(curve, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-12)


@given(labelled())
def test_the_precision_recall_curve_equals_scikit_learns(labelled):
    scores, labels = labelled
    curve = curves.pr_curve(scores, labels)
    precision, recall, thresholds = sklearn.precision_recall_curve(labels, scores.astype(float))
    for found, wanted in zip(curve, (recall[:-1], precision[:-1], thresholds), strict=True):
        np.testing.assert_allclose(found, wanted[::-1], atol=1e-12)


@given(labelled(), st.integers(5, 8))
def test_every_point_of_a_short_curve_is_on_the_full_one(labelled, points):
    scores, labels = labelled
    for draw in (curves.roc_curve, curves.pr_curve):
        whole = np.stack(draw(scores, labels), axis=1)
        short = np.stack(draw(scores, labels, points=points), axis=1)
        assert len(short) <= points
        assert {*map(tuple, short.tolist())} <= {*map(tuple, whole.tolist())}


@given(labelled(), st.sampled_from((np.nan, np.inf, -np.inf)), st.integers(0, 1))
def test_scores_that_are_not_finite_are_counted_in_the_error(labelled, value, place):
    scores, labels = labelled
    scores[place] = value
    word = "1 NaN and 0 infinite" if np.isnan(value) else "0 NaN and 1 infinite"
    for metric in (ranking.auroc, ranking.average_precision, ranking.best_dice, curves.roc_curve, curves.pr_curve):
        with pytest.raises(InputError, match=word):
            metric(scores, labels)


@given(labelled())
def test_binned_metrics_bound_the_exact_ones(labelled):
    scores, labels = labelled
    scores = scores.astype(np.float32)
    bins = histograms.float_bins(scores).astype(np.int64)
    _, place = np.unique(bins, return_inverse=True)
    counts = np.stack([np.bincount(place[labels == kind], minlength=place.max() + 1) for kind in (False, True)])
    for binned, exact in (
        (histograms.histogram_auroc(counts), ranking.auroc(scores, labels)),
        (histograms.histogram_average_precision(counts), ranking.average_precision(scores, labels)),
    ):
        assert binned.low - 1e-12 <= exact <= binned.high + 1e-12
        assert binned.low - 1e-12 <= binned.value <= binned.high + 1e-12
