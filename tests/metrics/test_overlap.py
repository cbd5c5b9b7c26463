"""Dice and IoU against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from jaxvae.metrics.overlap import dice, iou


def test_overlap_equals_scikit_learns():
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 50, 4)) < 0.4
    assert dice(a, b) == pytest.approx(f1_score(a.ravel(), b.ravel()), abs=1e-12)
    assert iou(a, b) == pytest.approx(jaccard_score(a.ravel(), b.ravel()), abs=1e-12)
    assert dice(a, a) == iou(a, a) == 1.0
    assert dice(a, ~a) == iou(a, ~a) == 0.0


def test_two_empty_arrays_overlap_fully():
    empty = np.zeros((2, 3), dtype=bool)
    assert dice(empty, empty) == iou(empty, empty) == 1.0
    assert dice(empty, ~empty) == iou(empty, ~empty) == 0.0
