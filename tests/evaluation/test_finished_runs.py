"""A finished run does not need its images: they can move, vanish, or be replaced."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folders import healthy, with_squares, write_benchmark, write_png
from jaxvae.cli import main
from jaxvae.scores import MAPS
from scan_folders import FLAGS, head, write_patients, write_volume

SMALL = ["--features", "4", "8", "--latent-size", "4", "--batch-size", "4", "--learning-rate", "1e-2", "--epochs", "2"]


def command(*words: object) -> int:
    return main(list(map(str, words)))


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture
def failed(capsys):
    """Run a command that must fail with exit code 2; returns its one line."""

    def failed(*words: object) -> str:
        capsys.readouterr()
        assert command(*words) == 2
        [line] = capsys.readouterr().err.strip().splitlines()
        return line

    return failed


# Images


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with `data`, other images `other`, and a `run` of 2 epochs."""
    folder = tmp_path_factory.mktemp("images")
    write_benchmark(folder / "data")
    for i, image in enumerate(healthy(3, seed=8)):
        write_png(folder / "other" / "test" / "good" / f"{i}.png", image)
    for i, (image, mask) in enumerate(zip(*with_squares(healthy(3, seed=9)), strict=True)):
        write_png(folder / "other" / "test" / "bad" / f"{i}.png", image)
        write_png(folder / "other" / "ground_truth" / "bad" / f"{i}_mask.png", mask)
    assert command("train", folder / "run", "--data", folder / "data", *SMALL) == 0
    return folder


@pytest.fixture
def place(trained, tmp_path) -> Path:
    """A copy of `trained`; the run still names the images of the original."""
    return shutil.copytree(trained, tmp_path / "copy")


def gone(run: Path) -> None:
    """Make a run name images that do not exist."""
    config = read(run / "config.json")
    config["data"]["data"] = str(run.parent / "gone")
    (run / "config.json").write_text(json.dumps(config))


def test_a_run_without_its_images_is_tested_on_others(place, capsys, failed):
    run, other = place / "run", place / "other"
    gone(run)
    (other / "test" / "bad" / "notes.txt").write_text("not an image")
    assert command("evaluate", run, other, "--resamples", 0) == 0
    assert f"{other}: left out: 1 file (.txt)" in capsys.readouterr().out
    assert command("report", run, other) == 0
    assert command("score", run, other / "test", "--maps", "combi", "--out", place / "maps") == 0
    assert "no threshold" not in capsys.readouterr().out
    kept = read(run / "thresholds.json")["thresholds"]
    assert set(kept) == set(MAPS)
    assert read(run / "on" / "other" / "evaluation.json")["thresholds"] == kept
    values = np.load(place / "maps" / "bad" / "1_combi.npy")
    marked = np.asarray(Image.open(place / "maps" / "bad" / "1_mask.png")) > 0
    np.testing.assert_array_equal(marked, values >= kept["combi"]["0.01"])
    for name in ("evaluate", "score"):
        line = failed(name, run)
        assert (
            f"gone: no such folder; if the images have moved, train {run} once with their new place as --data" in line
        )


def test_images_that_moved_are_recognised(place, failed):
    run, data = place / "run", place / "data"
    assert command("train", run, "--data", data, *SMALL[:-1], 3) == 0
    assert read(run / "config.json")["data"]["data"] == str(data)
    assert read(run / "thresholds.json")["step"] == 3 * 2
    assert command("evaluate", run, "--resamples", 0) == 0
    assert command("report", run) == 0
    # Files may be renamed if their order stays.
    for path in sorted((data / "train" / "good").iterdir()):
        path.rename(path.with_name(f"a{path.name}"))
    assert command("train", run, "--data", data, *SMALL[:-1], 4) == 0


def test_images_replaced_under_their_names_are_noticed(place, failed):
    run, data = place / "run", place / "data"
    assert command("train", run, "--data", data, *SMALL) == command("evaluate", run, "--resamples", 0) == 0
    image = data / "test" / "good" / "001.png"
    write_png(image, 255 - np.asarray(Image.open(image)))
    assert "data: test images or masks have changed since they were evaluated" in failed("report", run)
    image = data / "train" / "good" / "005.png"
    pixels = np.array(Image.open(image))
    pixels[3, 3] += 1
    write_png(image, pixels)
    before = read(run / "config.json")
    assert "run: was made from other images than there are now in" in failed("train", run, "--data", data, *SMALL)
    assert read(run / "config.json") == before
    for name in ("evaluate", "report", "score"):
        assert "data: holds other images than when the run was trained" in failed(name, run)
    elsewhere = shutil.copytree(data, place / "elsewhere")
    assert "was made with data.data" in failed("train", run, "--data", elsewhere, *SMALL)


