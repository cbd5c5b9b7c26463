"""The cache of prepared volumes: its content, its checks, and continued preparations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from jaxvae import files
from jaxvae.cli import main
from jaxvae.data.volumes import cache, cache_writer, gzip_files, scans
from jaxvae.data.volumes.prepared_scan import LIKE_A_MASK, PreparedScan
from jaxvae.data.volumes.slices import Slicing, cut
from jaxvae.errors import InputError
from scan_folders import FLAGS, PATTERNS, head, write_patients, write_volume

SLICING = Slicing(size=16)


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patients(tmp_path_factory.mktemp("data") / "patients")


@pytest.fixture(scope="module")
def cached(patients: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cache to copy."""
    directory = tmp_path_factory.mktemp("cache") / "c"
    prepared(patients, directory)
    return directory


def prepared(patients: Path, out: Path, slicing: Slicing = SLICING, **patterns: str) -> list[scans.Rejected]:
    return cache_writer.prepare(out, *scans.find(patients, **{**PATTERNS, **patterns}), slicing)


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_cache_holds_the_slices_of_every_volume(patients, tmp_path):
    assert prepared(patients, tmp_path / "c") == []
    opened = cache.open_cache(tmp_path / "c")
    assert opened.slicing == SLICING
    assert opened.masks is not None
    assert sorted(content(tmp_path / "c")) == [
        "brains.npy",
        "cache.json",
        "images.npy",
        "masks.npy",
        "rejected.jsonl",
        "volumes.jsonl",
    ]
    for number, record in enumerate(opened.volumes):
        voxels, brain, lesion = head(number, lesion=number >= 6)
        expected = cut(voxels, brain, (2.0, 2.0, 2.0), SLICING)
        part = slice(record["start"], record["stop"])
        np.testing.assert_allclose(opened.images[part], expected.images, atol=1e-5)
        np.testing.assert_array_equal(opened.brains[part], expected.brains)
        assert record["placement"] == json.loads(json.dumps(expected.placement._asdict()))
        assert record["lesion_voxels"] == lesion.sum(axis=(0, 1)).tolist()
        assert opened.masks[part].any() == (number >= 6)
        assert cache.scan_of(record).image == patients / f"p{number:02d}" / "flair.nii.gz"


def test_caches_are_split_by_patient(patients, tmp_path):
    prepared(patients, tmp_path / "c")
    splits = cache.load(tmp_path / "c", validation=0.25, test=0.3, seed=1)
    groups = [set(part.groups) for part in (splits.train, splits.validation, splits.test)]
    assert [len(names) for names in groups] == [5, 2, 3]
    assert len(set.union(*groups)) == 10
    assert not splits.train.labels.any()
    assert splits.train.masks is None
    assert splits.test.masks is not None
    opened = cache.open_cache(tmp_path / "c")
    drawn = [record for record in opened.volumes if record["patient"] in groups[2]]
    assert len(splits.test) == sum(record["stop"] - record["start"] for record in drawn)
    planes = [np.array(record["lesion_voxels"])[record["placement"]["planes"]] for record in drawn]
    assert splits.test.labels.sum() == np.count_nonzero(np.concatenate(planes))


def test_slices_with_a_lesion_in_a_neighbour_are_not_trained_on(patients, tmp_path):
    for neighbours in (0, 1):
        prepared(patients, tmp_path / f"c{neighbours}", Slicing(size=16, neighbours=neighbours))
    alone, several = (cache.load(tmp_path / f"c{n}", validation=0, test=0.1).train for n in (0, 1))
    opened = cache.open_cache(tmp_path / "c0")
    lost = set(alone.names) - set(several.names)
    voxels = {record["name"]: record["lesion_voxels"] for record in opened.volumes}
    for name in lost:
        volume, _, z = name.rpartition("/")
        assert voxels[volume][int(z)] == 0
        assert voxels[volume][int(z) - 1] + voxels[volume][int(z) + 1] > 0
    assert len(lost) >= 6


def test_a_truncated_part_is_prepared_again(patients, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_writer, "_assemble", lambda *_: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception):
        prepared(patients, tmp_path / "c")
    monkeypatch.undo()
    (tmp_path / "c" / "parts" / "000003.npz").write_bytes(b"")
    prepared(patients, tmp_path / "c")
    prepared(patients, tmp_path / "whole")
    assert content(tmp_path / "c") == content(tmp_path / "whole")


