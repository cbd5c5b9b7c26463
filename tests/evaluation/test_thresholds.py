"""Thresholds are computed once per run, and used for its own checkpoint and images only."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from folders import healthy
from jaxvae import ConvVAE, Hyperparams, InputError, TrainConfig, init, score_batches
from jaxvae.data.dataset import Dataset, Splits, contents, take
from jaxvae.evaluation import thresholds
from jaxvae.evaluation.thresholds import mask_threshold, read_healthy_stats, write_healthy_stats
from jaxvae.runs import run_images
from jaxvae.runs.run import Run
from jaxvae.scores import MAPS
from jaxvae.scoring import healthy_stats
from jaxvae.scoring.healthy_stats import HealthyStats


@pytest.fixture(scope="module")
def splits() -> Splits:
    images = healthy(20, size=16)[..., None]
    names = tuple(map(str, range(20)))
    everything = Dataset(images, np.zeros(20, bool), None, names, names, ("good",) * 20)
    return Splits(take(everything, np.arange(12)), take(everything, np.arange(12, 20)), take(everything, np.arange(0)))


@pytest.fixture(scope="module")
def run(splits: Splits) -> Run:
    model = ConvVAE((16, 16, 1), 3, (4, 8))
    params = init(model, TrainConfig(), Hyperparams(), jax.random.key(0)).params
    images = {"contents": contents(splits.train.images, splits.validation.images)}
    config = {"data": {"data": "blobs"}, "images": images, "hparams": {"log_scale": 0.0}, "arithmetic": "corrected"}
    return Run(model, params, 5, config, Path())


def no_images() -> Splits:
    raise AssertionError("the images are not needed")


def test_stats_are_computed_once_and_then_need_no_images(run: Run, splits: Splits, tmp_path: Path) -> None:
    run = run._replace(run_dir=tmp_path)
    assert healthy_stats.read(run) is None
    stats = read_healthy_stats(run, lambda: splits)
    assert read_healthy_stats(run, no_images) == healthy_stats.read(run) == stats
    (scores,) = score_batches(run.model, run.params, splits.validation.images, maps=MAPS)
    for name in MAPS:
        for rate in ("0.01", "0.05"):
            shares = [np.mean(scores.maps[name] >= stats.thresholds[name][rate] * factor) for factor in (1, 1 - 1e-5)]
            assert shares[0] <= float(rate)
            assert shares[1] >= shares[0]
        highest = np.sort(scores.maps[name].ravel())[::-1]
        assert highest[int(0.01 * highest.size)] < stats.thresholds[name]["0.01"]


def test_stats_of_other_weights_or_images_are_not_used(run: Run, splits: Splits, tmp_path: Path) -> None:
    stats = write_healthy_stats(run._replace(run_dir=tmp_path), splits)
    others = {"contents": contents(255 - splits.train.images, splits.validation.images)}
    assert healthy_stats.read(run._replace(run_dir=tmp_path, step=6)) is None
    assert healthy_stats.read(run._replace(run_dir=tmp_path, config={**run.config, "images": others})) is None
    record = json.loads((tmp_path / "thresholds.json").read_text())
    wrong = [
        {"thresholds": 3},
        {"thresholds": {"combi": 3}},
        {"ranges": {"median": [1]}},
        {"images": [1]},
        {"step": "5"},
    ]
    for damaged in ("", "{", "[]", "{}", *(json.dumps({**record, **change}) for change in wrong)):
        (tmp_path / "thresholds.json").write_text(damaged)
        assert healthy_stats.read(run._replace(run_dir=tmp_path)) is None
    assert write_healthy_stats(run._replace(run_dir=tmp_path), splits) == stats


def test_old_thresholds_are_used_if_the_images_are_gone(run: Run, splits, tmp_path: Path) -> None:
    def gone() -> Splits:
        raise InputError("no such folder")

    (tmp_path / "thresholds.json").write_text(
        json.dumps({"step": 5, "thresholds": {"combi": {"0.01": 0.5, "0.05": 0.4}}})
    )
    run = run._replace(run_dir=tmp_path)
    assert read_healthy_stats(run, gone) == HealthyStats({"combi": {"0.01": 0.5, "0.05": 0.4}}, None)
    assert read_healthy_stats(run, lambda: splits).ranges is not None


def test_many_validation_images_are_thinned_evenly(run: Run, splits: Splits, monkeypatch) -> None:
    every_other = take(splits.validation, np.array([0, 2, 4, 7]))
    wanted = thresholds.validation_thresholds(run, every_other)
    monkeypatch.setattr(thresholds, "MOST_PIXELS", 4 * 256)
    assert thresholds.validation_thresholds(run, splits.validation) == wanted


def test_without_validation_images_there_are_no_thresholds(run: Run, splits: Splits, tmp_path: Path) -> None:
    none = Splits(splits.train, splits.test, splits.test)
    assert read_healthy_stats(run._replace(run_dir=tmp_path), lambda: none).thresholds == {}
    assert read_healthy_stats(run._replace(run_dir=tmp_path), no_images).thresholds == {}


def test_a_mask_threshold_says_why_it_is_missing(run: Run, splits: Splits, tmp_path: Path, monkeypatch) -> None:
    def gone(run: Run) -> Splits:
        raise InputError("no such folder")

    run = run._replace(run_dir=tmp_path)
    monkeypatch.setattr(run_images, "open_own", gone)
    assert mask_threshold(run, "elbo_grad") == (None, None, "no such folder")
    healthy_stats.write(run, HealthyStats({"combi": {"0.01": 0.5}}, None))
    assert mask_threshold(run, "combi")[0] == 0.5
    assert mask_threshold(run, "elbo_grad") == (None, None, "the run has no threshold of elbo_grad, and no such folder")
    monkeypatch.setattr(run_images, "open_own", lambda run: Splits(splits.train, splits.test, splits.test))
    found, ranges, problem = mask_threshold(run, "elbo_grad")
    assert (found, problem) == (None, "the run has no validation images")
    assert ranges is not None
