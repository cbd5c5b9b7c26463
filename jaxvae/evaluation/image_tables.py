"""The tables of a run on its test images: every metric that their labels and masks allow."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxvae import __version__
from jaxvae.data.dataset import Dataset
from jaxvae.data.volumes import slices
from jaxvae.evaluation import image_metrics
from jaxvae.evaluation.image_metrics import Row
from jaxvae.runs.checkpoint import Run
from jaxvae.scoring.results import Scored


def of_images(run: Run, test: Dataset, scored: Scored, *, resamples: int = 1000) -> dict[str, Any]:
    """The tables of pixels and of whole images, and what they were made from, as in evaluation.json.

    Without healthy test images, or without anomalous ones, the metrics of whole images are None. The table of pixels
    needs masks with healthy and anomalous pixels, and is empty without them.
    """
    images = slices.middle(test.images) if run.config.get("volumes") else test.images
    baselines = image_metrics.baseline_maps(images)
    # Equal for all images, as the mean of ranks is where all pixels have one, a baseline says nothing of them.
    means = {name: values for name, values in image_metrics.map_means(baselines).items() if np.ptp(values) > 0}
    samples = {**means, **scored.samples}
    pixels = []
    # An image may be called anomalous for a lesion of which no pixel is left at the model's resolution.
    if test.masks is not None and test.masks.any() and not test.masks.all():
        maps = {**baselines, **scored.maps}
        pixels = image_metrics.pixel_rows(maps, test.masks, test.groups, resamples=resamples)
    return {
        "jaxvae": __version__,
        "data": run.config["data"],
        "step": run.step,
        "images": {"test": len(test), "anomalous": int(test.labels.sum()), "groups": len(set(test.groups))},
        "anomalous_pixels": None if test.masks is None else float(test.masks.mean()),
        "pixels": pixels,
        "samples": image_metrics.sample_rows(samples, test.labels, test.groups, resamples=resamples),
    }


def false_positives(scored: Scored, thresholds: dict[str, dict[str, float]]) -> list[Row]:
    """For healthy images: the share of their pixels that each map marks at its thresholds.

    Returns:
      Rows with `score` and `at_0.01`, one for each map that has thresholds.
    """
    return [
        {"score": name} | {f"at_{rate}": float(np.mean(values >= threshold)) for rate, threshold in of_map.items()}
        for name, values in scored.maps.items()
        if (of_map := thresholds.get(name))
    ]
