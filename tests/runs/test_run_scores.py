"""Scores of images by a run equal those of the library, and are never NaN."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvae import DenseVAE, Hyperparams, InputError, TrainConfig, init, parity
from jaxvae.data import kinds
from jaxvae.data.dataset import Dataset, take
from jaxvae.data.kinds import Source
from jaxvae.runs.run import Run
from jaxvae.runs.run_scores import check_shape, score_dataset, score_precision
from jaxvae.scores import MAPS
from jaxvae.scores.combine import combine
from jaxvae.scores.gradients import pixel_scores, sample_scores
from jaxvae.types import SampleScores
from states import labelled_images, untrained_run

CONFIG = {
    "data": {"data": "phantom"},
    "images": {},
    "train": {},
    "hparams": {"log_scale": -0.5},
    "arithmetic": "corrected",
    "patience": None,
    "seed": 3,
    "epochs": 1,
}


@pytest.fixture(scope="module")
def run() -> Run:
    return untrained_run(CONFIG)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return labelled_images()


def test_scores_equal_those_of_the_library(run: Run, dataset: Dataset) -> None:
    scores = score_dataset(run, dataset, batch_size=3)
    expected = sample_scores(run.model, run.params, dataset.images, log_scale=-0.5)
    for name in SampleScores._fields:
        np.testing.assert_allclose(scores.image_scores[name], getattr(expected, name), rtol=1e-5)
    raw = pixel_scores(run.model, run.params, dataset.images, log_scale=-0.5)
    for name, wanted in (("rec_error", raw.rec_error), ("combi", combine(raw))):
        mean = np.mean(wanted, axis=-1, keepdims=True)
        np.testing.assert_allclose(scores.maps[name], mean, rtol=1e-4, atol=1e-6 * mean.max())
    assert set(scores.maps) == set(MAPS)
    assert all(values.shape == (7, 16, 16, 1) and values.dtype == np.float32 for values in scores.maps.values())
    assert scores.reconstructions.shape == (7, 16, 16, 2)


def test_scores_do_not_depend_on_the_batch(run: Run, dataset: Dataset) -> None:
    everything = score_dataset(run, dataset, maps=("combi",), batch_size=64)
    for batch_size, index in ((1, [2]), (2, [6, 2, 0]), (5, [2, 1, 3, 4, 5, 6])):
        scores = score_dataset(run, take(dataset, np.array(index)), maps=("combi",), batch_size=batch_size)
        for name in SampleScores._fields:
            np.testing.assert_allclose(scores.image_scores[name], everything.image_scores[name][index], rtol=1e-5)
        peak = everything.maps["combi"].max()
        np.testing.assert_allclose(scores.maps["combi"], everything.maps["combi"][index], rtol=1e-5, atol=1e-6 * peak)


def test_without_maps_there_are_image_scores_only(run: Run, dataset: Dataset) -> None:
    scores = score_dataset(run, dataset, maps=())
    assert scores.maps == {}
    assert len(scores.reconstructions) == 0
    assert all(np.isfinite(values).all() and values.shape == (7,) for values in scores.image_scores.values())


def test_released_image_scores_are_float32_on_any_device(run: Run, monkeypatch) -> None:
    monkeypatch.setattr("jaxvae.runs.run_scores.product_precision", lambda dtype: "tensorfloat32")
    assert score_precision(run) == dict.fromkeys(("maps", "image_scores"), "tensorfloat32")
    released = run._replace(config={**run.config, "arithmetic": "released"})
    assert score_precision(released) == {"maps": "tensorfloat32", "image_scores": "float32"}


def test_a_released_run_is_scored_with_the_released_arithmetic(dataset: Dataset) -> None:
    model = DenseVAE((16, 16, 2), 3, 8)
    params = init(model, TrainConfig(), Hyperparams(), jax.random.key(0)).params
    run = Run(model, params, 1, {**CONFIG, "arithmetic": "released"}, Path())
    scores = score_dataset(run, dataset, maps=())
    key = jax.random.fold_in(jax.random.key(CONFIG["seed"]), 0)
    expected = parity.sample_scores(model, params, dataset.images, key, log_scale=-0.5)
    for values, name in zip(expected, SampleScores._fields, strict=True):
        np.testing.assert_allclose(scores.image_scores[name], values, rtol=1e-5)


@pytest.mark.parametrize("value", [1e25, np.nan, np.inf])
def test_an_infinite_score_is_refused_and_its_image_named(run: Run, dataset: Dataset, value: float) -> None:
    images = dataset.images.copy()
    images[4, 3, 3] = value
    with pytest.raises(InputError, match=r"test/4.png: \w+ is NaN or infinite"):
        score_dataset(run, replace(dataset, images=images))


def test_images_of_another_shape_are_refused(run: Run) -> None:
    check_shape(run, np.zeros((3, 16, 16, 2)), "FOLDER")
    with pytest.raises(
        InputError, match=r"FOLDER: the images are 16x24 with 1 channel .* trained on 16x16 with 2 chan"
    ):
        check_shape(run, np.zeros((3, 16, 24, 1)), "FOLDER")


def test_a_run_scores_images_of_any_size_and_type(tmp_path: Path) -> None:
    """Images are resized, averaged and scaled as the run's own; maps have the size of the model."""
    model = DenseVAE((8, 8, 1), 3, 8)
    params = init(model, TrainConfig(), Hyperparams(), jax.random.key(0)).params
    data = kinds.to_config(Source(str(tmp_path), size=(8,), channels=(0,)))
    run = Run(model, params, 1, {**CONFIG, "data": data}, tmp_path)
    large = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 2), np.uint8)
    scores = run.score(large, maps=("elbo_grad",), reconstructions=True)
    assert scores.maps["elbo_grad"].shape == (3, 8, 8, 1)
    assert scores.reconstructions.shape == (3, 8, 8, 1)
    small = large[..., :1].reshape(3, 8, 2, 8, 2, 1).mean(axis=(2, 4)) / 255
    for images in (small, small[..., 0], [small[0], large[1], large[2] / np.float32(255)]):
        found = run.score(images, ("elbo_grad",), batch_size=2)
        for name, values in scores.image_scores.items():
            np.testing.assert_allclose(found.image_scores[name], values, rtol=1e-4)
        peak = scores.maps["elbo_grad"].max()
        np.testing.assert_allclose(found.maps["elbo_grad"], scores.maps["elbo_grad"], rtol=1e-3, atol=1e-5 * peak)


def test_a_run_on_phantoms_takes_images_of_its_shape(run: Run, dataset: Dataset) -> None:
    scores = run.score(dataset.images)
    expected = score_dataset(run, dataset)
    assert set(scores.maps) == set(MAPS)
    np.testing.assert_array_equal(scores.maps["combi"], expected.maps["combi"])
    for images, message in [
        (dataset.images[:, :8], r"images\[0\]: the images are 8x16 with 2 channels once prepared"),
        (dataset.images[0, 0], r"images\[0\]: has shape \(2,\)"),
        (dataset.images.astype(np.int32), "has type int32; give uint8"),
        ([], "images: there is none"),
        (np.full_like(dataset.images, np.nan), r"images\[0\]: elbo is NaN or infinite"),
    ]:
        with pytest.raises(InputError, match=message):
            run.score(images)
