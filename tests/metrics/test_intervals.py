"""Resampled intervals: the fast form agrees with the plain one, and both with what theory says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from jaxvae.errors import InputError
from jaxvae.metrics.intervals import Interval, bootstrap, bootstrap_pixels
from jaxvae.metrics.ranking import auroc, average_precision, best_dice
from jaxvae.metrics.region_overlap import aupro


def draw(groups: int, pixels: int, *, share: float = 0.1, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Maps [groups, pixels] of patients that differ in how bright they are and how ill."""
    generator = np.random.default_rng(groups)
    labels = generator.random((groups, pixels)) < share * 2 * generator.random((groups, 1))
    scores = generator.standard_exponential(labels.shape) * (0.5 + generator.random((groups, 1))) + labels
    return (np.round(scores * 4) if ties else scores).astype(np.float32), labels


def within(actual: Interval, expected: Interval, tolerance: float) -> bool:
    return bool(np.abs(np.subtract(actual, expected)).max() <= tolerance)


@pytest.mark.parametrize("ties", [False, True])
def test_the_fast_form_is_exact_while_every_score_has_its_bin(ties):
    scores, labels = draw(12, 500, ties=ties)
    patients = [f"patient{i % 5}" for i in range(12)]
    fast = bootstrap_pixels(scores, labels, patients, samples=40)
    for statistic in (auroc, average_precision, best_dice):
        plain = bootstrap(statistic, scores, labels, patients, samples=40)
        assert within(getattr(fast, statistic.__name__), plain, 1e-12)


@pytest.mark.parametrize(("share", "ties"), [(0.1, False), (0.1, True), (0.001, False)])
def test_the_fast_form_is_within_3e_5_for_many_pixels(share, ties):
    scores, labels = draw(30, 10_000, share=share, ties=ties)
    # Half of all pixels are background that scores nothing at all, some lesions among it.
    scores[:, ::2] = 0
    fast = bootstrap_pixels(scores, labels, np.arange(30), samples=25)
    for statistic in (auroc, average_precision, best_dice):
        plain = bootstrap(statistic, scores, labels, np.arange(30), samples=25)
        assert within(getattr(fast, statistic.__name__), plain, 3e-5)


def test_intervals_of_independent_images_are_as_wide_as_theory_says():
    # AUROC of two normal samples: Hanley and McNeil's standard error, here with its normal interval.
    generator = np.random.default_rng(0)
    labels = np.arange(600) < 300
    scores = generator.normal(size=600) + labels
    area = auroc(scores, labels)
    both_above, both_below = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + 299 * (both_above - area**2) + 299 * (both_below - area**2)) / 300**2
    half = stats.norm.ppf(0.975) * np.sqrt(variance)
    interval = bootstrap(auroc, scores, labels, np.arange(600), samples=1000)
    assert interval.low == pytest.approx(area - half, abs=0.15 * half)
    assert interval.high == pytest.approx(area + half, abs=0.15 * half)


def test_copies_of_a_group_make_no_interval_narrower_but_false_independence_does():
    scores, labels = draw(20, 200)
    twice, twice_labels = np.concatenate([scores, scores]), np.concatenate([labels, labels])
    names = np.arange(20)
    honest = bootstrap(auroc, scores, labels, names, samples=300)
    grouped = bootstrap(auroc, twice, twice_labels, np.concatenate([names, names]), samples=300)
    naive = bootstrap(auroc, twice, twice_labels, np.arange(40), samples=300)
    assert grouped == pytest.approx(honest)
    assert naive.high - naive.low < 0.85 * (honest.high - honest.low)


def test_higher_levels_hold_lower_ones():
    scores, labels = draw(15, 100)
    inner, outer = (bootstrap(auroc, scores, labels, np.arange(15), samples=200, level=v) for v in (0.5, 0.99))
    assert outer.low < inner.low < inner.high < outer.high


@pytest.mark.parametrize("fast", [False, True])
def test_a_seed_decides_the_draw(fast):
    scores, labels = draw(15, 100)

    def interval(seed: int) -> Interval:
        if fast:
            return bootstrap_pixels(scores, labels, np.arange(15), samples=50, seed=seed).auroc
        return bootstrap(auroc, scores, labels, np.arange(15), samples=50, seed=seed)

    assert interval(1) == interval(1)
    assert interval(1) != interval(2)


def test_draws_without_a_class_are_drawn_again():
    scores, labels = draw(4, 50)
    labels[1:] = False
    labels[0] |= scores[0] == scores[0].max()
    interval = bootstrap(auroc, scores, labels, np.arange(4), samples=200)
    assert 0 <= interval.low <= interval.high <= 1
    assert within(bootstrap_pixels(scores, labels, np.arange(4), samples=200).auroc, interval, 1e-12)


def test_maps_are_resampled_as_images():
    generator = np.random.default_rng(0)
    masks = generator.random((8, 10, 10)) < 0.1
    scores = generator.random((8, 10, 10)) + masks
    interval = bootstrap(aupro, scores, masks, np.arange(8), samples=30)
    assert interval.low < aupro(scores, masks) < interval.high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ["a", "b"]}, r"groups has shape \(2,\) for 6 rows"),
        ({"groups": ["a"] * 6}, "one group only, a"),
        ({"samples": 0}, "samples=0"),
        ({"level": 1.0}, "level=1.0"),
        ({"level": 95}, "level=95"),
        ({"labels": np.zeros((6, 40), dtype=bool)}, "labels lacks a class"),
    ],
)
def test_what_cannot_be_resampled_is_refused(change, message):
    scores, labels = draw(6, 40)
    arguments = {"scores": scores, "labels": labels, "groups": np.arange(6)} | change
    with pytest.raises(InputError, match=message):
        bootstrap(auroc, **arguments)
    with pytest.raises(InputError, match=message):
        bootstrap_pixels(**arguments)
