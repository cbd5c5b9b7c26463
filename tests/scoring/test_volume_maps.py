"""Maps of volumes on the scan's own grid do not depend on the batch, the order, or an interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import nibabel as nib
import numpy as np
import pytest

from jaxvae import score_batches
from jaxvae.cli import main
from jaxvae.data.volumes import scans, slices, volume_files
from jaxvae.data.volumes.prepared_scan import read_scan
from jaxvae.runs.run import load
from jaxvae.scoring import volume_maps, volume_scores
from jaxvae.scoring.writing import MapSettings
from scan_folders import FLAGS, PATTERNS, head, write_patients, write_volume

MAPS = ("combi", "rec_error")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `patients`, `cache` and a short `run`."""
    folder = tmp_path_factory.mktemp("volumes")
    write_patients(folder / "patients", healthy=4, sick=3)
    prepared = ["prepare", str(folder / "patients"), "--out", str(folder / "cache"), "--size", "16", *FLAGS]
    assert main(prepared) == 0
    small = ["--features", "4", "8", "--latent-size", "4", "--batch-size", "8", "--epochs", "2"]
    assert main(["train", str(folder / "run"), "--data", str(folder / "cache"), *small]) == 0
    return folder


def flairs(folder: Path) -> list[scans.Scan]:
    return scans.find(folder / "patients", **PATTERNS)[0]


def written(out: Path) -> dict[str, bytes]:
    """All files but those with times."""
    there = (path for path in out.rglob("*") if path.is_file() and not path.name.startswith("times"))
    return {str(path.relative_to(out)): path.read_bytes() for path in there}


@pytest.mark.parametrize("batch_size", [5, 64])
def test_maps_equal_the_slices_put_back(trained, tmp_path, batch_size):
    """Each volume is compared with its slices scored alone; batches span volumes."""
    run = load(trained / "run")
    outcome = volume_maps.write_volumes(run, flairs(trained), tmp_path, MapSettings(MAPS, batch_size=batch_size))
    assert (len(outcome.records), outcome.skipped, outcome.failed) == (7, 0, [])
    for scan in flairs(trained):
        cut = read_scan(scan, volume_scores.slicing_of(run))
        [alone] = score_batches(run.model, run.params, cut.slices.images, batch_size=64, maps=MAPS)
        record = json.loads((tmp_path / f"{scan.name}.json").read_bytes())
        assert record["planes"] == list(cut.slices.placement.planes)
        np.testing.assert_allclose(record["slices"]["kl"], alone.samples.kl, rtol=1e-4)
        assert record["volume"]["elbo"] == pytest.approx(np.mean(alone.samples.elbo), rel=1e-5)
        image: Any = nib.load(scan.image)
        for name in MAPS:
            path = tmp_path / Path(scan.name).parent / record["maps"][name]
            there: Any = nib.load(path)
            assert there.shape == image.shape
            np.testing.assert_array_equal(there.affine, image.affine)
            values = volume_files.read(path).voxels
            expected = slices.put_back(alone.maps[name], cut.slices.placement, cut.brain)
            np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-6)
            assert not values[~cut.brain].any()
            assert record["highest"][name] == pytest.approx(values.max())