def parts_of_a_killed_run(patients, directory, monkeypatch):
    """The parts of a preparation that was killed before they were joined."""
    monkeypatch.setattr(cache_writer, "_assemble", lambda *_: exit())
    with pytest.raises(SystemExit):
        prepared(patients, directory)
    monkeypatch.undo()
    return sorted((directory / "parts").glob("*.npz"))


def test_a_corrected_mask_is_noticed(patients, tmp_path, monkeypatch):
    folder = shutil.copytree(patients, tmp_path / "patients")
    prepared(folder, tmp_path / "finished")
    parts_of_a_killed_run(folder, tmp_path / "killed", monkeypatch)
    mask = folder / "p00" / "lesion.nii.gz"
    write_volume(mask, head(9, lesion=True)[2])
    for stale in (
        lambda: prepared(folder, tmp_path / "finished"),
        lambda: cache.scans(cache.open_cache(tmp_path / "finished")),
    ):
        with pytest.raises(InputError, match=r"finished: .*p00/lesion.nii.gz has changed since it was prepared"):
            stale()
    assert len(cache.scans(cache.open_cache(tmp_path / "finished"), ["p01"])) == 1
    prepared(folder, tmp_path / "killed")
    prepared(folder, tmp_path / "new")
    assert content(tmp_path / "killed") == content(tmp_path / "new")
    mask.unlink()  # Of a file that is gone nobody knows.
    assert len(cache.scans(cache.open_cache(tmp_path / "new"))) == 10


def test_without_lesions_everything_is_healthy(patients, tmp_path):
    there, _ = scans.find(patients, images=PATTERNS["images"], brains=PATTERNS["brains"])
    cache_writer.prepare(tmp_path / "c", there, [], SLICING)
    opened = cache.open_cache(tmp_path / "c")
    assert opened.masks is None
    splits = cache.load(tmp_path / "c", validation=0.2)
    assert len(splits.test) == 0
    assert (len(splits.train) + len(splits.validation)) == len(opened.images)


@pytest.mark.parametrize("done", [0, 4, 10])
def test_a_killed_preparation_continues_to_the_same_bytes(patients, tmp_path, monkeypatch, done):
    prepared(patients, tmp_path / "whole")
    read, calls = cache_writer.read_scan, []

    def read_some(scan: scans.Scan, slicing: Slicing) -> PreparedScan:
        calls.append(scan.name)
        if len(calls) > done:
            raise KeyboardInterrupt
        return read(scan, slicing)

    monkeypatch.setattr(cache_writer, "read_scan", read_some)
    monkeypatch.setattr(cache_writer, "_assemble", lambda *_: pytest.fail("killed") if done < 10 else exit())
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        prepared(patients, tmp_path / "c")
    monkeypatch.undo()
    assert len(list((tmp_path / "c" / "parts").glob("*.npz"))) == done
    with pytest.raises(InputError, match="its preparation was stopped; repeat the command"):
        cache.open_cache(tmp_path / "c")
    monkeypatch.setattr(
        cache_writer, "read_scan", lambda scan, slicing: (calls.append(scan.name), read(scan, slicing))[1]
    )
    calls.clear()
    prepared(patients, tmp_path / "c")
    assert len(calls) == 10 - done
    assert content(tmp_path / "c") == content(tmp_path / "whole")
    prepared(patients, tmp_path / "c")  # finished: nothing is done
    assert len(calls) == 10 - done


def test_half_a_part_is_prepared_again(patients, tmp_path, monkeypatch):
    prepared(patients, tmp_path / "whole")
    part = parts_of_a_killed_run(patients, tmp_path / "c", monkeypatch)[3]
    part.write_bytes(part.read_bytes()[:-100])
    prepared(patients, tmp_path / "c")
    assert content(tmp_path / "c") == content(tmp_path / "whole")


def test_a_damaged_part_is_named_and_prepared_again(patients, tmp_path, monkeypatch):
    prepared(patients, tmp_path / "whole")
    part = parts_of_a_killed_run(patients, tmp_path / "c", monkeypatch)[3]
    damaged = bytearray(part.read_bytes())
    damaged[500:600] = bytes(byte ^ 255 for byte in damaged[500:600])
    part.write_bytes(damaged)
    with pytest.raises(InputError, match=r"000003.npz: was damaged and was removed; run the same command again"):
        prepared(patients, tmp_path / "c")
    prepared(patients, tmp_path / "c")
    assert content(tmp_path / "c") == content(tmp_path / "whole")


