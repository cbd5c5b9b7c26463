"""thresholds.json is read only if it is whole; images far outside the training range are noticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from folders import healthy, with_squares
from jaxvae import DenseVAE
from jaxvae.runs.run import Run
from jaxvae.scoring import healthy_stats
from jaxvae.scoring.healthy_stats import HealthyStats, intensity_ranges, outside_ranges

RUN = Run(DenseVAE((8, 8, 1), 2, 8), {}, 5, {"images": {}}, Path())


@pytest.mark.parametrize(
    "change",
    [
        {"step": "5"},
        {"thresholds": {"combi": 0.5}},
        {"thresholds": {"combi": {"0.05": 0.5}}},
        {"thresholds": {"combi": {"0.01": "0.5"}}},
        {"ranges": {"median": [0.0, 1.0]}},
        {"ranges": {"median": [0.0], "spread": [0.0, 1.0]}},
        {"ranges": {"median": [0.0, None], "spread": [0.0, 1.0]}},
    ],
)
def test_a_damaged_file_is_not_used(tmp_path: Path, change: dict) -> None:
    record = {"step": 5, "thresholds": {"combi": {"0.01": 0.5}}, "ranges": {"median": [0.0, 1.0], "spread": [0.0, 1.0]}}
    (tmp_path / "thresholds.json").write_text(json.dumps(record))
    assert healthy_stats.read(RUN._replace(run_dir=tmp_path)) == HealthyStats(record["thresholds"], record["ranges"])
    (tmp_path / "thresholds.json").write_text(json.dumps(record | change))
    assert healthy_stats.read(RUN._replace(run_dir=tmp_path)) is None


@pytest.mark.parametrize(
    ("change", "far"),
    [
        (lambda images: images, False),
        (lambda images: with_squares(images)[0], False),
        (lambda images: (images / 255).astype(np.float32), False),
        (lambda images: images.astype(np.float32), True),  # 0..255 as float
        (lambda images: (images / 255 / 16).astype(np.float32), True),  # 12 bits in 16
        (lambda images: 255 - images, True),
    ],
)
def test_images_far_outside_the_training_range_are_found(change, far: bool) -> None:
    ranges = intensity_ranges(healthy(50, seed=1)[..., None])
    assert (outside_ranges(ranges, change(healthy(8, seed=2))[..., None]) == far).all()


def test_a_small_bright_anomaly_is_inside_the_training_range() -> None:
    images = np.random.default_rng(0).normal(0.5, 0.01, (20, 32, 32, 1)).astype(np.float32)
    stained = images.copy()
    stained[:, 4:10, 4:10] = 1.0
    assert not outside_ranges(intensity_ranges(images), stained).any()