def test_bad_files_are_reported_and_the_others_scored(trained, tmp_path, capsys):
    folder = tmp_path / "scans"
    for i in range(3):
        write_volume(folder / f"s{i}.nii.gz", head(i)[0])
    (folder / "broken.nii.gz").write_bytes((folder / "s0.nii.gz").read_bytes()[:500])
    (folder / "empty.nii").touch()
    write_volume(folder / "flat.nii.gz", np.ones((9, 9, 9), np.float32))
    arguments = ["score", str(trained / "run"), str(folder), "--out", str(tmp_path / "out"), "--maps", "combi"]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert "3 volumes scored (combi)" in printed.out
    assert f"failed: {folder}/broken.nii.gz: ends too early" in printed.out
    assert printed.err.strip().splitlines()[-1] == (
        f"jaxvae: {folder}: 3 of 6 volumes could not be scored; {tmp_path / 'out' / 'failed.jsonl'} says why"
    )
    failed = [json.loads(line) for line in (tmp_path / "out" / "failed.jsonl").read_text().splitlines()]
    assert [Path(line["path"]).name for line in failed] == ["broken.nii.gz", "empty.nii", "flat.nii.gz"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == [
        f"s{i}_{what}.nii.gz" for i in range(3) for what in ("combi", "mask")
    ]
    # Once the bad files are gone, the same command succeeds and scores nothing twice.
    for name in ("broken.nii.gz", "empty.nii", "flat.nii.gz"):
        (folder / name).unlink()
    assert main(arguments) == 0
    assert "0 volumes scored (combi), 3 were there already" in capsys.readouterr().out
    assert (tmp_path / "out" / "failed.jsonl").read_text() == ""


def test_names_that_lead_out_of_the_folder_are_refused(trained, tmp_path, capsys):
    """Names of prepared volumes fail one by one; patterns are refused before anything is read."""
    run, out = trained / "run", tmp_path / "deep" / "out"
    first, second, third = flairs(trained)[:3]
    named = [first._replace(name="../outside"), second._replace(name=str(tmp_path / "outside")), third]
    outcome = volume_maps.write_volumes(load(run), named, out, MapSettings(("combi",)))
    assert len(outcome.records) == 1
    assert [("leads out of" in one.reason, one.path) for one in outcome.failed] == [(True, s.image) for s in named[:2]]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    (tmp_path / "empty").mkdir()
    images = str(Path(os.path.relpath(trained / "patients", tmp_path / "empty")) / "*" / "flair.nii.gz")
    assert main(["score", str(run), str(tmp_path / "empty"), "--out", str(out), "--images", images]) == 2
    assert "must match files below" in capsys.readouterr().err


def test_masks_that_serve_several_scans_are_reported(trained, tmp_path, capsys):
    for name in ("p_t1", "p_t2"):
        write_volume(tmp_path / "in" / f"{name}.nii.gz", head(0)[0])
    write_volume(tmp_path / "in" / "p_brain.nii.gz", head(0)[1])
    flags = ["--images", "*_t?.nii.gz", "--brains", "{0}_brain.nii.gz", "--maps", "combi"]
    assert main(["score", str(trained / "run"), str(tmp_path / "in"), "--out", str(tmp_path / "out"), *flags]) == 0
    assert "1 brain mask serves several scans, such as p_brain.nii.gz for p_t1 and p_t2" in capsys.readouterr().out


def test_shards_together_write_the_same_files(trained, tmp_path):
    scans_folder = str(trained / "cache")
    score = ["score", str(trained / "run"), scans_folder, "--maps", *MAPS]
    assert main([*score, "--out", str(tmp_path / "one")]) == 0
    for i in range(3):
        assert main([*score, "--out", str(tmp_path / "three"), "--shard", f"{i}/3"]) == 0
    assert written(tmp_path / "three") == written(tmp_path / "one")
    assert len(written(tmp_path / "one")) == 7 * 4 + 1
    assert len(list((tmp_path / "three").glob("times-*of3.jsonl"))) == 3


def test_scores_of_another_scan_mask_or_run_are_refused(trained, tmp_path, capsys):
    folder, out = tmp_path / "scans", tmp_path / "out"
    write_volume(folder / "a.nii.gz", head(0)[0])
    score = ["score", str(trained / "run"), str(folder), "--out", str(out), "--maps", "combi"]
    assert main(score) == 0
    capsys.readouterr()
    write_volume(folder / "a_brain.nii.gz", head(0)[1])
    assert main([*score, "--brains", "{0}{1}_brain.nii.gz"]) == 2
    assert "holds the scores of another scan or brain mask of this name" in capsys.readouterr().out
    (folder / "a_brain.nii.gz").unlink()
    write_volume(folder / "a.nii.gz", head(1)[0])
    write_volume(folder / "b.nii.gz", head(2)[0])
    (out / "b_combi.nii.gz").mkdir()
    write_volume(folder / "c.nii.gz", head(3)[0])
    assert main(score) == 2
    captured = capsys.readouterr()
    assert f"failed: {out / 'a.json'}: holds the scores of another scan" in captured.out
    assert f"failed: {folder / 'b.nii.gz'}: {out / 'b_combi.nii.gz'}: cannot be written" in captured.out
    assert "1 volume scored" in captured.out
    assert "2 of 3 volumes could not be scored" in captured.err
    failed = [Path(json.loads(line)["path"]).name for line in (out / "failed.jsonl").read_text().splitlines()]
    assert failed == ["a.nii.gz", "b.nii.gz"]
    assert (out / "c.json").is_file()
    other = shutil.copytree(trained / "run", tmp_path / "run")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "seed": 5}))
    assert main(["score", str(other), *score[2:]]) == 2
    assert "was made with seed 0, now 5" in capsys.readouterr().err