def test_partial_arrays_of_a_killed_preparation_are_removed(patients, tmp_path, monkeypatch):
    parts_of_a_killed_run(patients, tmp_path / "c", monkeypatch)
    (tmp_path / "c" / ".images.npy.0123.part").touch()
    prepared(patients, tmp_path / "c")
    assert not list((tmp_path / "c").glob(".*.part"))


def test_a_damaged_cache_is_named(patients, tmp_path):
    prepared(patients, tmp_path / "c")
    (tmp_path / "c" / "cache.json").write_text("{")
    with pytest.raises(InputError, match=r"c/cache.json: not JSON \(.*\); remove that folder and start again"):
        prepared(patients, tmp_path / "c")


def test_unreadable_scans_are_rejected_with_a_reason(patients, tmp_path):
    folder = shutil.copytree(patients, tmp_path / "patients")
    (folder / "p01" / "flair.nii.gz").write_bytes(b"")
    (folder / "p02" / "brain.nii.gz").unlink()
    write_volume(folder / "p03" / "lesion.nii.gz", head(3, shape=(20, 28, 16))[1])
    left_out = prepared(folder, tmp_path / "c")
    reasons = {one.path.parent.name: one.reason for one in left_out}
    assert reasons["p01"] == f"{folder / 'p01' / 'flair.nii.gz'}: is empty; copy it again"
    assert reasons["p02"] == f"{folder / 'p02' / 'flair.nii.gz'}: its mask p02/brain.nii.gz is missing"
    assert "lesion.nii.gz: 20x28x16 voxels, but" in reasons["p03"]
    lines = [json.loads(line) for line in (tmp_path / "c" / "rejected.jsonl").read_text().splitlines()]
    assert {Path(line["path"]).parent.name for line in lines} == {"p01", "p02", "p03"}
    assert len(cache.open_cache(tmp_path / "c").volumes) == 7
    for path in folder.glob("*/flair.nii.gz"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"none of 10 scans could be read; the first: "):
        prepared(folder, tmp_path / "none")
    with pytest.raises(
        InputError,
        match=r"none of 10 scans can be used; the first: .*flair.nii.gz: its mask p00/seg.nii is missing",
    ):
        prepared(folder, tmp_path / "none", lesions="{0}/seg.nii")
    assert not (tmp_path / "none").exists()


def test_another_preparation_in_the_same_folder_is_refused(patients, tmp_path):
    prepared(patients, tmp_path / "c")
    with pytest.raises(InputError, match=r"was made with size 16, now 24; use those settings again"):
        prepared(patients, tmp_path / "c", Slicing(size=24))
    with pytest.raises(InputError, match="from other scans or masks"):
        prepared(patients, tmp_path / "c", images="p0[0-4]/flair.nii.gz", brains="p01/brain.nii.gz", lesions="p01/l*")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(InputError, match="exists and is not a folder of prepared volumes"):
        prepared(patients, tmp_path / "other")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "plan.json").write_text('{"programs": []}')
    with pytest.raises(InputError, match=r"sweep: its plan\.json is damaged or not of prepared volumes"):
        prepared(patients, tmp_path / "sweep")


def test_open_cache_refuses_damaged_files(patients, tmp_path):
    prepared(patients, tmp_path / "c")
    images = np.load(tmp_path / "c" / "images.npy")
    np.save(tmp_path / "c" / "images.npy", images[1:])
    with pytest.raises(InputError, match="its files do not fit"):
        cache.open_cache(tmp_path / "c")
    (tmp_path / "c" / "images.npy").write_bytes(b"")
    with pytest.raises(InputError, match="damaged, or of another version"):
        cache.open_cache(tmp_path / "c")
    with pytest.raises(InputError, match="no prepared volumes in it"):
        cache.open_cache(tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": "../../outside"}, "leads out"),
        ({"name": "/outside"}, "leads out"),
        ({"name": ""}, "cannot name its results"),
        ({"name": 7}, "name is 7"),
        ({"patient": None}, "patient is null"),
        ({"lesion_voxels": "none"}, 'lesion_voxels is "none"'),
        ({"lesion_voxels": [0]}, "its lesion_voxels do not fit its planes"),
        ({"placement": {"shape": [24, 28, 16], "planes": [99]}}, "its planes are outside the volume"),
        ({"files": {"Image": None}}, "its files have the unknown kind 'Image'"),
        ({"placement": {"shape": [24, 28, 16], "planes": []}}, "its files do not fit"),
    ],
)
def test_contradictory_lines_are_refused(cached, tmp_path, change, problem):
    directory = shutil.copytree(cached, tmp_path / "c")
    lines = files.read_lines(directory / "volumes.jsonl")
    files.write_lines(directory / "volumes.jsonl", [lines[0] | change, *lines[1:]])
    with pytest.raises(InputError, match=rf"c: damaged, or of another version.*{problem}.*; prepare it again"):
        cache.open_cache(directory)


