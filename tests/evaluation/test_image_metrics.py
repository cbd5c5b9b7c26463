"""Tables of image metrics equal scikit-learn and include the baselines."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from jaxvae.errors import InputError
from jaxvae.evaluation import image_metrics
from jaxvae.evaluation.image_metrics import PIXEL_BEST, PIXEL_COLUMNS, SAMPLE_COLUMNS, pixel_rows, sample_rows
from jaxvae.scores import BASELINES


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """(maps, masks, groups): 16 images of 8 patients, a square lesion in every second one."""
    rng = np.random.default_rng(0)
    masks = np.zeros((16, 16, 16, 1), bool)
    for i in range(0, 16, 2):
        masks[i, 2 + i // 2 : 6 + i // 2, 3:8] = True
    maps = (rng.standard_exponential(masks.shape) + 1.5 * masks).astype(np.float32)
    return maps, masks, tuple(f"patient{i // 2}" for i in range(16))


def test_pixel_rows_equal_scikit_learn(scored) -> None:
    maps, masks, groups = scored
    (row,) = pixel_rows({"mine": maps}, masks, groups, resamples=0)
    scores, labels = maps.ravel(), masks.ravel()
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    with np.errstate(invalid="ignore"):
        dices = np.nan_to_num(2 * precision * recall / (precision + recall))[:-1]
    assert row["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert row["average_precision"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert row["best_dice"] == pytest.approx(dices.max(), abs=1e-12)
    assert row["best_dice_threshold"] == pytest.approx(thresholds[dices.argmax()], rel=1e-6)
    false_positives, true_positives, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert row["fpr_at_tpr"] == pytest.approx(false_positives[true_positives >= 0.95].min(), abs=1e-12)
    within = np.flatnonzero(false_positives <= 0.05)[-1]
    hits, alarms = true_positives[within] * labels.sum(), false_positives[within] * (~labels).sum()
    assert row["dice_at_fpr"] == pytest.approx(2 * hits / (hits + alarms + labels.sum()), abs=1e-12)
    assert row["iou_at_fpr"] == pytest.approx(hits / (alarms + labels.sum()), abs=1e-12)


def test_sample_rows_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(40) % 3 == 0
    scores = {"kl": rng.normal(size=40) + labels, "nll": rng.normal(size=40)}
    rows = sample_rows(scores, labels, [str(i) for i in range(40)], resamples=0)
    assert [row["score"] for row in rows] == ["kl", "nll"]
    for row in rows:
        assert row["auroc"] == pytest.approx(roc_auc_score(labels, scores[row["score"]]), abs=1e-12)
        expected = average_precision_score(labels, scores[row["score"]])
        assert row["average_precision"] == pytest.approx(expected, abs=1e-12)


def test_intervals_contain_their_unchanged_value(scored) -> None:
    maps, masks, groups = scored
    (plain,) = pixel_rows({"mine": maps}, masks, groups, resamples=0)
    (row,) = pixel_rows({"mine": maps}, masks, groups, resamples=200)
    for key in ("auroc", "average_precision", "best_dice"):
        value, low, high = row[key]
        assert value == plain[key]
        assert low <= value <= high
        assert low < high


@pytest.mark.parametrize("patients", [1, 7])
def test_few_groups_have_no_interval(scored, patients) -> None:
    maps, masks, _ = scored
    groups = [str(i % patients) for i in range(16)]
    (pixels,) = pixel_rows({"mine": maps}, masks, groups, resamples=200)
    (samples,) = sample_rows({"mine": maps.mean(axis=(1, 2, 3))}, masks.any(axis=(1, 2, 3)), groups)
    assert isinstance(pixels["auroc"], float)
    assert isinstance(samples["auroc"], float)


def test_every_column_has_a_value_and_a_best(scored) -> None:
    maps, masks, groups = scored
    (row,) = pixel_rows({"mine": maps}, masks, groups, resamples=0)
    assert set(row) == {*PIXEL_COLUMNS, "best_dice_threshold"}
    assert set(PIXEL_BEST) == {*PIXEL_COLUMNS} - {"score"}
    assert [key for key, best in PIXEL_BEST.items() if best is min] == ["fpr_at_tpr"]
    (samples,) = sample_rows({"mine": np.arange(16.0)}, masks.any(axis=(1, 2, 3)), groups, resamples=0)
    assert set(samples) == {*SAMPLE_COLUMNS}


def test_a_perfect_map_is_best_in_every_column(scored) -> None:
    _, masks, groups = scored
    (row,) = pixel_rows({"truth": masks.astype(np.float32)}, masks, groups, resamples=0)
    for key in ("auroc", "average_precision", "best_dice", "aupro"):
        assert row[key] == pytest.approx(1, abs=1e-12)
    assert row["fpr_at_tpr"] == 0


def test_baselines_depend_on_the_image_only() -> None:
    images = np.zeros((2, 8, 8, 1), np.uint8)
    images[0, 2, 2], images[1, 3:5, 3:5] = 255, 51
    maps, samples = image_metrics.baseline_maps(images), image_metrics.map_means(image_metrics.baseline_maps(images))
    assert list(maps) == list(samples) == list(BASELINES) == ["brightness", "equalised_brightness"]
    np.testing.assert_allclose(maps["brightness"], images / 255, rtol=1e-6)
    np.testing.assert_allclose(samples["brightness"], [1 / 64, 4 * 0.2 / 64], rtol=1e-6)


def test_maps_that_cannot_be_evaluated_are_refused(scored) -> None:
    maps, masks, groups = scored
    with pytest.raises(InputError, match="NaN"):
        pixel_rows({"mine": np.where(masks, np.nan, maps)}, masks, groups, resamples=0)
    with pytest.raises(InputError):
        pixel_rows({"mine": maps}, np.zeros_like(masks), groups, resamples=0)
