"""Histograms: bins, densities, ticks and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvae.errors import InputError
from jaxvae.report import score_histograms, style


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def decoded(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize(
    ("draw", "heavy"),
    [
        (lambda rng, size: rng.normal(size=size), False),
        (lambda rng, size: rng.uniform(size=size), False),
        (lambda rng, size: rng.exponential(size=size), False),
        (lambda rng, size: rng.lognormal(sigma=2, size=size), True),
        (lambda rng, size: rng.lognormal(sigma=2, size=size) * (rng.random(size) < 0.4), True),
        (lambda rng, size: np.zeros(size), False),
        (lambda rng, size: np.full(size, 3e5, np.float32), False),
    ],
)
def test_histograms_have_area_one_and_a_fitting_axis(rng: np.random.Generator, draw, heavy: bool) -> None:
    healthy, anomalous = draw(rng, 5000), draw(rng, 400)
    edges, log = score_histograms.bins(healthy, anomalous)
    assert log == heavy
    assert np.all(np.diff(edges) > 0)
    for values in (healthy, anomalous):
        heights = score_histograms.densities(values, edges, log=log)
        assert np.sum(heights * np.diff(np.log10(edges) if log else edges)) == pytest.approx(1)


def test_an_outlier_does_not_stretch_the_axis(rng: np.random.Generator) -> None:
    values = rng.normal(size=5000)
    edges, _ = score_histograms.bins(np.append(values, 1e6), values)
    assert edges[-1] < 5


def test_histograms_are_drawn_and_errors_name_the_score(tmp_path: Path, rng: np.random.Generator) -> None:
    path, values = tmp_path / "histograms.png", rng.normal(size=(5, 4, 4, 1))
    score_histograms.figure(path, {f"score {i}": (values, values[:i]) for i in range(5)})
    assert decoded(path).shape[1] == style.WIDTH
    with pytest.raises(InputError, match="score 'kl': holds 2 values that are not finite"):
        score_histograms.figure(path, {"kl": (values, np.array([np.nan, 1.0, np.inf]))})
    with pytest.raises(InputError, match="score 'kl': holds no value"):
        score_histograms.figure(path, {"kl": (values[:0], values[:0])})
    with pytest.raises(InputError, match="no score"):
        score_histograms.figure(path, {})


@pytest.mark.parametrize(("low", "high"), [(1e-6, 1.0), (0.2, 30.0), (2.5, 26.0), (0.99, 10.1)])
def test_a_logarithmic_axis_has_a_few_ticks(low: float, high: float) -> None:
    sheet = style.sheet(400, 300)
    panel = style.axes(sheet, 30, 30, 330, 200)
    panel.set(xscale="log", xlim=(low, high))
    score_histograms._few_ticks(panel, low, high)
    ticks = panel.get_xticks()
    assert 0 < len(ticks) <= 4
    assert all(low <= tick <= high for tick in ticks)