def test_a_sweep_notices_replaced_images_and_follows_moved_ones(place, failed):
    sweep = ["sweep", place / "sweep", "--seed", "0", *SMALL[:-4], "--epochs", "1"]
    assert command(*sweep, "--data", place / "data") == 0
    moved = (place / "data").rename(place / "moved")
    assert command(*sweep, "--data", moved) == 0
    moved.rename(place / "data")
    image = place / "data" / "train" / "good" / "005.png"
    write_png(image, 255 - np.asarray(Image.open(image)))
    assert "sweep: was made from other images" in failed(*sweep, "--data", place / "data")


def test_training_images_are_recognised_under_any_name(place, failed):
    trained_on = place / "data" / "train" / "good" / "003.png"
    shutil.copy(trained_on, place / "other" / "test" / "good" / "new.png")
    assert "good/new.png, which the run was trained on" in failed("evaluate", place / "run", place / "other")
    # Empty images look the same in every data set.
    write_png(place / "other" / "test" / "good" / "new.png", np.zeros((32, 32), np.uint8))
    assert command("evaluate", place / "run", place / "other", "--resamples", 0) == 0


def test_a_run_of_an_earlier_version_can_continue(place, failed):
    run, data = place / "run", place / "data"
    assert command("train", run, "--data", data, *SMALL) == 0
    config, kept = read(run / "config.json"), read(run / "thresholds.json")
    del config["images"]["contents"]
    (run / "config.json").write_text(json.dumps(config))
    (run / "thresholds.json").write_text(json.dumps({"step": kept["step"], "thresholds": kept["thresholds"]}))
    (run / "trained_on.jsonl").unlink()
    assert command("evaluate", run, "--resamples", 0) == 0
    assert command("train", run, "--data", data, *SMALL) == 0
    assert len(read(run / "config.json")["images"]["contents"]) == 3
    assert (run / "trained_on.jsonl").is_file()
    # For another folder it has names only, which many data sets share.
    (run / "config.json").write_text(json.dumps(config))
    elsewhere = shutil.copytree(data, place / "elsewhere")
    assert "was made with data.data" in failed("train", run, "--data", elsewhere, *SMALL)


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"file": 1, "sketch": [1, 2, 3]}', '{"file": "a", "sketch": [1]}'])
def test_a_damaged_list_of_training_images_is_named(place, failed, line):
    (place / "run" / "trained_on.jsonl").write_text(line + "\n")
    assert "trained_on.jsonl" in failed("evaluate", place / "run", place / "other")


def test_missing_thresholds_are_computed_by_train(place):
    run, data = place / "run", place / "data"
    (run / "trained_on.jsonl").unlink()
    assert command("train", run, "--data", data, *SMALL) == 0
    whole = {name: (run / name).read_bytes() for name in ("thresholds.json", "trained_on.jsonl")}
    for name in whole:
        (run / name).unlink()
        assert command("train", run, "--data", data, *SMALL) == 0
        assert {name: (run / name).read_bytes() for name in whole} == whole


