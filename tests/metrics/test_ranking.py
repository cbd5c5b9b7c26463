"""Metrics of ranks against scikit-learn, direct counts, and laws of any metric of ranks."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxvae.errors import InputError
from jaxvae.metrics.overlap import dice, iou
from jaxvae.metrics.ranking import (
    auroc,
    auroc_and_average_precision,
    average_precision,
    best_dice,
    healthy_threshold,
    pixel_metrics,
    sorted_by_class,
)
from jaxvae.metrics.region_overlap import aupro

POOLED = [auroc, average_precision, auroc_and_average_precision, best_dice]


def draw(
    seed: int, *, size: int = 3000, values: int | None = None, share: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Scores, shifted where anomalous; with `values`, rounded to about that many distinct ones."""
    generator = np.random.default_rng(seed)
    labels = generator.random(size) < share
    labels[:2] = False, True
    scores = generator.standard_exponential(size) + labels
    return (scores if values is None else np.round(scores * values / 8)).astype(np.float32), labels


def counted(scores: np.ndarray, labels: np.ndarray, threshold: float) -> tuple[float, float]:
    """(Dice, intersection over union) of `scores >= threshold`."""
    predicted = scores >= threshold
    both = np.sum(predicted & labels)
    return 2 * both / (np.sum(predicted) + np.sum(labels)), both / np.sum(predicted | labels)


SEEDS_AND_TIES = list(itertools.product(range(3), (None, 100, 3)))


@pytest.mark.parametrize(("seed", "values"), SEEDS_AND_TIES)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
def test_areas_equal_scikit_learns(seed, values, share):
    scores, labels = draw(seed, values=values, share=share)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert auroc_and_average_precision(scores, labels) == (auroc(scores, labels), average_precision(scores, labels))


def test_areas_of_extreme_orders():
    labels = np.arange(1000) >= 900
    assert auroc_and_average_precision(np.arange(1000.0), labels) == (1.0, 1.0)
    assert auroc(-np.arange(1000.0), labels) == 0.0
    assert auroc_and_average_precision(np.zeros(1000), labels) == (0.5, 0.1)


def test_auroc_is_symmetric_in_scores_and_labels():
    scores, labels = draw(0, values=100)
    assert auroc(-scores, labels) == pytest.approx(1 - auroc(scores, labels), abs=1e-15)
    assert auroc(scores, ~labels) == pytest.approx(1 - auroc(scores, labels), abs=1e-15)


@pytest.mark.parametrize("metric", POOLED)
def test_only_the_order_of_scores_matters(metric):
    scores, labels = draw(1, values=200)
    value = metric(scores, labels)
    stretched = metric(np.exp(scores.astype(np.float64)), labels)
    if metric is best_dice:
        assert stretched == (value[0], pytest.approx(np.exp(value[1])))
    else:
        assert stretched == value


@pytest.mark.parametrize("metric", POOLED)
def test_neither_the_shape_nor_the_order_of_pixels_matters(metric):
    scores, labels = draw(2)
    shuffled = np.random.default_rng(0).permutation(scores.size)
    shape = (5, 20, 30, 1)
    assert metric(scores[shuffled].reshape(shape), labels[shuffled].reshape(shape)) == metric(scores, labels)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.uint8, bool, ml_dtypes.bfloat16])
@pytest.mark.parametrize("metric", POOLED)
def test_the_dtype_of_scores_does_not_matter(metric, dtype):
    scores, labels = draw(3)
    scores = scores.astype(dtype)
    assert metric(scores, labels) == metric(scores.astype(np.float64), labels)


@pytest.mark.parametrize(("seed", "values"), SEEDS_AND_TIES)
def test_best_dice_is_the_best_of_all_thresholds(seed, values):
    scores, labels = draw(seed, size=400, values=values)
    of_all = {float(t): counted(scores, labels, t)[0] for t in np.unique(scores)}
    value, threshold = best_dice(scores, labels)
    assert value == pytest.approx(max(of_all.values()), abs=1e-12)
    assert dice(scores >= threshold, labels) == value
    assert threshold == max(t for t, one in of_all.items() if one == pytest.approx(value, abs=1e-12))


@pytest.mark.parametrize(("seed", "values"), SEEDS_AND_TIES)
@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.05, 0.3, 0.999, 1.0])
def test_values_at_fpr_are_at_the_lowest_allowed_threshold(seed, values, fpr):
    scores, labels = draw(seed, size=400, values=values)
    allowed = [t for t in np.unique(scores) if np.mean(scores[~labels] >= t) <= fpr]
    threshold = min(allowed, default=np.inf)
    expected_dice, expected_iou = counted(scores, labels, threshold)
    found = pixel_metrics(scores, labels, fpr=fpr)
    assert (found.dice_at_fpr, found.iou_at_fpr) == pytest.approx((expected_dice, expected_iou), abs=1e-12)


