"""The scores of a data set survive their files; damaged files and those of other images are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jaxvae import InputError
from jaxvae.data.dataset import Dataset, take
from jaxvae.runs.run import Run
from jaxvae.runs.run_scores import score_dataset
from jaxvae.scoring import score_files
from jaxvae.types import SampleScores
from states import labelled_images, untrained_run

AGAIN = "`jaxvae evaluate RUN`"
CONFIG = {"hparams": {"log_scale": -0.5}, "arithmetic": "corrected"}


@pytest.fixture(scope="module")
def run() -> Run:
    return untrained_run(CONFIG)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return labelled_images()


def test_written_scores_are_read_again(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    scores = score_dataset(run, dataset, maps=("combi", "kl_grad"))
    score_files.write(tmp_path, dataset, scores)
    read = score_files.read(tmp_path, dataset, ["combi", "kl_grad"], again=AGAIN)
    for name in SampleScores._fields:
        np.testing.assert_allclose(read.image_scores[name], scores.image_scores[name], rtol=1e-6)
    for name in ("combi", "kl_grad"):
        np.testing.assert_array_equal(read.maps[name], scores.maps[name])
    np.testing.assert_array_equal(read.reconstructions, scores.reconstructions)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["combi.npy", "kl_grad.npy", "reconstructions.npy", "samples.jsonl"]


def test_each_line_has_the_facts_and_scores_of_an_image(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    score_files.write(tmp_path, dataset, score_dataset(run, dataset, maps=()))
    records = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [list(record) for record in records] == [["name", "group", "kind", "anomalous", "elbo", "kl", "nll"]] * 7
    assert [record["anomalous"] for record in records] == dataset.labels.tolist()
    assert [record["kind"] for record in records] == list(dataset.kinds)
    for record in records:
        assert record["elbo"] == pytest.approx(record["kl"] + record["nll"], rel=1e-5)


def test_scores_of_other_images_are_not_read(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    score_files.write(tmp_path, dataset, score_dataset(run, dataset, maps=("combi",)))
    with pytest.raises(InputError, match=r"not the scores of the 6 test images.*jaxvae evaluate"):
        score_files.read(tmp_path, take(dataset, np.arange(6)), ["combi"], again=AGAIN)
    with pytest.raises(InputError, match=r"kl_grad.npy: cannot be read.*jaxvae evaluate"):
        score_files.read(tmp_path, dataset, ["kl_grad"], again=AGAIN)
    path = tmp_path / "combi.npy"
    maps = np.load(path)
    for damaged in (maps[:-1], maps[..., 0], maps.astype(np.float64)):
        np.save(path, damaged)
        with pytest.raises(InputError, match=r"combi.npy: damaged, its shape or type.*jaxvae evaluate"):
            score_files.read(tmp_path, dataset, ["combi"], again=AGAIN)
    np.save(path, maps)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"combi.npy: cannot be read.*jaxvae evaluate"):
        score_files.read(tmp_path, dataset, ["combi"], again=AGAIN)
    (tmp_path / "samples.jsonl").unlink()
    with pytest.raises(InputError, match="not the scores of the 7 test images"):
        score_files.read(tmp_path, dataset, ["combi"], again=AGAIN)