def test_images_of_another_scale_get_a_notice(place, capsys):
    dark = place / "dark"
    for path in (place / "other" / "test").rglob("*.png"):
        write_png(dark / path.name, np.asarray(Image.open(path)) // 16)
    assert command("score", place / "run", dark, "--maps", "combi") == 0
    assert "3 of 3 images have values far outside the range of the training images" in capsys.readouterr().out
    assert command("score", place / "run", place / "other" / "test", "--maps", "combi") == 0
    assert command("evaluate", place / "run", place / "other", "--resamples", 0) == 0
    assert "far outside" not in capsys.readouterr().out
    for path in (place / "other" / "test" / "good").iterdir():
        write_png(path, np.asarray(Image.open(path)) // 16)
    assert command("evaluate", place / "run", place / "other", "--resamples", 0) == 0
    assert "other: 3 of 6 images have values far outside the range" in capsys.readouterr().out


def test_a_sweep_without_healthy_test_images_says_what_is_missing(place, capsys):
    shutil.rmtree(place / "data" / "test" / "good")
    sweep = ["sweep", place / "sweep", "--seed", "0", *SMALL[:-4], "--epochs", "1"]
    assert command(*sweep, "--data", place / "data") == 0
    missing = "the table has no metrics of whole images: AUROC and AP need healthy images too, and there are none"
    assert missing in capsys.readouterr().out
    row = json.loads((place / "sweep" / "table.jsonl").read_text())
    assert "pixel_auroc/combi" in row
    assert "image_auroc/elbo" not in row


@pytest.mark.parametrize("kind", ["good", "bad"])
def test_images_of_one_kind_are_evaluated_in_part(place, capsys, kind):
    run, other = place / "run", place / "other"
    assert command("evaluate", run, other, "--resamples", 0) == 0
    both = {row["score"]: row for row in read(run / "on" / "other" / "evaluation.json")["pixels"]}
    shutil.rmtree(run / "on")
    if kind == "good":
        shutil.rmtree(other / "ground_truth")
    shutil.rmtree(other / "test" / ("bad" if kind == "good" else "good"))
    capsys.readouterr()
    assert command("evaluate", run, other, "--resamples", 0) == 0
    word = "anomalous" if kind == "good" else "healthy"
    printed = capsys.readouterr().out
    assert f"of 3 anomalous; AUROC and AP need {word} images too, and there are none" in printed
    assert command("report", run, other) == 0
    evaluation = read(run / "on" / "other" / "evaluation.json")
    assert {row["auroc"] for row in evaluation["samples"]} == {None}
    page = (run / "on" / "other" / "report" / "results.md").read_text()
    assert f"AUROC and AP need {word} images too" in page
    if kind == "bad":
        rows = {row["score"]: row for row in evaluation["pixels"]}
        assert rows.keys() == both.keys()
        assert all(0 <= row["auroc"] <= 1 for row in rows.values())
    else:
        assert evaluation["pixels"] == []
        threshold = evaluation["thresholds"]["combi"]["0.05"]
        scores = np.load(run / "on" / "other" / "scores" / "combi.npy")
        [combi] = [row for row in evaluation["false_positives"] if row["score"] == "combi"]
        assert combi["at_0.05"] == pytest.approx(np.mean(scores >= threshold))
        assert "Pixels: all are healthy; the fraction above the thresholds" in printed


def test_results_are_written_into_out(place, failed):
    run, mine = place / "run", place / "mine"
    before = {path for path in run.rglob("*") if path.is_file()}
    assert command("evaluate", run, place / "other", "--resamples", 0, "--out", mine) == 0
    assert command("report", run, place / "other", "--out", mine) == 0
    assert {path.name for path in mine.iterdir()} == {"evaluation.json", "scores", "report"}
    assert (mine / "report" / "index.html").is_file()
    assert {path for path in run.rglob("*") if path.is_file()} == before
    # The evaluation is in the run, the report elsewhere.
    assert command("evaluate", run, place / "other", "--resamples", 0) == 0
    assert command("report", run, place / "other", "--out", place / "page") == 0
    assert {path.name for path in (place / "page").iterdir()} == {"report"}
    second = shutil.copytree(run, place / "second")
    for out, message in (
        (mine, "mine: holds the results of"),
        (run, "is another run"),
        (read(run / "config.json")["data"]["data"], "the images of the run"),
    ):
        assert message in failed("evaluate", second, place / "other", "--resamples", 0, "--out", out)
    assert "mine: holds the results on" in failed("evaluate", run, "--resamples", 0, "--out", mine)


# Volumes


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with `patients`, their `cache`, a `run` on it, and `hospital` with its cache `hcache`, evaluated."""
    folder = tmp_path_factory.mktemp("site")
    write_patients(folder / "patients", healthy=5, sick=4)
    for i in range(2):
        for name, values in zip(("flair", "brain", "lesion"), head(20 + i, lesion=True), strict=True):
            write_volume(folder / "hospital" / f"h{i}" / f"{name}.nii.gz", values)
    for name, cache in (("patients", "cache"), ("hospital", "hcache")):
        assert command("prepare", folder / name, "--out", folder / cache, "--size", 16, *FLAGS) == 0
    data = ["--data", folder / "cache", "--validation", 0.3, "--test", 0.4]
    assert command("train", folder / "run", *data, *SMALL, "--batch-size", 8) == 0
    for other in ([], [folder / "hcache"]):
        words = ["evaluate", folder / "run", *other, "--resamples", 0, "--median", 0]
        assert command(*words) == 0
    return folder


def table(evaluation: dict, name: str) -> dict:
    [found] = [table for table in evaluation["volumes"] if table["name"] == name]
    return found


def test_volume_thresholds_come_from_brains_of_validation_slices(site):
    from jaxvae import score_batches
    from jaxvae.data.volumes import cache
    from jaxvae.runs.run import load
    from jaxvae.runs.run_images import open_own

    run = load(site / "run")
    validation, opened = open_own(run).validation, cache.open_cache(site / "cache")
    names = cache.dataset(opened).names
    brains = opened.brains[[names.index(name) for name in validation.names]]
    maps = [batch.maps["combi"] for batch in score_batches(run.model, run.params, validation.images, maps=("combi",))]
    inside = np.concatenate(maps)[brains]
    for rate, threshold in read(site / "run" / "thresholds.json")["thresholds"]["combi"].items():
        assert np.mean(inside >= threshold) <= float(rate) < np.mean(inside >= threshold * (1 - 2**-10))


def test_without_the_scans_their_slices_are_tested(site, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(site, moved)
    run = moved / "run"
    before = read(run / "evaluation.json"), read(run / "on" / "hcache" / "evaluation.json")
    (site / "patients").rename(site / "away")
    try:
        capsys.readouterr()
        # The prepared volumes have moved too.
        config = read(run / "config.json")
        config["data"]["data"] = str(moved / "gone")
        (run / "config.json").write_text(json.dumps(config))
        words = ["--resamples", 0, "--median", 0]
        assert command("evaluate", run, moved / "cache", *words) == 0
        printed = capsys.readouterr().out
        assert "files of its scans are gone, such as " in printed
        assert "evaluated at the model's resolution, from the prepared slices" in printed
        assert command("report", run, moved / "cache") == 0
        assert "the page is without its viewer of volumes" in capsys.readouterr().out
        assert command("evaluate", run, moved / "hcache", *words) == 0
        assert command("report", run, moved / "hcache") == 0
        score = ["score", run, moved / "hospital", "--out", moved / "maps", "--maps", "rec_error"]
        assert command(*score, "--images", "*/flair.nii.gz") == 0
        assert "no threshold" not in capsys.readouterr().out
        assert len(list((moved / "maps").rglob("*_mask.nii.gz"))) == 2
        trained = ["train", run, "--data", moved / "cache", "--validation", 0.3, "--test", 0.4]
        assert command(*trained, *SMALL[:-1], 3, "--batch-size", 8) == 0
    finally:
        (site / "away").rename(site / "patients")
    own, other = read(run / "evaluation.json"), read(run / "on" / "hcache" / "evaluation.json")
    assert [table["name"] for table in own["volumes"]] == ["model_resolution"]
    kept = own["thresholds"]
    for now, was in ((own, before[0]), (other, before[1])):
        rows, wanted = (table(evaluation, "model_resolution")["rows"] for evaluation in (now, was))
        for row, one in zip(rows, wanted, strict=True):
            for key in ("score", "auroc", "average_precision", "best_dice", "aupro", "volumes"):
                assert row[key] == pytest.approx(one[key]), (row["score"], key)
        assert table(now, "model_resolution")["thresholds"] == kept
    assert table(other, "own_grid")["thresholds"] == {name: kept[name] for name in MAPS}
    assert "at the model's resolution" in table(other, "own_grid")["reference"]


def test_volumes_without_a_lesion_have_false_positives_only(site, tmp_path, capsys):
    for i, name in enumerate(("a", "b")):
        voxels, brain, _ = head(40 + i)
        for kind, values in (("flair", voxels), ("brain", brain)):
            write_volume(tmp_path / "well" / name / f"{kind}.nii.gz", values)
    assert command("prepare", tmp_path / "well", "--out", tmp_path / "wcache", "--size", 16, *FLAGS[:4]) == 0
    run = shutil.copytree(site / "run", tmp_path / "run")
    assert command("evaluate", run, tmp_path / "wcache", "--resamples", 10, "--median", 0) == 0
    assert "so only false positives can be counted" in capsys.readouterr().out
    assert command("report", run, tmp_path / "wcache") == 0
    for row in table(read(run / "on" / "wcache" / "evaluation.json"), "own_grid")["rows"]:
        assert row["auroc"] is row["best_dice"] is row["mean_best_dice"] is row["sensitivity_at_healthy_0.01"] is None
        assert row["false_positives_at_healthy_0.01"] >= 0
