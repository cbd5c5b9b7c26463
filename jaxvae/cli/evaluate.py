"""`jaxvae evaluate`: how well a run finds what is known to be wrong in its test images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxvae.cli import flags
from jaxvae.cli.source import from_config, open_splits
from jaxvae.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from jaxvae.checkpoint import Run
    from jaxvae.data.dataset import Dataset

HEALTHY_RATES = (0.01, 0.05)


@dataclass(frozen=True)
class Evaluate:
    """Hold a run's scores against what is known of its test images.

    Writes the scores of its test images, and evaluation.json; prints the tables.
    """

    run: flags.Run
    """the run folder"""
    resamples: int = 1000
    """bootstrap resamples for the 95 % intervals; 0 leaves them out"""

    def execute(self) -> None:
        if self.resamples < 0:
            raise InputError(f"--resamples {self.resamples}: must not be below 0")
        from jaxvae import checkpoint, files, results

        run = checkpoint.load(self.run)
        splits = open_splits(from_config(run.config["data"]))
        test = splits.test
        if not test.labels.any() or test.labels.all():
            kind = "anomalous" if test.labels.any() else "healthy"
            raise InputError(
                f"{self.run}: its data have {len(test)} test images{f', all {kind}' if len(test) else ''}; healthy and "
                f"anomalous ones are needed (`jaxvae score {self.run} FOLDER` scores images without labels)"
            )
        results.check_shape(run, test.images, run.config["data"]["data"])
        scored = results.score_dataset(run, test, maps=results.MAPS if test.masks is not None else ())
        evaluation = _evaluation(run, test, scored, self.resamples)
        evaluation["thresholds"] = _healthy_thresholds(run, splits.validation)
        results.write_scores(self.run / "scores", test, scored)
        files.write_json(self.run / "evaluation.json", evaluation)
        print(evaluation_text(evaluation))
        print(f"\n{self.run / 'evaluation.json'} holds these numbers; draw them with `jaxvae report {self.run}`")


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
    maps: dict[str, np.ndarray] = results.score_dataset(run, validation, name="validation").maps
    return {
        name: {f"{rate:g}": float(np.quantile(values, 1 - rate)) for rate in HEALTHY_RATES}
        for name, values in maps.items()
    }


def evaluation_text(evaluation: dict[str, Any]) -> str:
    """The tables for a terminal."""
    from jaxvae.evaluation import PIXEL_BEST, PIXEL_COLUMNS, SAMPLE_COLUMNS
    from jaxvae.report import tables

    images = evaluation["images"]
    parts = []
    if evaluation["pixels"]:
        rows = named(evaluation["pixels"])
        share = 100 * evaluation["anomalous_pixels"]
        parts.append(
            f"Pixels: {share:.2f} % anomalous, all pooled, background included; best Dice is chosen on these labels\n"
            "(* wins its column; in brackets the 95 % interval over resampled images or patients)\n"
        )
        parts.append(tables.text(rows, PIXEL_COLUMNS, best=PIXEL_BEST) + "\n")
    parts.append(f"Images: {images['anomalous']} of {images['test']} anomalous\n")
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
