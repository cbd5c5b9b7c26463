"""`jaxvae evaluate`: how well a run finds what is known to be wrong in its test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxvae.cli.source import from_config, open_splits
from jaxvae.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from jaxvae.checkpoint import Run
    from jaxvae.data.dataset import Dataset

HEALTHY_RATES = (0.01, 0.05)


@dataclass(frozen=True)
class Evaluate:
    """Score a run's test images, hold the scores against the labels and masks, and print the tables."""

    run: Annotated[Path, tyro.conf.Positional]
    """the run folder"""
    resamples: int = 1000
    """bootstrap resamples for the 95 % intervals; 0 leaves them out"""

    def execute(self) -> None:
        if self.resamples < 0:
            raise InputError(f"--resamples {self.resamples}: must not be negative")
        from jaxvae import checkpoint, files, results

        run = checkpoint.load(self.run)
        splits = open_splits(from_config(run.config["data"]))
        test = splits.test
        results.check_shape(run, test.images, run.config["data"]["data"])
        if not test.labels.any() or test.labels.all():
            only = "anomalous" if len(test) and test.labels.all() else "healthy"
            raise InputError(f"{self.run}: all {len(test)} test images are {only}, so there is nothing to tell apart")
        maps = results.MAPS if test.masks is not None else ()
        scored = results.score_dataset(run, test.images, maps=maps)
        results.write_scores(self.run / "scores", test, scored)
        evaluation = _evaluation(run, test, scored, self.resamples)
        evaluation["thresholds"] = _healthy_thresholds(run, splits.validation) if maps else {}
        files.write_json(self.run / "evaluation.json", evaluation)
        print(evaluation_text(evaluation))


def _evaluation(run: Run, test: Dataset, scored: Any, resamples: int) -> dict[str, Any]:
    from jaxvae import __version__, evaluation

    samples = {**evaluation.baseline_samples(test.images), **scored.samples}
    pixels = []
    if test.masks is not None:
        maps = {**evaluation.baseline_maps(test.images), **scored.maps}
        pixels = evaluation.pixel_rows(maps, test.masks, test.groups, resamples=resamples)
    return {
        "jaxvae": __version__,
        "data": run.config["data"],
        "step": run.step,
        "images": {"test": len(test), "anomalous": int(test.labels.sum()), "groups": len(set(test.groups))},
        "anomalous_pixels": None if test.masks is None else float(test.masks.mean()),
        "pixels": pixels,
        "samples": evaluation.sample_rows(samples, test.labels, test.groups, resamples=resamples),
    }


def _healthy_thresholds(run: Run, validation: Dataset) -> dict[str, dict[str, float]]:
    """By map and by the share of healthy validation pixels above it: thresholds that no label was needed for."""
    import numpy as np

    from jaxvae import results

    if len(validation) == 0:
        return {}
    maps: dict[str, np.ndarray] = results.score_dataset(run, validation.images, name="validation").maps
    return {
        name: {f"{rate:g}": float(np.quantile(values, 1 - rate)) for rate in HEALTHY_RATES}
        for name, values in maps.items()
    }


def evaluation_text(evaluation: dict[str, Any]) -> str:
    """The tables for a terminal."""
    from jaxvae.evaluation import PIXEL_COLUMNS, SAMPLE_COLUMNS
    from jaxvae.report import tables

    images = evaluation["images"]
    parts = []
    if evaluation["pixels"]:
        rows = named(evaluation["pixels"])
        share = 100 * evaluation["anomalous_pixels"]
        parts.append(
            f"Pixels: {share:.2f} % anomalous, all pooled, background included; best Dice is chosen on these labels"
        )
        parts.append(
            tables.text(rows, PIXEL_COLUMNS, best={key: max for key in PIXEL_COLUMNS if key != "fpr_at_tpr"}) + "\n"
        )
    parts.append(f"Images: {images['anomalous']} of {images['test']} anomalous; higher score, more anomalous")
    parts.append(tables.text(named(evaluation["samples"]), SAMPLE_COLUMNS))
    return "\n".join(parts)


def named(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of evaluation.json with scores under their display names and intervals as the tuples tables expect."""
    from jaxvae.report import style

    return [
        {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        | {"score": style.display(row["score"])}
        for row in rows
    ]