@pytest.mark.parametrize("dtype", ["<f8", "|u1"])
def test_arrays_of_another_type_or_size_are_refused(cached, tmp_path, dtype):
    directory = shutil.copytree(cached, tmp_path / "c")
    images = np.load(directory / "images.npy")
    for damaged in (images.astype(dtype), images[:, :-1], images[..., 0]):
        np.save(directory / "images.npy", damaged)
        with pytest.raises(InputError, match="its files do not fit; prepare it again"):
            cache.open_cache(directory)


@pytest.mark.parametrize("slicing", [None, {}, {"size": 8}, {"size": "8"}, {"colour": 1}, {"percentiles": 5}])
def test_a_slicing_of_another_version_is_refused(cached, tmp_path, slicing):
    directory = shutil.copytree(cached, tmp_path / "c")
    content = files.read_json(directory / "cache.json")
    whole = content["slicing"] | slicing if slicing and "size" not in slicing else slicing
    files.write_json(directory / "cache.json", content | {"slicing": whole})
    with pytest.raises(InputError, match=r"c: damaged, or of another version \(.*slicing.*\); prepare it again"):
        cache.open_cache(directory)


def test_prepare_reports_results_and_errors_in_one_line(patients, tmp_path, capsys):
    out = tmp_path / "c"
    assert main(["prepare", str(patients), "--out", str(out), "--size", "16", *FLAGS]) == 0
    printed = capsys.readouterr().out
    assert "slices of 16x16 from 10 volumes of 10 patients" in printed
    assert f"next: `jaxvae train RUN --data {out}`" in printed
    for arguments, message in [
        ([str(patients)], "--out is missing"),
        ([str(patients), "--out", str(patients / "x")], "is inside"),
        ([str(patients), "--out", str(out), "--size", "24", *FLAGS], "was made with size 16, now 24"),
        ([str(tmp_path / "none"), "--out", str(out)], "no such folder"),
        ([str(patients), "--out", str(tmp_path / "d"), "--images", "*.nrrd"], "no volume at *.nrrd"),
        ([f"fashion_mnist:{tmp_path}", "--out", str(out)], "only goes with a folder of volumes"),
    ]:
        assert main(["prepare", *arguments]) == 2
        complaint = capsys.readouterr().err
        assert message in complaint
        assert complaint.count("\n") == 1


def test_patients_without_fetched_files_are_rejected_by_name(tmp_path, capsys):
    """A datalad clone has broken links, and a git-annex pointer instead of the mask of patient 2."""
    folder, lesions = tmp_path / "ds", tmp_path / "ds/derivatives/lesions"
    scans_of = {i: folder / f"sub-{i}/anat/sub-{i}_T2w.nii.gz" for i in range(5)}
    masks = {i: lesions / f"sub-{i}/anat/sub-{i}_label-lesion_mask.nii.gz" for i in range(3)}
    for i, path in scans_of.items():
        write_volume(path, head(i, lesion=i < 3)[0])
    for i, path in masks.items():
        write_volume(path, head(i, lesion=True)[2])
    masks[2].write_text("/annex/objects/MD5E-s1--d41d8cd98f00b204e9800998ecf8427e.nii.gz\n")
    for path in (masks[1], scans_of[4]):
        path.unlink()
        path.symlink_to("../../.git/annex/objects/MD5E-s1--d41d8cd98f00b204e9800998ecf8427e.nii.gz")
    assert main(["prepare", str(folder), "--out", str(tmp_path / "c"), "--size", "16"]) == 0
    printed = capsys.readouterr().out
    assert f"left out: {scans_of[1]}: its mask {masks[1]}: its content was not fetched" in printed
    assert f"left out: {scans_of[4]}: its content was not fetched" in printed
    assert f"left out: {masks[2]}: " in printed
    assert "1 of 2 scans have no lesion mask and count as healthy, such as sub-3/" in printed
    assert "3 left out" in printed
    sick = {line["patient"]: any(line["lesion_voxels"]) for line in cache.open_cache(tmp_path / "c").volumes}
    assert sick == {"0": True, "3": False}