def test_a_mask_is_where_the_first_map_reaches_the_threshold(trained, tmp_path, capsys):
    score = ["score", str(trained / "run"), str(trained / "cache"), "--out", str(tmp_path), "--maps", *MAPS[::-1]]
    assert main(score) == 0
    threshold = json.loads((trained / "run" / "thresholds.json").read_text())["thresholds"]["rec_error"]["0.01"]
    assert {json.loads(path.read_text())["threshold"] for path in tmp_path.rglob("flair.json")} == {threshold}
    values = nib.load(tmp_path / "p00" / "flair_rec_error.nii.gz").get_fdata()
    threshold = float(np.quantile(values, 0.99))
    moments = {}
    for given in (threshold, threshold, 0.0):
        assert main([*score, "--threshold", str(given)]) == 0
        mask = nib.load(tmp_path / "p00" / "flair_mask.nii.gz")
        assert mask.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(mask.affine, nib.load(tmp_path / "p00" / "flair_rec_error.nii.gz").affine)
        inside = nib.load(trained / "patients" / "p00" / "brain.nii.gz").get_fdata() > 0
        np.testing.assert_array_equal(mask.get_fdata() > 0, (values >= given) & inside)
        moments.setdefault(given, set()).add((tmp_path / "p00" / "flair_mask.nii.gz").stat().st_mtime_ns)
    assert [len(seen) for seen in moments.values()] == [1, 1]
    assert (
        "p00/flair and 6 more: scored again: a file was missing, or the threshold has changed"
        in capsys.readouterr().out
    )
    # A volume with a missing map is scored again.
    (tmp_path / "p01" / "flair_combi.nii.gz").unlink()
    assert main([*score, "--threshold", "0.0"]) == 0
    assert (tmp_path / "p01" / "flair_combi.nii.gz").is_file()
    # A volume without its record is scored again.
    (tmp_path / "p00" / "flair.json").unlink()
    assert main([*score, "--threshold", "0.0"]) == 0


def test_without_a_threshold_old_masks_are_removed(trained, tmp_path, capsys):
    run = shutil.copytree(trained / "run", tmp_path / "run")
    score = ["score", str(run), str(trained / "cache"), "--out", str(tmp_path / "out"), "--maps", "combi"]
    assert main(score) == 0
    assert len(list((tmp_path / "out").rglob("*_mask.nii.gz"))) == 7
    stats = json.loads((run / "thresholds.json").read_text())
    (run / "thresholds.json").write_text(json.dumps({**stats, "thresholds": {}}))
    capsys.readouterr()
    assert main(score) == 0
    assert "no threshold, and so no masks: the run has no validation images" in capsys.readouterr().out
    assert not list((tmp_path / "out").rglob("*_mask.nii.gz"))


def test_a_scan_interrupted_while_scored_again_is_not_done(trained, tmp_path, monkeypatch):
    run = load(trained / "run")
    volume_maps.write_volumes(run, flairs(trained)[:1], tmp_path, MapSettings(("combi",), 0.0))
    written_json = volume_maps.files.write_json

    def stopped(path, value):
        if path.name == "flair.json":
            raise KeyboardInterrupt
        written_json(path, value)

    monkeypatch.setattr(volume_maps.files, "write_json", stopped)
    with pytest.raises(KeyboardInterrupt):
        volume_maps.write_volumes(run, flairs(trained)[:1], tmp_path, MapSettings(("combi",), 1e9))
    monkeypatch.undo()
    outcome = volume_maps.write_volumes(run, flairs(trained)[:1], tmp_path, MapSettings(("combi",), 0.0))
    assert (len(outcome.records), outcome.skipped) == (1, 0)
    assert nib.load(tmp_path / "p00" / "flair_mask.nii.gz").get_fdata().any()


