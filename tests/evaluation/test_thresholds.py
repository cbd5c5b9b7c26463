"""What a run keeps of its healthy images: measured once, of these images and weights, and used for no others."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from folders import healthy, with_squares
from jaxvae import ConvVAE, Hyperparams, InputError, TrainConfig, init, score_batches
from jaxvae.data.dataset import Dataset, Splits, contents, take
from jaxvae.evaluation import thresholds
from jaxvae.evaluation.thresholds import Kept, ranges_of, unlike
from jaxvae.runs import trained_on
from jaxvae.runs.checkpoint import Run
from jaxvae.scores import MAPS


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
    return Run(model, params, config, 5)


def no_images() -> Splits:
    raise AssertionError("the images are not needed")


def test_what_is_kept_is_measured_once_and_needs_no_images(run: Run, splits: Splits, tmp_path: Path) -> None:
    assert thresholds.read(tmp_path, run) is None
    kept = thresholds.of(tmp_path, run, lambda: splits)
    assert thresholds.of(tmp_path, run, no_images) == thresholds.read(tmp_path, run) == kept
    (scored,) = score_batches(run.model, run.params, splits.validation.images, maps=MAPS)
    for name in MAPS:
        for rate in ("0.01", "0.05"):
            shares = [np.mean(scored.maps[name] >= kept.thresholds[name][rate] * factor) for factor in (1, 1 - 1e-5)]
            assert shares[0] <= float(rate)
            assert shares[1] >= shares[0]
        highest = np.sort(scored.maps[name].ravel())[::-1]
        assert highest[int(0.01 * highest.size)] < kept.thresholds[name]["0.01"]


def test_what_is_kept_is_of_these_weights_and_images_only(run: Run, splits: Splits, tmp_path: Path) -> None:
    kept = thresholds.keep(tmp_path, run, splits)
    others = {"contents": contents(255 - splits.train.images, splits.validation.images)}
    assert thresholds.read(tmp_path, run._replace(step=6)) is None
    assert thresholds.read(tmp_path, run._replace(config={**run.config, "images": others})) is None
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
        assert thresholds.read(tmp_path, run) is None
    assert thresholds.keep(tmp_path, run, splits) == kept


def test_thresholds_of_earlier_versions_are_used_where_the_images_are_gone(run: Run, splits, tmp_path: Path) -> None:
    def gone() -> Splits:
        raise InputError("no such folder")

    (tmp_path / "thresholds.json").write_text(
        json.dumps({"step": 5, "thresholds": {"combi": {"0.01": 0.5, "0.05": 0.4}}})
    )
    assert thresholds.of(tmp_path, run, gone) == Kept({"combi": {"0.01": 0.5, "0.05": 0.4}}, None)
    assert thresholds.of(tmp_path, run, lambda: splits).ranges is not None


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
def test_damaged_thresholds_are_not_used(run: Run, tmp_path: Path, change: dict) -> None:
    record = {"step": 5, "thresholds": {"combi": {"0.01": 0.5}}, "ranges": {"median": [0.0, 1.0], "spread": [0.0, 1.0]}}
    (tmp_path / "thresholds.json").write_text(json.dumps(record))
    assert thresholds.read(tmp_path, run) == Kept(record["thresholds"], record["ranges"])
    (tmp_path / "thresholds.json").write_text(json.dumps(record | change))
    assert thresholds.read(tmp_path, run) is None


@pytest.mark.parametrize("line", ["{", "[]", '{"file": 1, "sketch": [1, 2, 3]}', '{"file": "a", "sketch": [1, 2]}',
                                  '{"file": "a", "sketch": [1, 2, null]}'])  # fmt: skip
def test_a_damaged_list_of_training_images_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / trained_on.FILE).write_text(line + "\n")
    with pytest.raises(InputError, match=r"trained_on\.jsonl.*; remove it, and train the run once more") as refused:
        trained_on.refuse(tmp_path, {"a.png": [1.0, 2.0, 3.0]}, Path("other"))
    assert "\n" not in str(refused.value)


def test_many_validation_images_are_thinned_evenly(run: Run, splits: Splits, monkeypatch) -> None:
    every_other = take(splits.validation, np.array([0, 2, 4, 7]))
    wanted = thresholds.healthy_thresholds(run, every_other)
    monkeypatch.setattr(thresholds, "MOST_PIXELS", 4 * 256)
    assert thresholds.healthy_thresholds(run, splits.validation) == wanted


def test_without_validation_images_there_are_no_thresholds(run: Run, splits: Splits, tmp_path: Path) -> None:
    none = Splits(splits.train, splits.test, splits.test)
    assert thresholds.of(tmp_path, run, lambda: none).thresholds == {}
    assert thresholds.of(tmp_path, run, no_images).thresholds == {}


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
def test_values_far_outside_the_training_range_are_noticed(change, far: bool) -> None:
    ranges = ranges_of(healthy(50, seed=1)[..., None])
    assert (unlike(ranges, change(healthy(8, seed=2))[..., None]) == far).all()


def test_a_small_bright_anomaly_is_no_value_of_another_scale() -> None:
    images = np.random.default_rng(0).normal(0.5, 0.01, (20, 32, 32, 1)).astype(np.float32)
    stained = images.copy()
    stained[:, 4:10, 4:10] = 1.0
    assert not unlike(ranges_of(images), stained).any()
