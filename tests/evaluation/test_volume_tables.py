"""Tables of a run on volumes, on every grid, and the commands that make and draw them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxvae import auroc, average_precision
from jaxvae.cli import main
from jaxvae.data.volumes import cache, slices
from jaxvae.data.volumes.prepared_scan import read_scan
from jaxvae.data.volumes.slices import Slicing
from jaxvae.errors import InputError
from jaxvae.evaluation import volume_tables
from jaxvae.evaluation.volume_measures import measure
from jaxvae.evaluation.volume_tables import VolumeSettings, VolumeTable, baseline_volumes, make_table, make_tables
from jaxvae.runs.run import load
from jaxvae.scoring import volume_scores
from scan_folders import FLAGS, head, write_patients, write_volume

SETTINGS = VolumeSettings(maps=("rec_error", "combi"), median=3, components=2, background=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `patients`, `cache`, a second cache `other` of other patients, and a short `run`."""
    folder = tmp_path_factory.mktemp("volumes")
    for name, counts in (("patients", (5, 4)), ("strangers", (0, 2))):
        write_patients(folder / name, healthy=counts[0], sick=counts[1])
    for name, out in (("patients", "cache"), ("strangers", "other")):
        assert main(["prepare", str(folder / name), "--out", str(folder / out), "--size", "16", *FLAGS]) == 0
    small = ["--features", "4", "8", "--latent-size", "4", "--batch-size", "8", "--epochs", "40"]
    small += ["--learning-rate", "1e-3", "--validation", "0.3", "--test", "0.4"]
    assert main(["train", str(folder / "run"), "--data", str(folder / "cache"), *small]) == 0
    return folder


@pytest.fixture(scope="module")
def found(trained) -> list[VolumeTable]:
    run, opened = load(trained / "run"), cache.open_cache(trained / "cache")
    healthy = [scan for scan in cache.scans(opened) if scan.patient in ("p00", "p01")]
    sick = [scan for scan in cache.scans(opened) if scan.patient in ("p02", "p07", "p08")]
    return make_tables(run, sick, healthy, SETTINGS, resamples=50)


def test_the_own_grid_counts_the_whole_brain(trained, found):
    """Compared with maps put back and pooled here, dropped planes included, to the width of the bins."""
    run, opened = load(trained / "run"), cache.open_cache(trained / "cache")
    sick = [scan for scan in cache.scans(opened) if scan.patient in ("p02", "p07", "p08")]
    scores, labels = [], []
    for result in volume_scores.score_scans(run, sick, maps=("combi",)):
        assert isinstance(result, volume_scores.VolumeScores)
        assert result.cut.lesion is not None
        scores.append(result.map("combi")[result.cut.brain])
        labels.append(result.cut.lesion[result.cut.brain])
    pooled, truth = np.concatenate(scores), np.concatenate(labels)
    [row] = [row for row in found[0].rows if row["score"] == "combi"]
    assert found[0].caption.startswith("On the scan's own grid, inside the brain; ")
    assert found[0].prevalence == pytest.approx(truth.mean())
    assert row["auroc"] == pytest.approx(auroc(pooled, truth), abs=1e-4)
    assert row["average_precision"] == pytest.approx(average_precision(pooled, truth), abs=1e-3)
    assert row["volumes"] == 3


def test_every_table_has_the_baselines_and_its_thresholds(found):
    assert [table.name for table in found] == ["own_grid", "post_processed", "background", "model_resolution"]
    assert "post-processed: median 3, components >= 2" in found[1].caption
    for table in found:
        assert [row["score"] for row in table.rows] == ["brightness", "equalised_brightness", *SETTINGS.maps]
        assert table.thresholds.keys() == {row["score"] for row in table.rows}
    thresholds = [table.thresholds["combi"]["0.05"] for table in found]
    assert len(set(thresholds)) == 4


def test_the_background_is_healthy_with_scores_of_zero(trained, found):
    """Compared with every voxel pooled here: the brain's maps, and 0 around them."""
    run, opened = load(trained / "run"), cache.open_cache(trained / "cache")
    sick = [scan for scan in cache.scans(opened) if scan.patient in ("p02", "p07", "p08")]
    volumes = list(volume_scores.score_scans(run, sick, maps=("combi",)))
    pooled = np.concatenate([volume.map("combi").ravel() for volume in volumes])
    truth = np.concatenate([volume.cut.lesion.ravel() for volume in volumes])
    inside, everywhere = ({row["score"]: row for row in found[table].rows}["combi"] for table in (0, 2))
    assert everywhere["auroc"] == pytest.approx(auroc(pooled, truth), abs=1e-4)
    assert everywhere["auroc"] > inside["auroc"]


def test_bright_lesions_are_found_by_brightness(found):
    """The lesions of these patients are brighter than everything else, so no model is needed."""
    for table in found:
        rows = {row["score"]: row for row in table.rows}
        assert rows["equalised_brightness"]["auroc"] > 0.9
        assert rows["combi"]["auroc"] > 0.8