def test_label_maps_among_the_scans_are_reported(tmp_path, capsys):
    voxels, brain, _ = head(0)
    for name, values in (("scan", voxels), ("tissue", np.where(brain, 1.0 + (voxels > 110), 0.0))):
        write_volume(tmp_path / "mixed" / f"{name}.nii.gz", values)
    prepare = ["prepare", str(tmp_path / "mixed"), "--size", "16", "--out"]
    assert main([*prepare, str(tmp_path / "guessed")]) == 0
    assert [record["name"] for record in cache.open_cache(tmp_path / "guessed").volumes] == ["scan"]
    assert "1 left out" in capsys.readouterr().out
    (left_out,) = (tmp_path / "guessed" / "rejected.jsonl").read_text().splitlines()
    assert f"tissue.nii.gz: {LIKE_A_MASK}; give `images`, `brains` and `lesions` patterns" in left_out
    assert main([*prepare, str(tmp_path / "c"), "--images", "*.nii.gz"]) == 0
    assert f"1 x {LIKE_A_MASK}" in capsys.readouterr().out
    told = {record["name"]: record["warnings"] for record in cache.open_cache(tmp_path / "c").volumes}
    assert told == {"scan": [], "tissue": [LIKE_A_MASK]}


def test_prepared_brats_scans_keep_their_lesions(data, tmp_path):
    """Four BraTS patients with different negative backgrounds, a slab, and masks of 0.99999997."""
    patterns = {
        "images": "*/*/Flair*.nii.gz",
        "brains": "{0}/{1}/brainmask.nii.gz",
        "lesions": "{0}/{1}/OTMultiClass.nii.gz",
    }
    there, rejected = scans.find(data / "brats2015-subset", **patterns)
    assert cache_writer.prepare(tmp_path / "c", there, rejected, Slicing()) == []
    opened = cache.open_cache(tmp_path / "c")
    assert len(opened.volumes) == 4
    assert opened.masks is not None
    # Away from the rim the background has one value for all patients.
    assert np.quantile(np.abs(opened.images[~opened.brains]), 0.9) == 0
    sick = [np.count_nonzero(record["lesion_voxels"]) for record in opened.volumes]
    assert min(sick) >= 61


def test_records_of_tensorflow_datasets_equal_the_cache(patients, tmp_path):
    import sys

    from jaxvae.data.volumes.tfds_builder import VolumeSlices

    prepared(patients, tmp_path / "c")
    builder = VolumeSlices(cache=tmp_path / "c", data_dir=tmp_path / "records")
    builder.download_and_prepare()
    source = builder.as_data_source("slices")
    opened = cache.open_cache(tmp_path / "c")
    slices = cache.dataset(opened)
    assert len(source) == len(opened.images)
    seen = set()
    for example in source:
        index = int(example["index"])
        seen.add(index)
        np.testing.assert_array_equal(example["image"], opened.images[index])
        np.testing.assert_array_equal(example["brain"] > 0, opened.brains[index])
        assert opened.masks is not None
        np.testing.assert_array_equal(example["lesion"] > 0, opened.masks[index])
        assert bool(example["anomalous"]) == slices.labels[index]
        assert example["patient"].decode() == slices.groups[index]
        assert example["name"].decode() == slices.names[index]
    assert seen == set(range(len(source)))
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("file_format", ["parquet", "tfrecord"])
def test_records_that_lose_examples_are_refused(patients, tmp_path, file_format):
    from jaxvae.data.fashion_mnist.records import FashionMnistRecords
    from jaxvae.data.volumes.tfds_builder import VolumeSlices

    prepared(patients, tmp_path / "c")
    with pytest.raises(InputError, match=f"file_format='{file_format}': .*use array_record"):
        VolumeSlices(cache=tmp_path / "c", data_dir=tmp_path / "records", file_format=file_format)
    with pytest.raises(InputError, match=f"file_format='{file_format}': .*use array_record"):
        FashionMnistRecords(data_dir=tmp_path / "records", file_format=file_format)
    assert not (tmp_path / "records").exists()


