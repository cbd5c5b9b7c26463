"""Bootstrap intervals: the fast form agrees with the plain one, and both agree with theory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from jaxvae.errors import InputError
from jaxvae.metrics.intervals import Interval, bootstrap, bootstrap_pixels
from jaxvae.metrics.ranking import auroc, average_precision, best_dice
from jaxvae.metrics.region_overlap import aupro


def draw(groups: int, pixels: int, *, share: float = 0.1, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Maps [groups, pixels] of patients who differ in brightness and in the number of anomalous pixels."""
    generator = np.random.default_rng(groups)
    labels = generator.random((groups, pixels)) < share * 2 * generator.random((groups, 1))
    scores = generator.standard_exponential(labels.shape) * (0.5 + generator.random((groups, 1))) + labels
    return (np.round(scores * 4) if ties else scores).astype(np.float32), labels


def within(actual: Interval, expected: Interval, tolerance: float) -> bool:
    return bool(np.abs(np.subtract(actual, expected)).max() <= tolerance)


@pytest.mark.parametrize("ties", [False, True])
def test_the_fast_form_is_exact_for_few_pixels(ties):
    scores, labels = draw(12, 500, ties=ties)
    patients = [f"patient{i % 5}" for i in range(12)]
    fast = bootstrap_pixels(scores, labels, patients, resamples=40)
    for statistic in (auroc, average_precision, best_dice):
        plain = bootstrap(statistic, scores, labels, patients, resamples=40)
        assert within(getattr(fast, statistic.__name__), plain, 1e-12)


@pytest.mark.parametrize(("share", "ties"), [(0.1, False), (0.1, True), (0.001, False)])
def test_the_fast_form_is_close_for_many_pixels(share, ties):
    scores, labels = draw(30, 10_000, share=share, ties=ties)
    # Half of all pixels are background with a score of 0, some of them in lesions.
    scores[:, ::2] = 0
    fast = bootstrap_pixels(scores, labels, np.arange(30), resamples=25)
    for statistic in (auroc, average_precision, best_dice):
        plain = bootstrap(statistic, scores, labels, np.arange(30), resamples=25)
        assert within(getattr(fast, statistic.__name__), plain, 3e-5)


def test_intervals_of_independent_images_are_as_wide_as_in_theory():
    # Normal interval with the standard error of Hanley and McNeil for the AUROC of two normal samples.
    generator = np.random.default_rng(0)
    labels = np.arange(600) < 300
    scores = generator.normal(size=600) + labels
    area = auroc(scores, labels)
    both_above, both_below = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + 299 * (both_above - area**2) + 299 * (both_below - area**2)) / 300**2
    half = stats.norm.ppf(0.975) * np.sqrt(variance)
    interval = bootstrap(auroc, scores, labels, np.arange(600), resamples=1000)
    assert interval.low == pytest.approx(area - half, abs=0.15 * half)
    assert interval.high == pytest.approx(area + half, abs=0.15 * half)


def test_copies_narrow_the_interval_only_as_separate_groups():
    scores, labels = draw(20, 200)
    twice, twice_labels = np.concatenate([scores, scores]), np.concatenate([labels, labels])
    names = np.arange(20)
    honest = bootstrap(auroc, scores, labels, names, resamples=300)
    grouped = bootstrap(auroc, twice, twice_labels, np.concatenate([names, names]), resamples=300)
    naive = bootstrap(auroc, twice, twice_labels, np.arange(40), resamples=300)
    assert grouped == pytest.approx(honest)
    assert naive.high - naive.low < 0.85 * (honest.high - honest.low)


def test_higher_levels_contain_lower_ones():
    scores, labels = draw(15, 100)
    inner, outer = (bootstrap(auroc, scores, labels, np.arange(15), resamples=200, level=v) for v in (0.5, 0.99))
    assert outer.low < inner.low < inner.high < outer.high


@pytest.mark.parametrize("fast", [False, True])
def test_the_seed_determines_the_interval(fast):
    scores, labels = draw(15, 100)

    def interval(seed: int) -> Interval:
        if fast:
            return bootstrap_pixels(scores, labels, np.arange(15), resamples=50, seed=seed).auroc
        return bootstrap(auroc, scores, labels, np.arange(15), resamples=50, seed=seed)

    assert interval(1) == interval(1)
    assert interval(1) != interval(2)


def test_resamples_without_a_class_are_drawn_again():
    scores, labels = draw(4, 50)
    labels[1:] = False
    labels[0] |= scores[0] == scores[0].max()
    interval = bootstrap(auroc, scores, labels, np.arange(4), resamples=200)
    assert 0 <= interval.low <= interval.high <= 1
    assert within(bootstrap_pixels(scores, labels, np.arange(4), resamples=200).auroc, interval, 1e-12)


def test_maps_are_resampled_by_image():
    generator = np.random.default_rng(0)
    masks = generator.random((8, 10, 10)) < 0.1
    scores = generator.random((8, 10, 10)) + masks
    interval = bootstrap(aupro, scores, masks, np.arange(8), resamples=30)
    assert interval.low < aupro(scores, masks) < interval.high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ["a", "b"]}, r"groups has shape \(2,\) for 6 rows"),
        ({"groups": ["a"] * 6}, "one group only, a"),
        ({"resamples": 0}, "resamples=0"),
        ({"level": 1.0}, "level=1.0"),
        ({"level": 95}, "level=95"),
        ({"labels": np.zeros((6, 40), dtype=bool)}, "labels lacks a class"),
    ],
)
def test_errors_name_the_argument(change, message):
    scores, labels = draw(6, 40)
    arguments = {"scores": scores, "labels": labels, "groups": np.arange(6)} | change
    with pytest.raises(InputError, match=message):
        bootstrap(auroc, **arguments)
    with pytest.raises(InputError, match=message):
        bootstrap_pixels(**arguments)