def test_volumes_prepared_again_after_training_are_refused(trained, tmp_path, capsys):
    folder = shutil.copytree(trained / "run", tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["volumes"]["hash"] = "0" * 64
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["evaluate", str(folder)]) == 2
    assert "was prepared again since the run was trained on it" in capsys.readouterr().err


def test_baselines_use_the_scan_before_clipping(trained):
    run, opened = load(trained / "run"), cache.open_cache(trained / "cache")
    cut = read_scan(cache.scans(opened)[-1], opened.slicing)
    clipped = {**run.config, "volumes": {"slicing": slices.to_config(Slicing(size=16, clip=0.5)), "hash": ""}}
    whole, cropped = (baseline_volumes(one, cut) for one in (run, run._replace(config=clipped)))
    np.testing.assert_array_equal(whole["brightness"], cropped["brightness"])
    assert whole["brightness"].max() > 2


def test_a_lesion_too_small_for_a_table_leaves_it_empty():
    voxels, lesion, brain = np.ones((3, 3, 3), np.float32), np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    lesion[0], brain[0] = True, False
    one = measure("a", "a", {"x": voxels}, lesion, brain, {})
    table = make_table("own_grid", SETTINGS, [one], {}, [], 0)
    assert (table.rows, table.prevalence) == ([], 0)
    assert table.caption.endswith("0 % of it is anomalous, and 9 of 9 lesion voxels lie outside of it and do not count")


def test_a_caption_counts_the_whole_heads():
    voxels, lesion = np.ones((3, 3, 3), np.float32), np.arange(27).reshape(3, 3, 3) == 13
    brain, head = (
        measure("a", "a", {"x": voxels}, lesion, np.ones((3, 3, 3), bool), {}, head=head) for head in (False, True)
    )
    captions = [
        make_table("own_grid", SETTINGS, measures, {}, [head], 0).caption
        for measures in ([brain, brain], [brain, head], [head, head])
    ]
    assert captions[0] == (
        "On the scan's own grid, inside the brain; 3.7 % of it is anomalous; "
        "the thresholds come from whole heads, on which the run was trained"
    )
    assert "inside the brain (in 1 of 2 volumes the head); " in captions[1]
    assert "inside the head (not skull-stripped, and without a brain mask); " in captions[2]
    assert "thresholds" not in captions[2]


def test_thresholds_prefer_volumes_without_a_lesion(trained):
    run, opened = load(trained / "run"), cache.open_cache(trained / "cache")
    well = [cache.scan_of(record) for record in opened.volumes if not any(record["lesion_voxels"])][:2]
    sick = [cache.scan_of(record) for record in opened.volumes if any(record["lesion_voxels"])][:2]
    both, free, others = (
        make_tables(run, sick, healthy, SETTINGS, resamples=0)[0] for healthy in (well + sick, well, sick)
    )
    assert both.thresholds == free.thresholds != others.thresholds
    assert both.reference == "of 2 volumes set aside"
    assert others.reference == "of 2 volumes set aside, outside their lesions"


def test_stopped_tables_continue_at_the_same_volume(trained, found, tmp_path, monkeypatch):
    run, opened = load(trained / "run"), cache.open_cache(trained / "cache")
    healthy, sick = (
        [scan for scan in cache.scans(opened) if scan.patient in patients]
        for patients in (("p00", "p01"), ("p02", "p07", "p08"))
    )
    scored, score_scans = [], volume_tables.score_scans

    def counted(run, scans, **knobs):
        for result in score_scans(run, scans, **knobs):
            if len(scored) == 4:
                raise KeyboardInterrupt
            scored.append(result.scan.name)
            yield result

    monkeypatch.setattr(volume_tables, "score_scans", counted)
    with pytest.raises(KeyboardInterrupt):
        make_tables(run, sick, healthy, SETTINGS, resamples=50, measures_dir=tmp_path)
    first, scored[:] = list(scored), []
    assert first == [scan.name for scan in [*healthy, *sick]][:4]
    assert make_tables(run, sick, healthy, SETTINGS, resamples=50, measures_dir=tmp_path) == found
    assert scored == [sick[-1].name]
    # The stored measures belong to other thresholds.
    scored.clear()
    make_tables(run, sick, healthy[:1], SETTINGS, resamples=0, measures_dir=tmp_path)
    assert scored == [scan.name for scan in sick]


def test_a_missing_scan_is_named(trained):
    run, opened = load(trained / "run"), cache.open_cache(trained / "cache")
    scan = cache.scans(opened)[0]._replace(image=trained / "gone.nii.gz")
    with pytest.raises(InputError, match=r"gone.nii.gz: no such file"):
        make_tables(run, [scan], [], SETTINGS)