def test_other_labels_change_the_hash(tmp_path):
    """A lesion of one voxel is lost at the model's resolution, but its slice is still anomalous."""
    scan, brain, _ = head(0, lesion=True)
    hashes = []
    for lesion in (
        np.zeros(scan.shape, np.uint8),
        np.eye(scan.shape[0], scan.shape[1], dtype=np.uint8)[..., None] * (np.arange(scan.shape[2]) == 12),
    ):
        folder = tmp_path / str(len(hashes))
        for name, voxels in (("flair", scan), ("brain", brain), ("lesion", lesion)):
            write_volume(folder / "p00" / f"{name}.nii.gz", voxels)
        prepared(folder, folder / "cache")
        hashes.append(cache.open_cache(folder / "cache").hash)
    assert hashes[0] != hashes[1]


def test_a_folder_locked_by_another_process_is_refused(patients, tmp_path):
    with files.locked(tmp_path / "c"), pytest.raises(InputError, match="c: another process is at work there"):
        prepared(patients, tmp_path / "c")
    prepared(patients, tmp_path / "c")
    assert len(cache.open_cache(tmp_path / "c").volumes) == 10


DAMAGE = {  # of a NIfTI header: field and value
    "NaN quaternion": ("quatern_b", np.nan),
    "long quaternion": ("quatern_d", 1.000001),
    "NaN pixdim": ("pixdim", np.nan),
    "NaN slope and intercept": ("scl_inter", np.nan),
    "no start": ("vox_offset", np.nan),
    "many voxels": ("dim", 9999),
    "unknown type": ("datatype", 77),
    "no forms": ("sform_code", 0),
    "NaN sform": ("srow_x", np.nan),
}


def test_a_damaged_header_does_not_stop_other_scans(patients, tmp_path, capsys):
    """Each header is repaired with a warning, or its scan is rejected by name."""
    folder = shutil.copytree(patients, tmp_path / "patients")
    for path, (field, value) in zip(sorted(folder.glob("*/flair.nii.gz")), DAMAGE.values(), strict=False):
        image = nib.load(path)
        image.set_qform(image.affine, 1)
        raw = bytearray(image.to_bytes())
        header = np.frombuffer(raw, nib.nifti1.header_dtype, 1)
        header["scl_slope"] = 1
        header[field] = value
        path.write_bytes(gzip_files.pack(bytes(raw)))
    assert main(["prepare", str(folder), "--out", str(tmp_path / "c"), "--size", "16", *FLAGS]) == 0
    printed = capsys.readouterr().out
    taken = {record["name"].split("/")[0]: record["warnings"] for record in cache.open_cache(tmp_path / "c").volumes}
    left_out = files.read_lines(tmp_path / "c" / "rejected.jsonl")
    assert len(taken) + len(left_out) == 10
    assert f"{len(left_out)} left out" in printed
    for number, what in enumerate(DAMAGE):
        name = f"p{number:02d}"
        reasons = taken.get(name) or [line["reason"] for line in left_out if name in line["path"]]
        assert len(reasons) == (0 if what == "no forms" else 1), what
    assert taken["p09"] == []  # the sound one
    assert "1 x its quaternion has the length 1.000001 and was shortened to 1 (p01/flair)" in printed
    assert taken["p01"] == ["its quaternion has the length 1.000001 and was shortened to 1"]


def test_a_scan_that_vanishes_is_rejected(patients, tmp_path, monkeypatch):
    folder = shutil.copytree(patients, tmp_path / "patients")
    real = cache_writer.read_scan

    def vanishing(scan, slicing):
        if scan.patient == "p03":
            shutil.rmtree(folder / "p03")
        return real(scan, slicing)

    monkeypatch.setattr(cache_writer, "read_scan", vanishing)
    (left_out,) = prepared(folder, tmp_path / "c")
    assert left_out.reason == f"{folder}/p03/flair.nii.gz: no such file"
    assert len(cache.open_cache(tmp_path / "c").volumes) == 9
