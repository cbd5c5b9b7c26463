"""AUPRO against the area under a curve with every corner counted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage

from jaxvae.errors import InputError
from jaxvae.metrics.histograms import histogram
from jaxvae.metrics.ranking import auroc
from jaxvae.metrics.region_overlap import aupro, histogram_aupro

SEEDS_AND_TIES = list(itertools.product(range(3), (None, 100, 3)))


def components_of(mask: np.ndarray) -> list[np.ndarray]:
    """8-connected components of one mask, found by walking from pixel to pixel."""
    left = set(zip(*np.nonzero(mask), strict=True))
    lesions = []
    while left:
        lesion = np.zeros(mask.shape, dtype=bool)
        walk = [left.pop()]
        while walk:
            row, column = walk.pop()
            lesion[row, column] = True
            around = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= around
            walk += around
        lesions.append(lesion)
    return lesions


def slow_aupro(scores: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """Area of trapezoids up to the limit, between corners that are counted one by one."""
    lesions = [(image, lesion) for image, mask in enumerate(masks) for lesion in components_of(mask)]
    corners = [(0.0, 0.0)]
    for threshold in np.unique(scores)[::-1]:
        overlap = np.mean([np.mean(scores[image][lesion] >= threshold) for image, lesion in lesions])
        corners.append((float(np.mean(scores[~masks] >= threshold)), float(overlap)))
    area = 0.0
    for (left, low), (right, high) in itertools.pairwise(corners):
        if left < limit and right > left:
            stop = min(right, limit)
            area += (stop - left) * (low + low + (high - low) * (stop - left) / (right - left)) / 2
    return area / limit


def draw_maps(seed: int, values: int | None) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    masks = generator.random((5, 12, 9)) < 0.08
    masks[2] = False
    scores = generator.standard_exponential(masks.shape) + masks
    return (scores if values is None else np.round(scores * values / 8)).astype(np.float32), masks


@pytest.mark.parametrize(("seed", "values"), SEEDS_AND_TIES)
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_aupro_equals_the_area_of_trapezoids(seed, values, limit):
    scores, masks = draw_maps(seed, values)
    expected = slow_aupro(scores, masks, limit)
    assert aupro(scores, masks, fpr_limit=limit) == pytest.approx(expected, abs=1e-12)
    assert aupro(scores[..., None], masks[..., None], fpr_limit=limit) == pytest.approx(expected, abs=1e-12)


def test_aupro_of_one_lesion_without_a_limit_equals_auroc():
    generator = np.random.default_rng(0)
    masks = np.zeros((3, 16, 16), dtype=bool)
    masks[1, 4:9, 5:11] = True
    scores = np.round(generator.standard_exponential(masks.shape) * 4 + masks)
    assert aupro(scores, masks, fpr_limit=1.0) == pytest.approx(auroc(scores, masks), abs=1e-12)


def test_aupro_of_perfect_inverted_and_constant_scores():
    _, masks = draw_maps(0, None)
    assert aupro(masks.astype(float), masks) == pytest.approx(1.0, abs=1e-15)
    assert aupro(-masks.astype(float), masks) == pytest.approx(0.0, abs=1e-15)
    assert aupro(np.zeros(masks.shape), masks, fpr_limit=0.3) == pytest.approx(0.15, abs=1e-15)


def test_lesions_connect_at_corners_but_not_across_images():
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[0, 0, 0] = masks[0, 1, 1] = True  # one lesion of two pixels
    masks[1, 0, 0] = True  # another, behind the first if images were slices of a volume
    found = np.zeros(masks.shape)
    found[0, 0, 0] = 1.0
    # A third of the pixels, but a quarter of the lesions: half of one, nothing of the other.
    assert aupro(found, masks, fpr_limit=1e-9) == pytest.approx(0.25, abs=1e-9)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_binned_aupro_equals_aupro_of_rounded_scores(ties, limit):
    generator = np.random.default_rng(4)
    masks = generator.random((5, 12, 13)) < 0.1
    scores = (generator.standard_exponential(masks.shape) + masks).astype(np.float32)
    edges = np.linspace(0, 6, 30) if ties else np.unique(scores)
    rounded = np.searchsorted(edges, scores, "right")
    overlap = np.zeros(edges.size + 1)
    for mask, bins in zip(masks, rounded, strict=True):
        labels, number = ndimage.label(mask, np.ones((3, 3)))
        for lesion in range(1, number + 1):
            overlap += np.bincount(bins[labels == lesion], minlength=overlap.size) / np.sum(labels == lesion)
    value = histogram_aupro(histogram(scores, masks, edges), overlap, fpr_limit=limit)
    assert value == pytest.approx(aupro(rounded, masks, fpr_limit=limit), abs=1e-12)


def test_binned_aupro_errors_name_the_argument():
    counts = np.array([[1, 1], [0, 1]])
    with pytest.raises(InputError, match="no lesion"):
        histogram_aupro(counts, np.zeros(2))
    with pytest.raises(InputError, match="fpr_limit=0"):
        histogram_aupro(counts, np.array([0.0, 1.0]), fpr_limit=0)
