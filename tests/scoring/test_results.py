"""What a run says about images: equal to the scores themselves, whole on the disk, and never NaN."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvae import ConvVAE, DenseVAE, Hyperparams, InputError, TrainConfig, init, parity
from jaxvae.data.dataset import Dataset, take
from jaxvae.runs import checkpoint
from jaxvae.runs.checkpoint import Run
from jaxvae.scores import MAPS
from jaxvae.scores.combine import combine
from jaxvae.scores.gradients import pixel_scores, sample_scores
from jaxvae.scoring import results

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
    model = ConvVAE((16, 16, 2), 3, (4, 8))
    state = init(model, TrainConfig(), Hyperparams(), jax.random.key(0))
    return Run(model, jax.tree.map(lambda leaf: 3 * leaf, state.params), CONFIG, 1)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    images = np.random.default_rng(0).random((7, 16, 16, 2)).astype(np.float32)
    names = tuple(f"test/{i}.png" for i in range(7))
    labels = np.arange(7) % 2 == 0
    return Dataset(images, labels, None, names, names, tuple("bad" if label else "good" for label in labels))


def test_scores_are_those_of_the_library(run: Run, dataset: Dataset) -> None:
    scored = results.score_dataset(run, dataset, batch_size=3)
    samples = sample_scores(run.model, run.params, dataset.images, log_scale=-0.5)
    for name in results.SAMPLES:
        np.testing.assert_allclose(scored.samples[name], getattr(samples, name), rtol=1e-5)
    raw = pixel_scores(run.model, run.params, dataset.images, log_scale=-0.5)
    for name, expected in (("rec_error", raw.rec_error), ("combi", combine(raw))):
        mean = np.mean(expected, axis=-1, keepdims=True)
        np.testing.assert_allclose(scored.maps[name], mean, rtol=1e-4, atol=1e-6 * mean.max())
    assert set(scored.maps) == set(MAPS)
    assert all(values.shape == (7, 16, 16, 1) and values.dtype == np.float32 for values in scored.maps.values())
    assert scored.reconstructions.shape == (7, 16, 16, 2)


def test_an_image_has_its_score_whatever_stands_beside_it(run: Run, dataset: Dataset) -> None:
    everything = results.score_dataset(run, dataset, maps=("combi",), batch_size=64)
    for batch_size, index in ((1, [2]), (2, [6, 2, 0]), (5, [2, 1, 3, 4, 5, 6])):
        scored = results.score_dataset(run, take(dataset, np.array(index)), maps=("combi",), batch_size=batch_size)
        for name in results.SAMPLES:
            np.testing.assert_allclose(scored.samples[name], everything.samples[name][index], rtol=1e-5)
        peak = everything.maps["combi"].max()
        np.testing.assert_allclose(scored.maps["combi"], everything.maps["combi"][index], rtol=1e-5, atol=1e-6 * peak)


def test_without_maps_there_are_samples_only(run: Run, dataset: Dataset) -> None:
    scored = results.score_dataset(run, dataset, maps=())
    assert scored.maps == {}
    assert len(scored.reconstructions) == 0
    assert all(np.isfinite(values).all() and values.shape == (7,) for values in scored.samples.values())


def test_a_run_of_the_released_arithmetic_is_scored_by_it(dataset: Dataset) -> None:
    model = DenseVAE((16, 16, 2), 3, 8)
    params = init(model, TrainConfig(), Hyperparams(), jax.random.key(0)).params
    run = Run(model, params, {**CONFIG, "arithmetic": "released"}, 1)
    scored = results.score_dataset(run, dataset, maps=())
    key = jax.random.fold_in(jax.random.key(CONFIG["seed"]), 0)
    expected = parity.sample_scores(model, params, dataset.images, key, log_scale=-0.5)
    for values, name in zip(expected, results.SAMPLES, strict=True):
        np.testing.assert_allclose(scored.samples[name], values, rtol=1e-5)


@pytest.mark.parametrize("value", [1e25, np.nan, np.inf])
def test_a_score_that_is_no_number_is_refused_and_its_image_named(run: Run, dataset: Dataset, value: float) -> None:
    images = dataset.images.copy()
    images[4, 3, 3] = value
    with pytest.raises(InputError, match=r"test/4.png: its \w+ is NaN or infinite"):
        results.score_dataset(run, replace(dataset, images=images))


def test_images_of_another_shape_are_refused(run: Run) -> None:
    results.check_shape(run, np.zeros((3, 16, 16, 2)), "FOLDER")
    with pytest.raises(
        InputError, match=r"FOLDER: the images are 16x24 with 1 channel .* trained on 16x16 with 2 chan"
    ):
        results.check_shape(run, np.zeros((3, 16, 24, 1)), "FOLDER")


def test_what_is_written_is_read(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    scored = results.score_dataset(run, dataset, maps=("combi", "kl_grad"))
    results.write_scores(tmp_path / "scores", dataset, scored)
    read = results.read_scores(tmp_path, dataset, ["combi", "kl_grad"])
    for name in results.SAMPLES:
        np.testing.assert_allclose(read.samples[name], scored.samples[name], rtol=1e-6)
    for name in ("combi", "kl_grad"):
        np.testing.assert_array_equal(read.maps[name], scored.maps[name])
    np.testing.assert_array_equal(read.reconstructions, scored.reconstructions)
    written = sorted(path.name for path in (tmp_path / "scores").iterdir())
    assert written == ["combi.npy", "kl_grad.npy", "reconstructions.npy", "samples.jsonl"]


def test_samples_hold_what_is_known_and_nothing_else(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    scored = results.score_dataset(run, dataset, maps=())
    results.write_samples(tmp_path / "labelled.jsonl", dataset, scored)
    results.write_samples(tmp_path / "unlabelled.jsonl", dataset, scored, labelled=False)
    labelled, unlabelled = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("labelled", "unlabelled")
    )
    assert [record["anomalous"] for record in labelled] == dataset.labels.tolist()
    assert [record["kind"] for record in labelled] == list(dataset.kinds)
    assert [list(record) for record in unlabelled] == [["name", "elbo", "kl", "nll"]] * 7
    for record in labelled:
        assert record["elbo"] == pytest.approx(record["kl"] + record["nll"], rel=1e-5)


def test_scores_of_other_images_are_not_read(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    results.write_scores(tmp_path / "scores", dataset, results.score_dataset(run, dataset, maps=("combi",)))
    with pytest.raises(InputError, match=r"not the scores of the 6 test images.*jaxvae evaluate"):
        results.read_scores(tmp_path, take(dataset, np.arange(6)), ["combi"])
    with pytest.raises(InputError, match=r"kl_grad.npy: cannot be read.*jaxvae evaluate"):
        results.read_scores(tmp_path, dataset, ["kl_grad"])
    path = tmp_path / "scores" / "combi.npy"
    maps = np.load(path)
    for damaged in (maps[:-1], maps[..., 0], maps.astype(np.float64)):
        np.save(path, damaged)
        with pytest.raises(InputError, match=r"combi.npy: damaged, its shape or type.*jaxvae evaluate"):
            results.read_scores(tmp_path, dataset, ["combi"])
    np.save(path, maps)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"combi.npy: cannot be read.*jaxvae evaluate"):
        results.read_scores(tmp_path, dataset, ["combi"])
    (tmp_path / "scores" / "samples.jsonl").unlink()
    with pytest.raises(InputError, match="not the scores of the 7 test images"):
        results.read_scores(tmp_path, dataset, ["combi"])


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    """A run at step 5, not evaluated."""
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "model": checkpoint.model_to_config(run.model)}))
    (tmp_path / "checkpoints" / "last" / "5").mkdir(parents=True)
    return tmp_path


def test_an_evaluation_is_read_while_it_is_of_the_same_step(folder: Path) -> None:
    path = folder / "evaluation.json"
    with pytest.raises(InputError, match=r"not evaluated yet; run `jaxvae evaluate .*` first"):
        results.read_evaluation(folder)
    evaluation = {**dict.fromkeys(results.EVALUATION), "step": 5}
    path.write_text(json.dumps(evaluation))
    assert results.read_evaluation(folder) == evaluation
    path.write_text(json.dumps({**evaluation, "step": 4}))
    with pytest.raises(InputError, match="evaluated at step 4 and is at step 5 now"):
        results.read_evaluation(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_a_damaged_evaluation_is_refused_in_one_line(folder: Path, content: str) -> None:
    (folder / "evaluation.json").write_text(content)
    with pytest.raises(InputError, match=r"evaluation.json: (not JSON|lacks step).*jaxvae evaluate") as caught:
        results.read_evaluation(folder)
    assert "\n" not in str(caught.value)
