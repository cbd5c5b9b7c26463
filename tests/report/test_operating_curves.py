"""Curves: the area under the drawn steps, colours and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve

from jaxvae.errors import InputError
from jaxvae.metrics.curves import pr_curve, roc_curve
from jaxvae.report import operating_curves


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def decoded(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_area_below_the_steps_is_average_precision(rng: np.random.Generator) -> None:
    labels = rng.random(300) < 0.2
    scores = np.round(rng.normal(size=300) + labels, 1)  # with ties
    expected = average_precision_score(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    for curve in (pr_curve(scores, labels)[:2], (recall, precision)):
        x, y = operating_curves.steps(*curve)
        assert x[0] == 0
        assert x[-1] == 1
        assert np.sum(np.diff(x) * y[1:]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("numbers", [None, {"combi": 0.9, "mine": 0.5}])
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_curves_are_drawn(tmp_path: Path, rng: np.random.Generator, numbers: dict | None, suffix: str) -> None:
    labels = rng.random(200) < 0.3
    scores = {"combi": rng.normal(size=200) + labels, "mine": rng.normal(size=200)}
    path = tmp_path / f"curves.{suffix}"
    operating_curves.figure(
        path,
        {name: roc_curve(values, labels) for name, values in scores.items()},
        {name: pr_curve(values, labels) for name, values in scores.items()},
        labels.mean(),
        auroc=numbers,
    )
    if suffix == "png":
        for colour in ((0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)):
            assert np.count_nonzero(np.all(decoded(path) == colour, axis=-1)) > 500
    else:
        assert "#d55e00" in path.read_text()


def test_errors_name_the_curve(tmp_path: Path) -> None:
    rates, path = np.array([0.0, 1.0]), tmp_path / "curves.png"
    with pytest.raises(InputError, match="ROC curve of 'a': holds values outside"):
        operating_curves.figure(path, {"a": (rates, 100 * rates)}, {}, 0.1)
    with pytest.raises(InputError, match="precision-recall curve of 'a': holds values outside"):
        operating_curves.figure(path, {}, {"a": (rates, np.array([0.0, np.nan]))}, 0.1)
    with pytest.raises(InputError, match="must both be"):
        operating_curves.figure(path, {"a": (rates, rates[:1])}, {}, 0.1)
    with pytest.raises(InputError, match="no curve"):
        operating_curves.figure(path, {}, {}, 0.1)
    assert not path.exists()
