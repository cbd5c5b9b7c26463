"""The tables of a run on its test images: every metric that their labels and masks allow."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxvae import __version__
from jaxvae.data import kinds
from jaxvae.data.dataset import Dataset
from jaxvae.data.volumes import slices
from jaxvae.evaluation import image_metrics
from jaxvae.evaluation.image_metrics import Row
from jaxvae.runs.run import Run
from jaxvae.scores.batches import Scores
from jaxvae.scoring.healthy_stats import Thresholds


def make_tables(run: Run, test: Dataset, scores: Scores, *, resamples: int = 1000) -> dict[str, Any]:
    """The tables of pixels and of whole images, and what they were computed from, as in evaluation.json.

    Without healthy test images, or without anomalous ones, the metrics of whole images are None. The table of pixels
    needs masks with healthy and anomalous pixels, and is empty without them.
    """
    images = slices.middle(test.images) if run.kind is kinds.VOLUMES else test.images
    baselines = image_metrics.baseline_maps(images)
    # A baseline with one value for all images is left out, such as the mean rank of images without ties.
    means = {name: values for name, values in image_metrics.map_means(baselines).items() if np.ptp(values) > 0}
    image_scores = {**means, **scores.image_scores}
    pixels = []
    # An anomalous image can have an empty mask if its lesion vanishes at the model's resolution.
    if test.masks is not None and test.masks.any() and not test.masks.all():
        maps = {**baselines, **scores.maps}
        pixels = image_metrics.pixel_rows(maps, test.masks, test.groups, resamples=resamples)
    return {
        "jaxvae": __version__,
        "data": run.config["data"],
        "step": run.step,
        "images": {"test": len(test), "anomalous": int(test.labels.sum()), "groups": len(set(test.groups))},
        "anomalous_pixels": None if test.masks is None else float(test.masks.mean()),
        "pixels": pixels,
        "samples": image_metrics.sample_rows(image_scores, test.labels, test.groups, resamples=resamples),
    }


def false_positives(scores: Scores, thresholds: Thresholds) -> list[Row]:
    """For healthy images: the share of their pixels that each map marks at its thresholds.

    Returns:
      Rows with `score` and `at_0.01`, one for each map that has thresholds.
    """
    return [
        {"score": name}
        | {f"at_{rate}": float(np.mean(values >= threshold)) for rate, threshold in thresholds[name].items()}
        for name, values in scores.maps.items()
        if thresholds.get(name)
    ]
