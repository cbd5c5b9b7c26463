"""Tumours in FLAIR slices, learnt from tumour-free slices of other patients (TCGA-LGG, the `kaggle_3m` layout).

    python -m experiments.lgg_flair --data DIR          # the folder of patients; 8 minutes on two cores

64x64 pixels, z-score per image, the paper's brain network with z 256, Adam 3e-4, batch 32, stopped on the ELBO of
tumour-free slices of validation patients, at two decoder scales. The patients are split once; the seeds differ in
weights and noise. Every run is a folder under `--runs`; started again, only what is missing is trained. Writes
results/lgg_flair.json (mean and standard deviation over seeds) and results/lgg_flair.md, with the no-model baselines in
the same table.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
import tyro

from experiments import record
from jaxvae import files
from jaxvae.cli import main as jaxvae
from jaxvae.report import style, tables

METRICS = {"auroc": "AUROC", "average_precision": "AP", "best_dice": "best Dice", "aupro": "AUPRO"}
BASELINES = ("brightness", "equalised_brightness")


@dataclasses.dataclass(frozen=True)
class Config:
    """Train, evaluate, tabulate."""

    data: Path = Path(os.environ.get("JAXVAE_DATA", "")) / "data" / "lgg-mri-segmentation" / "kaggle_3m"
    """the folder of patients"""
    runs: Path = Path("runs/lgg_flair")
    """one folder a run"""
    log_scales: tuple[float, ...] = (0.0, -1.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    size: int = 64
    epochs: int = 200
    patience: int = 15


def evaluation(config: Config, log_scale: float, seed: int) -> dict:
    """Trains and evaluates one run where that is not done yet; its evaluation.json."""
    run = str(config.runs / f"log_scale{log_scale:g}_seed{seed}")
    train = ["train", run, "--data", str(config.data), "--size", str(config.size), "--channels", "1"]
    train += ["--normalise", "zscore", "--learning-rate", "3e-4", "--batch-size", "32", "--log-scale", str(log_scale)]
    train += ["--epochs", str(config.epochs), "--patience", str(config.patience), "--seed", str(seed)]
    for command in (train, ["evaluate", run, "--resamples", "0"]):
        if (code := jaxvae(command)) != 0:
            raise SystemExit(code)
    return json.loads((Path(run) / "evaluation.json").read_text())


def summary(level: str, log_scale: float, evaluations: list[dict]) -> list[dict]:
    """Rows of one table (pixels or samples) with mean and standard deviation over the seeds."""
    rows = []
    for number, first in enumerate(evaluations[0][level]):
        row = {"level": level, "log_scale": log_scale, "score": first["score"], "seeds": len(evaluations)}
        for metric in (metric for metric in METRICS if metric in first):
            values = np.array([evaluation[level][number][metric] for evaluation in evaluations])
            row[f"{metric}_mean"] = float(values.mean())
            row[f"{metric}_std"] = float(values.std(ddof=1)) if len(values) > 1 else None
        rows.append(row)
    return rows


def main(config: Config) -> None:
    started = time.time()
    rows = []
    for log_scale in config.log_scales:
        evaluations = [evaluation(config, log_scale, seed) for seed in config.seeds]
        for level in ("pixels", "samples"):
            # A baseline needs no model, so it stands there once.
            found = summary(level, log_scale, evaluations)
            rows += [row for row in found if log_scale == config.log_scales[0] or row["score"] not in BASELINES]
    parts = []
    for level in ("pixels", "samples"):
        metrics = METRICS if level == "pixels" else {key: METRICS[key] for key in ("auroc", "average_precision")}
        shown = [
            {
                "score": style.display(row["score"]),
                "log_scale": "–" if row["score"] in BASELINES else f"{row['log_scale']:g}",
            }
            | {key: row[f"{key}_mean"] for key in metrics}
            for row in rows
            if row["level"] == level
        ]
        parts.append(tables.markdown(shown, {"score": f"{level} score", "log_scale": "log_scale", **metrics}))
    record.write("lgg_flair.json", rows, command="python -m experiments.lgg_flair", seconds=time.time() - started)
    files.write(record.RESULTS / "lgg_flair.md", ("\n\n".join(parts) + "\n").encode())
    print("\n\n".join(parts))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
