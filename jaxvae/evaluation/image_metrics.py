"""Tables of image metrics: one row per score, including the baselines."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxvae import __version__
from jaxvae.data import kinds
from jaxvae.data.dataset import Dataset
from jaxvae.data.volumes import slices
from jaxvae.metrics import ranking, region_overlap
from jaxvae.metrics.baselines import brightness, equalised_brightness
from jaxvae.metrics.intervals import FEWEST_GROUPS, bootstrap, bootstrap_pixels
from jaxvae.progress import Bar
from jaxvae.runs.run import Run
from jaxvae.scores.batches import Scores
from jaxvae.scoring.healthy_stats import Thresholds

Row = dict[str, Any]

# Shares of healthy pixels or voxels that may be marked as anomalous.
RATES = (0.01, 0.05)

# Columns of the tables, with their headings.
PIXEL_COLUMNS = {
    "score": "score",
    "auroc": "AUROC",
    "average_precision": "AP",
    "best_dice": "best Dice",
    "dice_at_fpr": "Dice at 5% FPR",
    "iou_at_fpr": "IoU at 5% FPR",
    "aupro": "AUPRO",
    "fpr_at_tpr": "FPR at 95% TPR",
}
SAMPLE_COLUMNS = {"score": "score", "auroc": "AUROC", "average_precision": "AP"}
# Which value of a column is best: the lowest false-positive rate, the highest of everything else.
PIXEL_BEST = {key: min if key == "fpr_at_tpr" else max for key in PIXEL_COLUMNS if key != "score"}


def baseline_maps(images: np.ndarray) -> dict[str, np.ndarray]:
    """The maps of `scores.BASELINES` by name, [N, H, W, 1] each."""
    return {"brightness": brightness(images), "equalised_brightness": equalised_brightness(images)}


def map_means(maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mean of each image's map, [N], by name: image scores of the baselines."""
    return {name: values.mean(axis=(1, 2, 3), dtype=np.float64) for name, values in maps.items()}


def pixel_rows(
    maps: Mapping[str, np.ndarray], masks: np.ndarray, groups: Sequence[str], *, resamples: int = 1000
) -> list[Row]:
    """One row per score, all pixels of all images pooled, background included.

    Args:
      maps: [N, H, W, 1] each, by score.
      masks: [N, H, W, 1] bool.
      groups: N names of the units that the intervals resample (patients, or images).
      resamples: bootstrap resamples; 0 leaves the intervals out.
    Returns:
      Rows with the keys of `PIXEL_COLUMNS` and `best_dice_threshold`; auroc, average_precision and best_dice are
      (value, low, high) with the ends of their 95 % interval, if there are `FEWEST_GROUPS` groups or more.
    Raises:
      InputError: NaN in a map, or no pixel of either class.
    """
    rows = []
    for name, scores in Bar(maps.items(), "pixel metrics", leave=False, unit="map"):
        row: Row = {"score": name, **ranking.pixel_metrics(scores, masks)._asdict()}
        row["aupro"] = region_overlap.aupro(scores, masks, fpr_limit=0.3)
        if resamples and len(set(groups)) >= FEWEST_GROUPS:
            intervals = bootstrap_pixels(scores, masks, groups, resamples=resamples)
            for key, interval in intervals._asdict().items():
                row[key] = (row[key], *interval)
        rows.append(row)
    return rows


def sample_rows(
    scores: Mapping[str, np.ndarray], labels: np.ndarray, groups: Sequence[str], *, resamples: int = 1000
) -> list[Row]:
    """One row per score, from one value per image.

    Args:
      scores: [N] each, by name.
      labels: [N] bool.
      groups, resamples: as in `pixel_rows`.
    Returns:
      Rows with the keys of `SAMPLE_COLUMNS`, both metrics as (value, low, high) as in `pixel_rows`. They are None if
      all labels are equal, since both metrics need healthy and anomalous images.
    """
    if not labels.any() or labels.all():
        return [{"score": name, "auroc": None, "average_precision": None} for name in scores]
    rows = []
    for name, values in Bar(scores.items(), "image metrics", leave=False, unit="score"):
        row: Row = {"score": name}
        for key, metric in (("auroc", ranking.auroc), ("average_precision", ranking.average_precision)):
            row[key] = metric(values, labels)
            if resamples and len(set(groups)) >= FEWEST_GROUPS:
                row[key] = (row[key], *bootstrap(metric, values, labels, groups, resamples=resamples))
        rows.append(row)
    return rows


def image_tables(run: Run, test: Dataset, scores: Scores, *, resamples: int = 1000) -> dict[str, Any]:
    """The tables of pixels and of whole images, as in evaluation.json.

    Without healthy test images, or without anomalous ones, the metrics of whole images are None. The table of pixels
    needs masks with healthy and anomalous pixels, and is empty without them.
    """
    images = slices.middle(test.images) if run.kind is kinds.VOLUMES else test.images
    baselines = baseline_maps(images)
    # A baseline with one value for all images is left out, such as the mean rank of images without ties.
    means = {name: values for name, values in map_means(baselines).items() if np.ptp(values) > 0}
    # The KL of a model that was trained without one is 0, and its ELBO is its NLL.
    own = {name: it for name, it in scores.image_scores.items() if run.objective.kl or name not in ("kl", "elbo")}
    image_scores = {**means, **own}
    pixels = []
    # An anomalous image can have an empty mask if its lesion vanishes at the model's resolution.
    if test.masks is not None and test.masks.any() and not test.masks.all():
        maps = {**baselines, **scores.maps}
        pixels = pixel_rows(maps, test.masks, test.groups, resamples=resamples)
    return {
        "jaxvae": __version__,
        "data": run.config["data"],
        "step": run.step,
        "images": {"test": len(test), "anomalous": int(test.labels.sum()), "groups": len(set(test.groups))},
        "anomalous_pixels": None if test.masks is None else float(test.masks.mean()),
        "pixels": pixels,
        "samples": sample_rows(image_scores, test.labels, test.groups, resamples=resamples),
    }


def false_positives(scores: Scores, thresholds: Thresholds) -> list[Row]:
    """The share of healthy pixels that each map marks at its thresholds.

    Returns:
      Rows with `score` and `at_0.01`, one for each map that has thresholds.
    """
    return [
        {"score": name}
        | {f"at_{rate}": float(np.mean(values >= threshold)) for rate, threshold in thresholds[name].items()}
        for name, values in scores.maps.items()
        if thresholds.get(name)
    ]