def test_rates_are_exact_to_one_pixel():
    # 0.29 * 100 is 28.999999999999996 in floating point, yet 29 of 100 healthy pixels are a rate of 0.29.
    scores, labels = np.arange(101.0), np.arange(101) == 100
    assert pixel_metrics(scores, labels, fpr=0.29).dice_at_fpr == 2 / (1 + 30)
    scores[100] = 70.5
    assert pixel_metrics(scores, ~labels, tpr=0.29).fpr_at_tpr == 0.0
    assert pixel_metrics(scores, ~labels, tpr=0.30).fpr_at_tpr == 1.0


def test_dice_at_fpr_is_zero_if_no_score_is_allowed():
    found = pixel_metrics(np.array([1.0, 1.0, 0.0]), np.array([True, False, False]), fpr=0.1)
    assert found.dice_at_fpr == found.iou_at_fpr == 0.0


@pytest.mark.parametrize(("seed", "values"), SEEDS_AND_TIES)
@pytest.mark.parametrize("tpr", [1e-9, 0.3, 0.95, 1.0])
def test_fpr_at_tpr_is_at_the_highest_sufficient_threshold(seed, values, tpr):
    scores, labels = draw(seed, size=400, values=values)
    threshold = max(t for t in np.unique(scores) if np.mean(scores[labels] >= t) >= tpr)
    expected = np.mean(scores[~labels] >= threshold)
    assert pixel_metrics(scores, labels, tpr=tpr).fpr_at_tpr == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("metric", [*POOLED, aupro])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s, m: (s[:1], m), r"scores has shape \(1, 6, 6\) and \w+ \(2, 6, 6\)"),
        (lambda s, m: (s, m.astype(np.uint8)), r"has dtype uint8: must be bool, for example \w+ > 0"),
        (lambda s, m: (s, m & False), r"none of its 72 entries is anomalous"),
        (lambda s, m: (s, m | True), r"none of its 72 entries is healthy"),
        (lambda s, m: (np.where(m, np.nan, s), m), r"scores holds 3 NaN and 0 infinite values among 72"),
        (lambda s, m: (np.where(m, np.inf, s), m), r"scores holds 0 NaN and 3 infinite values"),
        (lambda s, m: (np.where(m, -np.inf, s), m), r"scores holds 0 NaN and 3 infinite values"),
        (lambda s, m: (s[:0], m[:0]), r"scores is empty, of shape \(0, 6, 6\)"),
        (lambda s, m: (s.astype(np.complex64), m), r"scores has dtype complex64"),
        (lambda s, m: (s.astype(str), m), r"scores has dtype <U"),
    ],
)
def test_invalid_arrays_raise_one_line(metric, spoil, message):
    scores, masks = np.arange(72.0).reshape(2, 6, 6), np.zeros((2, 6, 6), dtype=bool)
    masks[0, 0, :3] = True
    with pytest.raises(InputError, match=message) as refused:
        metric(*spoil(scores, masks))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, m: pixel_metrics(s, m, fpr=1.5), "fpr=1.5"),
        (lambda s, m: pixel_metrics(s, m, fpr=float("nan")), "fpr=nan"),
        (lambda s, m: pixel_metrics(s, m, tpr=0.0), "tpr=0.0"),
        (lambda s, m: aupro(s, m, fpr_limit=0.0), "fpr_limit=0.0"),
        (lambda s, m: healthy_threshold(s, rate=1.0), "rate=1.0"),
        (lambda s, m: healthy_threshold(s[:0]), "scores is empty"),
        (lambda s, m: aupro(s[0], m[0]), r"scores has shape \(6, 6\)"),
        (lambda s, m: aupro(np.stack([s, s], -1), np.stack([m, m], -1)), r"scores has shape \(2, 6, 6, 2\)"),
        (lambda s, m: dice(s, m), "predicted has dtype float64"),
        (lambda s, m: iou(m[0], m), r"predicted has shape \(6, 6\) and labels \(2, 6, 6\)"),
    ],
)
def test_errors_name_the_argument(call, message):
    scores, masks = np.arange(72.0).reshape(2, 6, 6), np.zeros((2, 6, 6), dtype=bool)
    masks[0, 0, :3] = True
    with pytest.raises(InputError, match=message):
        call(scores, masks)


def test_inputs_are_not_modified():
    scores, labels = draw(0)
    scores.flags.writeable = labels.flags.writeable = False
    before = scores.copy()
    positives, negatives = sorted_by_class(scores, labels)
    assert positives.size + negatives.size == scores.size
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize(("seed", "values"), SEEDS_AND_TIES)
def test_pixel_metrics_equal_the_single_metrics(seed, values):
    scores, labels = draw(seed, values=values)
    value, threshold = best_dice(scores, labels)
    expected = auroc(scores, labels), average_precision(scores, labels), value, threshold
    assert pixel_metrics(scores, labels)[:4] == expected


@pytest.mark.parametrize(("seed", "values"), SEEDS_AND_TIES)
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.29, 0.57, 0.999])
def test_the_healthy_threshold_is_the_lowest_allowed(seed, values, rate):
    scores, _ = draw(seed, size=100, values=values)
    threshold = healthy_threshold(scores, rate=rate)
    assert (scores >= threshold).mean() <= rate
    below = scores[scores < threshold].max()
    assert (scores >= below).mean() > rate
    assert threshold == np.nextafter(below, np.float32(np.inf))
