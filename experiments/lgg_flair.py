"""Tumours in FLAIR slices: trained on tumour-free slices of other patients (TCGA-LGG, the `kaggle_3m` layout).

    python -m experiments.lgg_flair --data DIR          # the folder of patients; 6 minutes of training on two cores

The paper's brain network with z 256 on 64x64 pixels, z-scored per image, with Adam 3e-4 and batch 32, at two decoder
scales. Training stops early on the ELBO of tumour-free slices of validation patients. Patients are split once; seeds
differ in weights and noise. Each run has a folder below `--runs`, and the same command continues. Writes
results/lgg_flair.json (mean and standard deviation over seeds) and results/lgg_flair.md, with baselines that need no
model.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import jaxvae
from experiments import record
from jaxvae import files
from jaxvae.report import style, tables
from jaxvae.scores import BASELINES

METRICS = {"auroc": "AUROC", "average_precision": "AP", "best_dice": "best Dice", "aupro": "AUPRO"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Train, evaluate, tabulate."""

    data: Path = Path(os.environ.get("JAXVAE_DATA", "")) / "data" / "lgg-mri-segmentation" / "kaggle_3m"
    """the folder of patients"""
    runs: Path = Path("runs/lgg_flair")
    """one folder per run"""
    log_scales: tuple[float, ...] = (0.0, -1.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    size: int = 64
    epochs: int = 200
    patience: int = 15


def folder(config: Config, log_scale: float, seed: int) -> Path:
    return config.runs / f"log_scale{log_scale:g}_seed{seed}"


def evaluation(config: Config, log_scale: float, seed: int) -> dict[str, Any]:
    """Train one run, or continue it, and evaluate it on its test images."""
    run_dir = folder(config, log_scale, seed)
    source = jaxvae.Source(str(config.data), size=(config.size,), channels=(1,), normalise="zscore")
    settings = jaxvae.Settings(
        learning_rate=3e-4,
        batch_size=32,
        log_scale=log_scale,
        epochs=config.epochs,
        patience=config.patience,
        seed=seed,
    )
    jaxvae.train_run(run_dir, source, settings, say=print)
    return jaxvae.evaluate(jaxvae.load(run_dir), resamples=0)


def summary(level: str, log_scale: float, evaluations: list[dict]) -> list[dict]:
    """Rows of one table (pixels or samples): mean and standard deviation over the seeds."""
    rows = []
    for number, first in enumerate(evaluations[0][level]):
        row = {"level": level, "log_scale": log_scale, "score": first["score"], "seeds": len(evaluations)}
        for metric in (metric for metric in METRICS if metric in first):
            values = np.array([evaluation[level][number][metric] for evaluation in evaluations])
            row[f"{metric}_mean"] = float(values.mean())
            row[f"{metric}_std"] = float(values.std(ddof=1)) if len(values) > 1 else None
        rows.append(row)
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table of pixels and a table of samples: mean ± standard deviation over the seeds."""
    parts = []
    for level in ("pixels", "samples"):
        metrics = METRICS if level == "pixels" else {key: METRICS[key] for key in ("auroc", "average_precision")}
        shown = []
        for row in (row for row in rows if row["level"] == level):
            of_model = row["score"] not in BASELINES
            line = {"score": style.display(row["score"]), "log_scale": f"{row['log_scale']:g}" if of_model else "–"}
            for key in metrics:
                spread = f" ± {row[f'{key}_std']:.3f}" if of_model and row[f"{key}_std"] is not None else ""
                line[key] = f"{row[f'{key}_mean']:.3f}{spread}"
            shown.append(line)
        parts.append(tables.markdown(shown, {"score": f"{level} score", "log_scale": "log_scale", **metrics}))
    return "\n\n".join(parts)


def main(config: Config) -> None:
    rows = []
    for log_scale in config.log_scales:
        evaluations = [evaluation(config, log_scale, seed) for seed in config.seeds]
        for level in ("pixels", "samples"):
            # Baselines do not depend on the model, so they are listed once.
            found = summary(level, log_scale, evaluations)
            rows += [row for row in found if log_scale == config.log_scales[0] or row["score"] not in BASELINES]
    trained = (folder(config, log_scale, seed) for log_scale in config.log_scales for seed in config.seeds)
    seconds = [files.read_lines(run / "metrics.jsonl")[-1]["seconds"] for run in trained]
    record.write("lgg_flair.json", rows, seconds=seconds)
    files.write(record.RESULTS / "lgg_flair.md", (markdown(rows) + "\n").encode())
    print(markdown(rows))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
