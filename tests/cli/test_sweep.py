"""`jaxvae sweep`: plan, table, figures and the best setting; sweeps that are continued, and sweeps it rejects."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxvae
from folders import write_png
from jaxvae.cli import main
from jaxvae.runs import capacity
from jaxvae.runs.run_images import open_own
from jaxvae.sweeps import program
from small_runs import SIDE, SMALL, read_lines


def test_a_run_with_infinite_scores_has_diverged(monkeypatch, tmp_path: Path, folder: Path) -> None:
    score_many = program.score_many

    def with_infinity(*arguments: Any, **knobs: Any) -> Any:
        return jax.tree.map(lambda values: values.at[1].set(np.inf), score_many(*arguments, **knobs))

    monkeypatch.setattr(program, "score_many", with_infinity)
    small = ["--features", "4", "8", "--latent-size", "4", "--batch-size", "4", "--epochs", "1"]
    assert main(["sweep", str(tmp_path / "sweep"), "--data", str(folder), *small]) == 0
    rows = read_lines(tmp_path / "sweep" / "table.jsonl")
    assert [row["diverged"] for row in rows] == [False, True, False]
    assert ["image_auroc/elbo" in row for row in rows] == [True, False, True]


def test_a_sweep_is_not_continued_with_other_images(refused, tmp_path: Path, folder: Path) -> None:
    data = shutil.copytree(folder, tmp_path / "data")
    command = ["sweep", tmp_path / "sweep", "--data", data, "--seed", "0", *SMALL[:3], *SMALL[5:]]
    assert main(list(map(str, command))) == 0
    (data / "train" / "good" / "000.png").unlink()
    assert "sweep: was made from other images; bring those back, or name a new folder" in refused(*command)


def test_sweep_ranks_settings_and_restores_lost_results(tmp_path: Path, folder: Path, capsys) -> None:
    sweep = tmp_path / "sweep"
    axes = ["--seed", "0", "1", "--beta", "0.5", "2", "--latent-size", "2", "4", "--runs-per-program", "4"]
    shape = ["--data", str(folder), "--features", "4", "8", "--batch-size", "4", "--epochs", "1"]
    command = ["sweep", str(sweep), *shape, "--log-scale", "-0.7"]
    assert main([*command, *axes]) == 0
    out = capsys.readouterr().out
    assert f"{sweep}: 8 runs in 2 programs; 1 MB at once\n" in out
    assert "pixel_average_precision/elbo_grad over the seeds, best first" in out
    (best,) = re.findall(r"train the best setting with: jaxvae train RUN (.*)", out)
    tables = {name: (sweep / name).read_bytes() for name in ("table.jsonl", "table.csv")}
    rows = [json.loads(line) for line in tables["table.jsonl"].splitlines()]
    assert [(row["seed"], row["beta"], row["latent_size"]) for row in rows] == [
        (seed, beta, size) for seed in (0, 1) for beta in (0.5, 2.0) for size in (2, 4)
    ]
    assert not any(row["diverged"] for row in rows)
    means = {
        (row["beta"], row["latent_size"]): row["pixel_average_precision/elbo_grad"] / 2
        + rows[i + 4]["pixel_average_precision/elbo_grad"] / 2
        for i, row in enumerate(rows[:4])
    }
    beta, size = max(means, key=means.__getitem__)
    for flag in (f"--data {folder}", f"--latent-size {size}", f"--beta {beta}"):
        assert flag in best
    assert {path.name for path in sweep.glob("*.png")} == {
        "bars_beta.png",
        "bars_latent_size.png",
        "heat_beta_latent_size.png",
    }
    # `train` and `evaluate` give the numbers of a row.
    run = tmp_path / "run"
    settings = ["--seed", "1", "--beta", "2", "--latent-size", "4", *command[2:]]
    assert main(["train", str(run), *settings]) == 0
    assert main(["evaluate", str(run), "--resamples", "0"]) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    for row in evaluation["samples"]:
        if row["score"] in ("elbo", "kl", "nll"):
            assert rows[-1][f"image_auroc/{row['score']}"] == pytest.approx(row["auroc"], abs=1e-3)
    for row in evaluation["pixels"]:
        if row["score"] in ("elbo_grad", "combi_nll"):  # These two depend on log_scale.
            got = rows[-1][f"pixel_average_precision/{row['score']}"]
            assert got == pytest.approx(row["average_precision"], rel=1e-3)
    # A killed sweep lacks parts. Only these are trained again.
    (sweep / "parts" / "0001.jsonl").unlink()
    (sweep / "table.jsonl").unlink()
    kept = (sweep / "parts" / "0000.jsonl").stat().st_mtime_ns
    assert main([*command, *axes]) == 0
    assert re.search(r"8 runs in 2 programs, 4 of them done; 1 MB at once, about \d\.\d min", capsys.readouterr().out)
    assert (sweep / "parts" / "0000.jsonl").stat().st_mtime_ns == kept
    assert {name: (sweep / name).read_bytes() for name in tables} == tables


@pytest.mark.slow
def test_each_size_and_width_is_a_program(tmp_path: Path, folder: Path) -> None:
    sweep, run = tmp_path / "sweep", tmp_path / "run"
    common = ["--data", str(folder), "--batch-size", "4", "--epochs", "2", "--latent-size", "2", "--augment", "paper"]
    common += ["--schedule", "cosine", "--warmup-epochs", "0.5", "--clip-norm", "50", "--learning-rate", "1e-2"]
    axes = ["--size", "8", "16", "--width", "1", "0.5", "--features", "4", "8", "--seed", "0"]
    assert main(["sweep", str(sweep), *common, *axes]) == 0
    rows = read_lines(sweep / "table.jsonl")
    assert [(row["size"], row["width"]) for row in rows] == [(8, 1), (8, 0.5), (16, 1), (16, 0.5)]
    assert (sweep / "heat_size_width.png").exists()
    # `train` and `evaluate` give the numbers of the last row for its size and width.
    assert main(["train", str(run), *common, "--size", "16", "--features", "2", "4"]) == 0
    assert main(["evaluate", str(run), "--resamples", "0"]) == 0
    for row in json.loads((run / "evaluation.json").read_text())["samples"]:
        if row["score"] in ("elbo", "kl", "nll"):
            assert rows[-1][f"image_auroc/{row['score']}"] == pytest.approx(row["auroc"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("runs_per_program", ["1", "2", "3"])
def test_runs_of_one_program_have_different_latent_sizes(tmp_path: Path, folder: Path, runs_per_program: str) -> None:
    sweep = tmp_path / "sweep"
    axes = ["--latent-size", "4", "2", "--seed", "0", "1", "--runs-per-program", runs_per_program]
    shape = ["--features", "4", "8", "--batch-size", "4", "--epochs", "1"]
    assert main(["sweep", str(sweep), "--data", str(folder), *axes, *shape]) == 0
    rows = read_lines(sweep / "table.jsonl")
    assert [(row["seed"], row["latent_size"]) for row in rows] == [(0, 4), (0, 2), (1, 4), (1, 2)]
    assert not any(row["diverged"] for row in rows)


def test_without_test_images_the_validation_elbo_ranks(tmp_path: Path, capsys) -> None:
    plain, sweep = tmp_path / "plain", tmp_path / "sweep"
    for i in range(12):
        write_png(plain / f"{i}.png", np.full((SIDE, SIDE), 20 * i, np.uint8))
    axes = ["--learning-rate", "1e-5", "1e-2", "--seed", "0", "1", "--beta", "3"]
    shape = ["--features", "4", "8", "--batch-size", "4", "--epochs", "2", "--latent-size", "2"]
    assert main(["sweep", str(sweep), "--data", str(plain), "--validation", "0.3", *axes, *shape]) == 0
    printed = capsys.readouterr().out
    assert "validation_elbo over the seeds, best first" in printed
    rows = read_lines(sweep / "table.jsonl")
    means = {
        rate: np.mean([row["validation_elbo"] for row in rows if row["learning_rate"] == rate]) for rate in (1e-5, 1e-2)
    }
    best = max(means, key=means.__getitem__)
    assert float(printed.partition("best first")[2].splitlines()[3].split()[0].strip("*")) == best
    assert not any(name.startswith(("image_", "pixel_")) for row in rows for name in row)
    # The validation ELBO has beta 1, whatever beta a run was trained with.
    run, single = tmp_path / "run", ["--learning-rate", "1e-2", "--seed", "1", "--beta", "3"]
    assert main(["train", str(run), "--data", str(plain), "--validation", "0.3", *single, *shape]) == 0
    opened = jaxvae.load(run)
    samples = jaxvae.sample_scores(opened.model, opened.params, open_own(opened).validation.images)
    assert rows[-1]["validation_elbo"] == pytest.approx(-float(samples.elbo.mean()), rel=1e-4)


def test_colour_images_have_pixel_metrics(tmp_path: Path) -> None:
    folder, sweep = tmp_path / "colour", tmp_path / "sweep"
    rng = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE, 1), np.uint8)
    mask[4:8, 4:8] = 255
    for i in range(8):
        image = rng.integers(0, 200, (SIDE, SIDE, 3), np.uint8)
        write_png(folder / "train" / "good" / f"{i}.png", image)
        write_png(folder / "test" / ("bad" if i % 2 else "good") / f"{i}.png", np.maximum(image, mask))
        if i % 2:
            write_png(folder / "ground_truth" / "bad" / f"{i}_mask.png", mask[..., 0])
    shape = ["--features", "4", "8", "--batch-size", "4", "--epochs", "1", "--latent-size", "2", "--seed", "0"]
    assert main(["sweep", str(sweep), "--data", str(folder), *shape]) == 0
    [row] = read_lines(sweep / "table.jsonl")
    assert 0 <= row["pixel_auroc/combi"] <= 1


@pytest.mark.parametrize(
    ("share", "way_out"), [(0.5, r"give --runs-per-program [23]$"), (0.01, "make the model smaller$")]
)
def test_a_sweep_too_large_for_memory_says_what_fits(share, way_out, folder, tmp_path, refused, monkeypatch) -> None:
    model = jaxvae.ConvVAE((SIDE, SIDE, 1), 64, (4, 8))
    images = 12 * SIDE * SIDE * 4
    needed = capacity.population_bytes(model, 6, side_by_side=1, batch_size=12, scored=8, image_bytes=images)
    monkeypatch.setattr(capacity, "free_bytes", lambda: int(share * needed))
    command = ["sweep", str(tmp_path / "sweep"), "--data", str(folder), "--features", "4", "8", "--latent-size", "64"]
    assert re.search(way_out, refused(*command, "--seed", *range(6)))
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--seed"], "--seed without a number: give at least one"),
        (["--beta", "-1"], "--beta -1.0: must be at least 0"),
        (["--seed", "4294967296"], "--seed 4294967296: give a whole number below 2^32"),
        (["--latent-size", "0"], "--latent-size 0: must be above 0"),
        (["--learnig-rate", "1"], "--learnig-rate: no such flag; did you mean --learning-rate?"),
        (["--hold-out", "3"], "--hold-out 3: only goes with --data fashion_mnist:DIR"),
        (["--epochs", "0"], "--epochs 0: must be above 0"),
        (["--beta", "1", "1"], "--beta 1.0 1.0: a value is there twice; give each once"),
        (["--hold-out", "11", "--data", "fashion_mnist:x"], "--hold-out 11: must be a class of FashionMNIST, 0..9"),
        (["--scaling", "1", "2"], "--scaling 2: only goes with --data fashion_mnist:DIR"),
        (
            ["--size", "32", "--data", "fashion_mnist:x", "--model", "conv"],
            "--size 32: FashionMNIST is 28x28; leave it out, or use --scaling",
        ),
        (["--size", "0"], "--size 0: must be above 0"),
        (["--runs-per-program", "0"], "--runs-per-program 0: must be above 0"),
        (["--size", "8", "6"], "--features 4 8: 2 halvings need sides that 4 divides"),
        (["--width", "0"], "--width 0.0: must be above 0"),
        (["--width", "1", "1"], "--width 1.0 1.0: a value is there twice; give each once"),
    ],
)
def test_wrong_axes_are_refused_and_nothing_is_written(flags, complaint, folder, tmp_path, refused):
    command = ["sweep", str(tmp_path / "sweep"), "--data", str(folder), "--features", "4", "8"]
    assert complaint in refused(*command, *flags)
    assert not (tmp_path / "sweep").exists()
