"""Volume metrics equal scikit-learn and the exact metrics of all voxels pooled."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxvae.errors import InputError
from jaxvae.evaluation import volume_measures
from jaxvae.evaluation.volume_measures import VolumeMeasure, measure
from jaxvae.evaluation.volume_metrics import BEST, COLUMNS, healthy_thresholds, rows
from jaxvae.metrics import overlap, ranking, region_overlap
from jaxvae.metrics.intervals import bootstrap, bootstrap_pixels
from jaxvae.metrics.lesions import components, detect
from jaxvae.report import tables

THRESHOLDS = {"square": {"0.01": 6.0, "0.05": 3.0}, "signed": {"0.01": 2.5, "0.05": 1.5}}


class Volume:
    """One drawn volume: name, group, maps, lesion, region."""

    def __init__(self, seed: int, *, ill: bool = True, step: float = 1 / 64, shape=(12, 13, 14)) -> None:
        generator = np.random.default_rng(seed)
        self.name, self.group = f"volume{seed}", f"patient{seed // 2}"
        self.lesion = np.zeros(shape, dtype=bool)
        if ill:
            self.lesion[2:5, 3:6, 4:8] = True
            self.lesion |= generator.random(shape) < 0.01
        signed = generator.normal(size=shape) + 2 * self.lesion
        # Each multiple of 1/64 up to 32 has its own float bin, so nothing is rounded.
        self.maps = {
            name: np.clip(np.round(values / step) * step, -31, 31).astype(np.float32)
            for name, values in (("square", signed**2), ("signed", signed))
        }
        self.region = np.zeros(shape, dtype=bool)
        self.region[1:-1, 2:, :-3] = True

    def measure(self, thresholds=THRESHOLDS, **knobs) -> VolumeMeasure:
        return measure(self.name, self.group, self.maps, self.lesion, self.region, thresholds, **knobs)

    def voxels(self, score: str) -> tuple[np.ndarray, np.ndarray]:
        return self.maps[score][self.region], self.lesion[self.region]


@pytest.fixture(scope="module")
def volumes() -> list[Volume]:
    """Sixteen volumes of eight patients; the last patient is healthy."""
    return [Volume(seed, ill=seed < 14) for seed in range(16)]


@pytest.fixture(scope="module")
def measures(volumes) -> list[VolumeMeasure]:
    return [volume.measure() for volume in volumes]


@pytest.fixture(scope="module")
def pooled(volumes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        score: tuple(np.concatenate(part) for part in zip(*(v.voxels(score) for v in volumes), strict=True))
        for score in THRESHOLDS
    }


def assert_same(got: VolumeMeasure, expected: VolumeMeasure) -> None:
    assert got._replace(scores={}) == expected._replace(scores={})
    assert got.scores.keys() == expected.scores.keys()
    for score, measured in expected.scores.items():
        assert got.scores[score].at == measured.at
        for array, wanted in zip(got.scores[score][:3], measured[:3], strict=True):
            np.testing.assert_array_equal(array, wanted)


def test_pooled_metrics_equal_scikit_learn(measures, pooled):
    table = rows(measures, resamples=0)
    assert [row["score"] for row in table] == list(THRESHOLDS)
    for row in table:
        scores, labels = pooled[row["score"]]
        assert row["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert row["average_precision"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
        best_dice, threshold = ranking.best_dice(scores, labels)
        assert row["best_dice"] == pytest.approx(best_dice, abs=1e-12)
        assert row["best_dice_threshold"] == threshold
        assert row["volumes"] == 16


def test_metrics_per_volume_skip_healthy_volumes(measures, volumes):
    for row in rows(measures, resamples=0):
        score = row["score"]
        ill = [volume.voxels(score) for volume in volumes[:14]]
        assert row["mean_best_dice"] == pytest.approx(np.mean([ranking.best_dice(s, y)[0] for s, y in ill]), abs=1e-12)
        for key, threshold in THRESHOLDS[score].items():
            expected = np.mean([overlap.dice(s >= threshold, y) for s, y in ill])
            assert row[f"mean_dice_at_healthy_{key}"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("smallest_component", [1, 3])
@pytest.mark.parametrize("smallest_lesion", [1, 2])
def test_counts_at_a_threshold_equal_those_of_the_prediction(volumes, smallest_component, smallest_lesion):
    knobs = {"smallest_component": smallest_component, "smallest_lesion": smallest_lesion}
    table = rows([volume.measure(**knobs) for volume in volumes], resamples=0)
    for row in table:
        for key, threshold in THRESHOLDS[row["score"]].items():
            marks = [(v.maps[row["score"]] >= threshold) & v.region for v in volumes]
            predicted = [components(mark, smallest=smallest_component).labels > 0 for mark in marks]
            marked = [v.lesion & v.region for v in volumes]
            inside = np.concatenate([p[v.region] for p, v in zip(predicted, volumes, strict=True)])
            labels = np.concatenate([v.lesion[v.region] for v in volumes])
            assert row[f"dice_at_healthy_{key}"] == pytest.approx(overlap.dice(inside, labels), abs=1e-12)
            lesions, detected, false_positives = np.sum(
                [
                    detect(components(p), components(m, smallest=smallest_lesion), m)
                    for p, m in zip(predicted, marked, strict=True)
                ],
                axis=0,
            )
            assert row[f"sensitivity_at_healthy_{key}"] == detected / lesions
            assert row[f"false_positives_at_healthy_{key}"] == false_positives / len(volumes)


def test_aupro_of_slices_equals_that_of_images():
    drawn = [Volume(seed, shape=(20, 20, 1)) for seed in range(5)]
    for volume in drawn:
        volume.lesion[3:7, 3:6] = True
        volume.region[:] = True
    masks = np.stack([volume.lesion[..., 0] for volume in drawn])
    for row in rows([volume.measure() for volume in drawn], resamples=0):
        maps = np.stack([volume.maps[row["score"]][..., 0] for volume in drawn])
        assert row["aupro"] == pytest.approx(region_overlap.aupro(maps, masks), abs=1e-12)


def test_aupro_weighs_all_lesions_equally(measures, volumes):
    for row in rows(measures, resamples=0):
        score = row["score"]
        pooled_scores, pooled_labels = (
            np.concatenate(part) for part in zip(*(v.voxels(score) for v in volumes), strict=True)
        )
        healthy = pooled_scores[~pooled_labels]
        thresholds = np.append(np.unique(pooled_scores)[::-1], -np.inf)
        overlaps = []
        for volume in volumes:
            labels, number = components(volume.lesion & volume.region)
            of_lesion = [np.sort(volume.maps[score][labels == i + 1]) for i in range(number)]
            overlaps += [1 - np.searchsorted(values, thresholds) / values.size for values in of_lesion]
        rates = np.append(0.0, [np.mean(healthy >= threshold) for threshold in thresholds])
        curve = np.append(0.0, np.mean(overlaps, axis=0))
        fine = np.linspace(0, 0.3, 300_001)
        area = np.trapezoid(np.interp(fine, rates, curve), fine) / 0.3
        assert row["aupro"] == pytest.approx(area, abs=1e-5)


def test_intervals_equal_those_of_the_voxels():
    volumes = [Volume(seed, ill=seed < 14) for seed in range(16)]
    # `bootstrap_pixels` has no region.
    for volume in volumes:
        volume.region[:] = True
    table = rows([volume.measure() for volume in volumes], resamples=50, seed=3)
    labels, groups = np.stack([v.lesion for v in volumes]), [v.group for v in volumes]
    for row in table:
        scores = np.stack([v.maps[row["score"]] for v in volumes])
        expected = bootstrap_pixels(scores, labels, groups, resamples=50, seed=3)
        for key, interval in expected._asdict().items():
            # Joined bins hold 2^-13 of a class.
            np.testing.assert_allclose(row[key][1:], interval, atol=3e-4)
        for key, threshold in THRESHOLDS[row["score"]].items():

            def dice_at(scores, labels, threshold=threshold):
                return overlap.dice(scores >= threshold, labels)

            interval = bootstrap(dice_at, scores, labels, groups, resamples=50, seed=3)
            np.testing.assert_allclose(row[f"dice_at_healthy_{key}"][1:], interval, atol=1e-12)


def test_intervals_contain_their_unchanged_value(measures):
    plain, resampled = rows(measures, resamples=0), rows(measures, resamples=200)
    for without, row in zip(plain, resampled, strict=True):
        for key in COLUMNS:
            if isinstance(row[key], tuple):
                value, low, high = row[key]
                assert value == without[key]
                assert low <= value <= high
            else:
                assert row[key] == without[key]
                assert key in ("score", "aupro", "volumes")


@pytest.mark.parametrize("patients", [1, 7])
def test_few_patients_have_no_interval(measures, patients):
    for row in rows([one._replace(group=str(i % patients)) for i, one in enumerate(measures)]):
        assert not any(isinstance(value, tuple) for value in row.values())


def test_the_order_of_volumes_changes_nothing(measures):
    for row, turned in zip(rows(measures, resamples=0), rows(measures[::-1], resamples=0), strict=True):
        for key, value in row.items():
            assert value == turned[key] or value == pytest.approx(turned[key], abs=1e-12)


@pytest.mark.parametrize("name", ["square", "signed"])
def test_a_healthy_threshold_is_the_lowest_edge_within_the_rate(name):
    drawn = [Volume(seed, ill=False, step=1e-9) for seed in range(4)]
    thresholds = healthy_thresholds([volume.measure({}) for volume in drawn], rates=(0.0, 0.01, 0.05, 0.5))[name]
    values = np.concatenate([volume.voxels(name)[0] for volume in drawn])
    assert list(thresholds) == ["0", "0.01", "0.05", "0.5"]
    for key, threshold in thresholds.items():
        rate = float(key)
        assert np.mean(values >= threshold) <= rate
        # The exact threshold is no more than a bin below.
        lower = threshold - 2**-10 * abs(threshold)
        assert np.mean(values >= lower) > rate


def test_the_threshold_of_a_mostly_zero_map_is_positive():
    volume = Volume(0, ill=False)
    volume.maps = {"sparse": np.where(volume.maps["signed"] > 2, volume.maps["signed"], 0)}
    threshold = healthy_thresholds([volume.measure({})], rates=(0.5,))["sparse"]["0.5"]
    values, _ = volume.voxels("sparse")
    assert 0 < threshold < 2
    assert np.mean(values >= threshold) == np.mean(values > 0)


def test_lesions_of_other_volumes_do_not_move_a_threshold(volumes, measures):
    healthy = np.concatenate([s[~y] for s, y in (volume.voxels("square") for volume in volumes)])
    threshold = healthy_thresholds(measures)["square"]["0.05"]
    assert np.mean(healthy >= threshold) <= 0.05 < np.mean(healthy >= threshold - 2 / 64)


def test_only_voxels_inside_the_region_are_read(volumes, measures):
    volume = Volume(0)
    volume.maps = {name: np.where(volume.region, values, np.nan) for name, values in volume.maps.items()}
    measured = volume.measure()
    assert_same(measured, measures[0])
    assert measured.healthy + measured.anomalous == np.count_nonzero(volume.region)
    assert measured.outside == np.count_nonzero(volume.lesion & ~volume.region) > 0


def test_a_written_measure_is_read_again(measures, tmp_path):
    for measured in measures:
        volume_measures.write(tmp_path / f"{measured.name}.npz", {"one": measured, "two": measures[0]})
    restored = [volume_measures.read(tmp_path / f"{measured.name}.npz") for measured in measures]
    for one, measured in zip(restored, measures, strict=True):
        assert_same(one["one"], measured)
        assert_same(one["two"], measures[0])
    assert rows([one["one"] for one in restored], resamples=20) == rows(measures, resamples=20)
    whole = (tmp_path / f"{measures[0].name}.npz").read_bytes()
    for part in (b"", whole[:100], whole[:-100]):
        (tmp_path / "part.npz").write_bytes(part)
        assert volume_measures.read(tmp_path / "part.npz") == {}
    assert volume_measures.read(tmp_path / "none.npz") == {}
    for start in range(0, len(whole), 97):
        (tmp_path / "part.npz").write_bytes(whole[:start] + bytes(64) + whole[start + 64 :])
        assert set(volume_measures.read(tmp_path / "part.npz")) in (set(), {"one", "two"})


def test_an_infinite_threshold_predicts_nothing(tmp_path):
    volume_measures.write(tmp_path / "one.npz", {"one": Volume(0).measure({"square": {"0": np.inf}})})
    kept = volume_measures.read(tmp_path / "one.npz")["one"].scores["square"].at["0"]
    assert kept[:3] == (np.inf, 0, 0)
    assert kept.detection.detected == kept.detection.false_positives == 0


def test_a_perfect_map_is_best_in_a_printed_table(volumes):
    truth = [
        measure(v.name, v.group, {"truth": v.lesion * 1.0}, v.lesion, v.region, {"truth": {"0.01": 0.5, "0.05": 0.5}})
        for v in volumes
    ]
    (row,) = rows(truth, resamples=20)
    assert set(row) == {*COLUMNS, "best_dice_threshold"}
    for key, best in BEST.items():
        value = row[key][0] if isinstance(row[key], tuple) else row[key]
        assert value == pytest.approx(0 if best is min else 1, abs=1e-12)
    assert "false positives/volume at healthy 1%" in tables.text([row], COLUMNS, best=BEST)


def test_lesions_too_small_to_count_leave_no_sensitivity(volumes):
    for row in rows([volume.measure(smallest_lesion=10_000) for volume in volumes], resamples=20):
        assert row["sensitivity_at_healthy_0.01"] is None
        assert row["aupro"] is None
        assert row["auroc"][0] > 0.5


def test_metrics_of_real_lesions_are_accurate(data):
    folder = data / "brats2015-subset" / "train" / "brats_2013_pat0005_1"
    flair, brain, labels = (
        np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj, dtype=np.float32)
        for name in ("Flair_subtrMeanDivStd", "brainmask", "OTMultiClass")
    )
    brain, lesion = brain > 0.5, labels > 0
    maps = {"brightness": np.abs(flair), "smooth": ndimage.gaussian_filter(np.abs(flair) * brain, 1)}
    measured = measure("pat0005", "pat0005", maps, lesion, brain, {})
    thresholds = healthy_thresholds([measured])
    for row in rows([measured]):
        scores = maps[row["score"]][brain]
        auroc, average_precision = ranking.auroc_and_average_precision(scores, lesion[brain])
        assert row["auroc"] == pytest.approx(auroc, abs=1e-5)
        assert row["average_precision"] == pytest.approx(average_precision, abs=3e-4)
        assert row["best_dice"] == pytest.approx(ranking.best_dice(scores, lesion[brain])[0], abs=1e-4)
        for rate, threshold in thresholds[row["score"]].items():
            healthy = scores[~lesion[brain]]
            assert np.mean(healthy >= threshold) <= float(rate) < np.mean(healthy >= threshold * (1 - 2**-10))


def test_wrong_arguments_are_refused():
    lesion, region = np.zeros((6, 6, 6), dtype=bool), np.ones((6, 6, 6), dtype=bool)
    scores = {"one": np.ones((6, 6, 6), dtype=np.float32)}
    for call, message in (
        (lambda: measure("a", "a", scores, lesion, region & False, {}), "a: region is empty"),
        (lambda: measure("a", "a", scores, lesion[1:], region, {}), "give two of one shape"),
        (lambda: measure("a", "a", {"one": scores["one"][0]}, lesion, region, {}), "the map one has shape"),
        (
            lambda: measure("a", "a", {"one": scores["one"] * np.nan}, lesion, region, {}),
            "a, one: scores holds 216",
        ),
        (lambda: rows([]), "measures is empty"),
        (lambda: healthy_thresholds([measure("a", "a", scores, region, region, {})]), "no healthy voxel of one"),
        (lambda: healthy_thresholds([measure("a", "a", scores, lesion, region, {})], rates=(5,)), "rates="),
        (
            lambda: rows([measure(n, n, {n: scores["one"]}, lesion, region, {}) for n in "ab"]),
            "b has other scores or thresholds than a",
        ),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_undefined_intervals_are_left_out(volumes):
    """One patient of eight has lesions that count, and a single resample may miss that patient."""
    measures = [Volume(seed, ill=seed < 2).measure() for seed in range(16)]
    for seed in range(10):
        for row in rows(measures, resamples=1, seed=seed):
            for key in ("0.01", "0.05"):
                value = row[f"sensitivity_at_healthy_{key}"]
                assert 0 <= (value if isinstance(value, float) else value[0]) <= 1
