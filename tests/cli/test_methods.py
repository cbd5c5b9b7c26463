"""Objectives and scores by their names, in all commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxvae.cli import main
from small_runs import SMALL, read_lines

SHORT = ["--steps", "2", *SMALL[:-2]]


def test_a_run_without_a_kl_has_the_scores_of_its_reconstruction(
    tmp_path: Path, folder: Path, refused: Callable[..., str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", str(run), "--data", str(folder), "--objective", "denoising", *SHORT]) == 0
    assert main(["evaluate", str(run), "--resamples", "0"]) == 0
    assert main(["report", str(run)]) == 0
    assert main(["score", str(run), str(folder / "test"), "--out", str(tmp_path / "maps")]) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert [row["score"] for row in evaluation["pixels"]][2:] == ["rec_error", "rec_grad"]
    assert [row["score"] for row in evaluation["samples"]] == ["brightness", "nll"]
    assert all(
        record["kl"] == 0 and record["elbo"] == record["nll"] for record in read_lines(run / "scores/samples.jsonl")
    )
    assert len(list((tmp_path / "maps").rglob("*_rec_grad.npy"))) == 8
    assert "needs a KL, and --objective denoising has none" in refused("score", run, "--maps", "kl_grad")
    assert "objective denoising" in (run / "report" / "index.html").read_text()


def test_scores_of_methods_are_evaluated_reported_and_written(run: Path, folder: Path, tmp_path: Path) -> None:
    names = ["rec_probability", "knn_latent", "atlas", "elbo_grad"]
    assert main(["evaluate", str(run), "--maps", *names, "--resamples", "0"]) == 0
    assert main(["report", str(run)]) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert [row["score"] for row in evaluation["pixels"]][2:] == ["rec_probability", "atlas", "elbo_grad"]
    assert "knn_latent" in [row["score"] for row in evaluation["samples"]]
    assert {"rec_probability", "atlas"} <= evaluation["thresholds"].keys()
    assert main(["score", str(run), str(folder / "test"), "--out", str(tmp_path / "maps"), "--maps", *names]) == 0
    by_name = {record["name"].removeprefix("test/"): record for record in read_lines(run / "scores" / "samples.jsonl")}
    records = read_lines(tmp_path / "maps" / "samples.jsonl")
    assert len(records) == 8
    for record in records:
        assert record["knn_latent"] == pytest.approx(by_name[record["name"]]["knn_latent"], rel=1e-4)
    assert list((tmp_path / "maps").rglob("*_mask.png"))  # With a threshold of the first map.
    own = np.load(run / "scores" / "atlas.npy")
    assert own.shape == (8, 32, 32, 1)


def test_a_sweep_has_the_scores_of_methods(tmp_path: Path, folder: Path) -> None:
    sweep = tmp_path / "sweep"
    arguments = ["--steps", "2", "--features", "4", "8", "--latent-size", "4", "--batch-size", "4", "--seed", "0", "1"]
    command = ["sweep", str(sweep), "--data", str(folder), *arguments, "--maps", "atlas", "knn_latent"]
    assert main([*command, "--objective", "autoencoder"]) == 0
    rows = read_lines(sweep / "table.jsonl")
    columns = {"pixel_average_precision/atlas", "image_auroc/knn_latent", "image_auroc/nll", "pixel_auroc/rec_error"}
    assert len(rows) == 2
    assert all(columns <= row.keys() and "pixel_auroc/kl_grad" not in row for row in rows)
    atlas = {row["pixel_average_precision/atlas"] for row in rows}
    assert len(atlas) == 1  # It needs no model.


RELEASED = ["--model", "dense", "--arithmetic", "released"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--objective", "denoising", "--beta", "2"], "--beta 2.0: only goes with an --objective with a KL"),
        (["--decoder-scale", "shared", "--log-scale", "1"], "--log-scale 1.0: only goes with --decoder-scale fixed"),
        (["--objective", "two_stage", "--model", "conv"], "--objective two_stage: only goes with --model two_stage"),
        (
            [*RELEASED, "--dropout", "0.1"],
            "--dropout 0.1: only goes with --arithmetic",
        ),
        (
            [*RELEASED, "--objective", "cevae"],
            "--arithmetic released: only goes with",
        ),
        (
            ["--model", "unet", "--objective", "vae"],
            "--objective vae: has a KL, and --model unet has no latent; choose from",
        ),
        (["--dropout", "1"], "--dropout 1.0: must be at least 0 and below 1"),
        (["--objective", "gan"], "--objective gan: choose from auto, vae"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    tmp_path: Path, refused: Callable[..., str], flags: list[str], message: str
) -> None:
    assert message in refused("train", tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


def test_an_unfitted_score_of_lost_images_is_refused(run: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["data"]["data"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(config))
    assert "gone: no such folder" in refused("evaluate", run, "--maps", "atlas")