@pytest.mark.parametrize("name", ["settings.nii.gz", "M\udcfcller.nii.gz", "Müller.nii.gz", "a[1].nii.gz"])
def test_any_file_name_is_accepted(trained, tmp_path, name):
    folder = tmp_path / "scans"
    write_volume(folder / "x.nii.gz", head(0)[0]).rename(folder / name)
    for _ in range(2):
        score = ["score", str(trained / "run"), str(folder), "--out", str(tmp_path / "out"), "--maps", "combi"]
        assert main(score) == 0
    assert [path.name for path in (tmp_path / "out").glob("*_combi.nii.gz")] == [name.replace(".nii", "_combi.nii")]


def test_wrong_arguments_are_refused(trained, tmp_path, capsys):
    run, folder = str(trained / "run"), str(trained / "cache")
    assert main(["score", run, folder, "--out", str(tmp_path / "o"), "--maps", "combi"]) == 0
    capsys.readouterr()
    for arguments, message in [
        ([folder, "--out", str(tmp_path / "o"), "--maps", "rec_error"], 'made with maps ["combi"], now ["rec_error"]'),
        ([folder, "--out", f"{folder}/o"], "is inside"),
        ([folder, "--shard", "3/3"], "--shard 3/3: must be I/N"),
        ([folder, "--shard", "x"], "--shard x: must be I/N"),
        ([folder, "--format", "tiff"], "--format tiff: only goes with images"),
        ([folder, "--threshold", "nan"], "--threshold nan: must be a finite number"),
        ([str(trained / "patients"), "--brains", "{2}.nii"], "--brains {2}.nii: can use {0} to {1}"),
        ([folder, "--images", "*"], "--images *: "),
        ([str(trained / "patients"), "--images", "*_t2.nii"], "no volume at *_t2.nii"),
        ([str(tmp_path / "none.nii")], "none.nii: no such file or folder"),
    ]:
        assert main(["score", run, *arguments]) == 2, arguments
        complaint = capsys.readouterr().err
        assert message in complaint
        assert complaint.strip().count("\n") == 0


@pytest.mark.slow
def test_a_killed_folder_continues_to_the_same_bytes(trained, tmp_path):
    """SIGKILL at several moments; volumes that were done before the last start are not written again."""
    folder = tmp_path / "scans"
    for i in range(15):
        write_volume(folder / f"s{i:02d}.nii.gz", head(i, shape=(48, 56, 40))[0])
    score = [sys.executable, "-m", "jaxvae", "score", str(trained / "run"), str(folder), "--maps", *MAPS, "--out"]
    # One thread of XLA's: on a busy machine two were once seen to make other last bits in 8 of 73 files.
    environment = {**os.environ, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    subprocess.run([*score, str(tmp_path / "whole")], check=True, capture_output=True, env=environment)
    killed, seen = 0, 0
    for _ in range(40):
        process = subprocess.Popen([*score, str(tmp_path / "out")], stdout=subprocess.DEVNULL, env=environment)
        wanted = seen + 2
        while process.poll() is None and len(list((tmp_path / "out").glob("*.json"))) < wanted + 1:
            time.sleep(0.01)
        if process.poll() is not None:
            assert process.returncode == 0
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        killed += 1
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("s*.json")}
        seen = len(before)
    assert killed >= 3
    found, expected = written(tmp_path / "out"), written(tmp_path / "whole")
    assert found.keys() == expected.keys()
    assert [name for name, content in expected.items() if found[name] != content] == []
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    assert not list((tmp_path / "out").glob(".*.part"))


def test_a_stale_part_is_removed(trained, tmp_path):
    (tmp_path / "p00").mkdir()
    stale = tmp_path / "p00" / ".flair_combi.nii.gz.0123.part"
    stale.touch()
    run = load(trained / "run")
    volume_maps.write_volumes(run, flairs(trained)[:1], tmp_path, MapSettings(("combi",)))
    assert not stale.exists()


def test_a_volume_with_infinite_scores_fails_alone(trained, tmp_path):
    run = load(trained / "run")
    broken = run._replace(params=jax.tree.map(lambda leaf: 1e30 * leaf, run.params))
    outcome = volume_maps.write_volumes(broken, flairs(trained)[:2], tmp_path, MapSettings(("combi",)))
    assert len(outcome.records) == 0
    assert [one.path.parent.name for one in outcome.failed] == ["p00", "p01"]
    assert "is NaN or infinite" in outcome.failed[0].reason
