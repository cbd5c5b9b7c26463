"""Histograms: they merge by addition, and the exact metric is within their bounds."""

from __future__ import annotations

import numpy as np
import pytest

from jaxvae.errors import InputError
from jaxvae.metrics.histograms import (
    float_bins,
    float_edges,
    histogram,
    histogram_auroc,
    histogram_average_precision,
    histogram_best_dice,
)
from jaxvae.metrics.ranking import auroc, average_precision, best_dice

PAIRS = [
    (histogram_auroc, auroc),
    (histogram_average_precision, average_precision),
    (histogram_best_dice, lambda scores, labels: best_dice(scores, labels)[0]),
]


def draw(seed: int, *, share: float, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.random(4000) < share
    scores = (generator.standard_exponential(4000) + labels).astype(np.float32)
    return np.round(scores * 16) / 16 if ties else scores, labels


def test_counts_equal_those_of_numpy():
    scores, labels = draw(0, share=0.2, ties=False)
    edges = np.linspace(0, 4, 9)
    counts = histogram(scores, labels, edges)
    for row, of_class in ((0, scores[~labels]), (1, scores[labels])):
        np.testing.assert_array_equal(counts[row], np.histogram(of_class, [-np.inf, *edges, np.inf])[0])


def test_histograms_of_parts_add_up():
    scores, labels = draw(1, share=0.2, ties=True)
    edges = np.linspace(0.1, 3, 50)
    parts = [histogram(s, y, edges) for s, y in zip(np.split(scores, 8), np.split(labels, 8), strict=True)]
    np.testing.assert_array_equal(sum(parts), histogram(scores, labels, edges))


def test_large_arrays_are_counted_in_parts():
    scores = np.arange((1 << 22) + 5, dtype=np.float64)
    counts = histogram(scores, scores % 2 == 1, np.array([10.0, 1e6]))
    np.testing.assert_array_equal(counts.sum(axis=0), [10, 999_990, scores.size - 1_000_000])


@pytest.mark.parametrize(("estimate", "exact"), PAIRS)
@pytest.mark.parametrize("bins", [2, 17, 300, 5000])
@pytest.mark.parametrize("share", [0.003, 0.1, 0.9])
@pytest.mark.parametrize("ties", [False, True])
def test_the_exact_metric_is_within_the_bounds(estimate, exact, bins, share, ties):
    for seed in range(3):
        scores, labels = draw(seed, share=share, ties=ties)
        bounded = estimate(histogram(scores, labels, np.linspace(0, 6, bins)))
        assert bounded.low - 1e-12 <= exact(scores, labels) <= bounded.high + 1e-12
        assert bounded.low <= bounded.value <= bounded.high


@pytest.mark.parametrize(("estimate", "exact"), PAIRS)
def test_the_value_is_exact_for_scores_rounded_to_their_bins(estimate, exact):
    scores, labels = draw(0, share=0.1, ties=False)
    edges = np.linspace(0, 6, 40)
    rounded = np.searchsorted(edges, scores, "right")
    assert estimate(histogram(scores, labels, edges)).value == pytest.approx(exact(rounded, labels), abs=1e-12)


def worst_and_best(metric, healthy: int, anomalous: int) -> tuple[float, float]:
    """The metric of one bin: anomalous pixels one by one below the healthy ones, or all tied above them."""
    labels = np.arange(healthy + anomalous) < anomalous
    return metric(np.arange(labels.size), labels), metric(labels, labels)


def test_bounds_equal_the_worst_and_the_best_order():
    counts = np.array([[30], [20]])
    low, high = worst_and_best(auroc, 30, 20)
    assert histogram_auroc(counts)[1:] == (low, high)
    low, high = worst_and_best(average_precision, 30, 20)
    bounded = histogram_average_precision(counts)
    assert bounded.low == pytest.approx(low, abs=1e-4)
    assert bounded.low <= low
    assert bounded.high == high


def test_bounds_tighten_as_bins_narrow():
    scores, labels = draw(0, share=0.1, ties=False)
    for estimate, _ in PAIRS:
        widths = [
            bounded.high - bounded.low
            for bounded in (estimate(histogram(scores, labels, np.linspace(0, 6, bins))) for bins in (16, 256, 4096))
        ]
        assert widths[0] > 3 * widths[1] > 9 * widths[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, y: histogram(s, y, np.array([1.0, 1.0])), "each above the one before"),
        (lambda s, y: histogram(s, y, np.array([])), r"edges of shape \(0,\)"),
        (lambda s, y: histogram(s, y[:-1], np.array([1.0])), r"labels \(3999,\)"),
        (lambda s, y: histogram(s * np.nan, y, np.array([1.0])), "4,000 NaN"),
        (lambda s, y: histogram_auroc(histogram(s, y & False, np.array([1.0]))), "no anomalous pixel"),
        (lambda s, y: histogram_average_precision(np.zeros((2, 3))), "no healthy pixel"),
        (lambda s, y: histogram_best_dice(np.zeros((3, 2))), r"counts has shape \(3, 2\)"),
    ],
)
def test_errors_name_the_argument(call, message):
    scores, labels = draw(0, share=0.2, ties=False)
    with pytest.raises(InputError, match=message):
        call(scores, labels)


def test_float_bins_ascend_and_contain_their_scores():
    generator = np.random.default_rng(0)
    scores = (generator.normal(size=5000) * 10.0 ** generator.integers(-30, 30, 5000)).astype(np.float32)
    scores = np.sort(np.concatenate([scores, np.float32([0.0, -0.0, 1e-44, -1e-44, 3.4e38, -3.4e38])]))
    bins = float_bins(scores)
    assert (np.diff(bins) >= 0).all()
    lower, upper = float_edges(bins), float_edges(bins + 1)
    assert ((lower <= scores) & (scores < upper)).all()
    normal = (np.abs(scores) > 1e-37) & (np.abs(scores) < 1e38)
    width = upper[normal].astype(np.float64) - lower[normal].astype(np.float64)
    assert (width <= 2**-11 * np.abs(lower[normal])).all()
    assert np.unique(float_bins(np.float32([0.0, -0.0]))).size == 1
