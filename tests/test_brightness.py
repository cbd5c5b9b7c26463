"""The experiment on the brightness of lesions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments import brightness, record
from jaxvae.errors import InputError


def heads(count: int = 3) -> brightness.Healthy:
    """Random slices of round heads; the last is too small for a disk."""
    rows, columns = np.indices((40, 40))
    radii = [17.0] * (count - 1) + [4.0]
    inside = np.array([np.hypot(rows - 20, columns - 20) < radius for radius in radii])[..., None]
    return brightness.Healthy((inside * 0.5).astype(np.float32), inside)


def test_disks_lie_inside_heads_with_room_for_them() -> None:
    healthy, disks = brightness.insert(heads(), 12)
    assert disks.shape == healthy.images.shape == (12, 40, 40, 1)
    assert (healthy.heads.sum(axis=(1, 2, 3)) > 100).all()
    assert not (disks > 0.5)[~healthy.heads].any()
    low, high = (np.pi * (radius + error) ** 2 for radius, error in zip(brightness.RADII, (-0.5, 0.5), strict=True))
    areas = disks.sum(axis=(1, 2, 3))
    assert ((areas > low) & (areas < high)).all()


def test_the_same_lesions_are_inserted_again() -> None:
    np.testing.assert_array_equal(brightness.insert(heads(), 5)[1], brightness.insert(heads(), 5)[1])


def test_equalised_slices_are_ranks_in_the_head() -> None:
    images, inside = np.random.default_rng(0).random((2, 6, 6, 1)).astype(np.float32), np.ones((2, 6, 6, 1), bool)
    inside[:, 0] = False
    ranks = brightness.prepared("equalised", images, inside)
    assert ranks[~inside].max() == 0
    np.testing.assert_allclose(np.sort(ranks[0][inside[0]]), np.arange(1, 31) / 30, rtol=1e-6)
    assert brightness.prepared("plain", images, inside) is images


def test_every_brightness_has_a_row_for_every_score(monkeypatch) -> None:
    rows, columns = np.indices((brightness.SIZE, brightness.SIZE)) - 31.5
    inside = np.broadcast_to((np.hypot(rows, columns) < 25)[None, ..., None], (32, *rows.shape, 1))
    healthy = brightness.Healthy(
        (0.2 + 0.6 * np.random.default_rng(0).random(inside.shape, np.float32)) * inside, inside
    )
    monkeypatch.setattr(brightness, "healthy_slices", lambda config: (healthy, healthy))
    config = brightness.Config(steps=2, lesions=4, brightness=(0.0, 1.0), scores=("rec_error", "atlas", "tissues"))
    found = {
        (row["brightness"], row["score"]): row["average_precision"] for row in brightness.compute(config, "plain", 0)
    }
    scores = {*config.scores, "brightness", "equalised_brightness"}
    assert found.keys() == {(at, name) for at in config.brightness for name in scores}
    assert found[1.0, "brightness"] > 0.99  # A white disk is the brightest.
    assert found[0.0, "brightness"] < 0.2


def test_the_table_and_the_figure_are_written(tmp_path: Path) -> None:
    rows = [
        {"column": column, "seed": seed, "brightness": at, "score": "rec_error", "average_precision": 0.1 * seed + at}
        for column in brightness.COLUMNS
        for seed in (0, 1)
        for at in (0.0, 0.5)
    ]
    summary = brightness.summarize(rows)
    assert [(row["mean"], round(row["std"], 4)) for row in summary[:2]] == [(0.05, 0.0707), (0.55, 0.0707)]
    assert "| Rec-Error | 0.050 | 0.550 |  0.050 |" in brightness.markdown(summary)
    brightness.figure(tmp_path / "brightness.png", summary)
    assert (tmp_path / "brightness.png").stat().st_size > 5_000


def test_a_quick_trial_does_not_replace_the_results(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    with pytest.raises(InputError, match="--quick: would replace the results"):
        brightness.main(brightness.Config(quick=True, out=tmp_path))