def test_volumes_are_evaluated_and_reported(trained, capsys):
    run, other = str(trained / "run"), str(trained / "other")
    evaluate = ["evaluate", run, "--resamples", "20", "--median", "3"]
    assert main(evaluate) == 0
    printed = capsys.readouterr().out
    assert re.search(r"On the scan's own grid, inside the brain; .* % of it is anomalous; 4 volumes", printed)
    assert re.search(r"threshold that 1 % of the healthy voxels of \d volumes? set aside", printed)
    lines = printed.partition("On the scan's own grid")[2].splitlines()
    assert max(len(line) for line in lines if ";" not in line) < 130
    assert main(["report", run]) == 0
    page = (trained / "run" / "report" / "index.html").read_text()
    assert "script-src 'sha256-" in page
    assert "At the model" in page
    assert main([*evaluate[:2], other, *evaluate[2:]]) == 0
    assert "2 volumes" in capsys.readouterr().out
    assert main(["report", run, other]) == 0
    assert (trained / "run" / "on" / "other" / "report" / "index.html").is_file()
    evaluation = json.loads((trained / "run" / "on" / "other" / "evaluation.json").read_bytes())
    assert len(evaluation["volumes"]) == 3
    assert evaluation["images"]["groups"] == 2
    assert not list(trained.rglob("measures"))
    # The results on another folder of the same name do not replace those of the first.
    elsewhere = shutil.copytree(other, trained / "elsewhere" / "other")
    content = json.loads((elsewhere / "cache.json").read_text())
    (elsewhere / "cache.json").write_text(json.dumps({**content, "hash": "0" * 64}))
    assert main(["evaluate", run, str(elsewhere)]) == 2
    assert re.search(r"on/other: holds the results on .*/other; remove it, or give", capsys.readouterr().err)


def test_training_scans_are_recognised_through_links(trained, tmp_path, capsys):
    linked = tmp_path / "linked"
    for patient in (trained / "patients").iterdir():
        (linked / f"other-{patient.name}").mkdir(parents=True)
        for file in patient.iterdir():
            (linked / f"other-{patient.name}" / file.name).symlink_to(file)
    assert main(["prepare", str(linked), "--out", str(tmp_path / "c"), "--size", "16", *FLAGS]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(trained / "run"), str(tmp_path / "c")]) == 2
    assert "flair.nii.gz, which the run was trained on; name another" in capsys.readouterr().err


def test_a_name_that_is_no_text_is_reported(trained, tmp_path):
    patients = tmp_path / "patients"
    for number in range(4):
        voxels, brain, lesion = head(100 + number, lesion=number > 0)
        for name, values in (("flair", voxels), ("brain", brain), ("lesion", lesion)):
            write_volume(patients / f"M\udcfcller{number}" / f"{name}.nii.gz", values)
    other = str(tmp_path / "c")
    assert main(["prepare", str(patients), "--out", other, "--size", "16", *FLAGS]) == 0
    run = str(trained / "run")
    assert main(["evaluate", run, other, "--resamples", "0", "--median", "0"]) == 0
    assert main(["report", run, other]) == 0
    assert "M?ller1" in (trained / "run" / "on" / "c" / "report" / "index.html").read_text()


def test_an_evaluation_on_others_gives_the_mask_threshold(trained, tmp_path):
    run = shutil.copytree(trained / "run", tmp_path / "run")
    (run / "evaluation.json").unlink(missing_ok=True)
    shutil.rmtree(run / "on", ignore_errors=True)
    assert main(["evaluate", str(run), str(trained / "other"), "--resamples", "0", "--median", "0"]) == 0
    score = ["score", str(run), str(trained / "other"), "--out", str(tmp_path / "out"), "--maps", "rec_error", "combi"]
    assert main(score) == 0
    evaluation = json.loads((run / "on" / "other" / "evaluation.json").read_text())
    records = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("flair.json")]
    wanted = evaluation["volumes"][0]["thresholds"]["rec_error"]["0.01"]
    assert [record["threshold"] for record in records] == [wanted, wanted]


def test_wrong_arguments_are_refused(trained, tmp_path, capsys):
    run, patients = str(trained / "run"), str(trained / "strangers")
    assert main(["prepare", patients, "--out", str(tmp_path / "c24"), "--size", "24", *FLAGS]) == 0
    train = ["train", run, "--data", str(trained / "cache")]
    capsys.readouterr()
    for arguments, message in [
        (["evaluate", run, str(tmp_path / "c24")], "size=24"),
        (["evaluate", run, str(trained / "cache")], "p00/flair.nii.gz, which the run was trained on"),
        (["evaluate", run, str(tmp_path)], "no prepared volumes in it"),
        (["evaluate", run, "--median", "4"], "--median 4: must be odd, or 0"),
        (["evaluate", run, "--components", "-1"], "--components -1: must be at least 0"),
        (["report", run, str(tmp_path / "c24")], "not evaluated yet; run `jaxvae evaluate"),
        (["train", str(tmp_path / "r"), *train[2:], "--features", *"23456"], "prepare them again with --size 32"),
        ([*train, "--size", "32"], "--size 32: volumes have the size they were prepared with"),
        ([*train, "--normalise", "zscore"], "--normalise zscore: only goes with a folder of images"),
        (
            ["train", str(tmp_path / "r"), "--data", str(trained / "patients")],
            "first run `jaxvae prepare",
        ),
    ]:
        assert main(arguments) == 2, arguments
        complaint = capsys.readouterr().err
        assert message in complaint, complaint
        assert complaint.strip().count("\n") == 0
