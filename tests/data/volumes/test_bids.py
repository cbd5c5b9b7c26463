"""Masks in BIDS folders are paired with scans by entities."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxvae.data.volumes import bids, scans

LESIONS = "derivatives/lesions"


def put(folder: Path, *names: str) -> Path:
    """Make empty files in their subjects' folders: `sub-01_T2w` or `derivatives/x:sub-01_label-L_mask`."""
    for name in names:
        pipeline, _, file = name.rpartition(":")
        path = folder / pipeline / file.split("_")[0] / "anat" / f"{file}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def found(folder: Path, kind: str = "lesion") -> dict[str, str | None]:
    """The mask of each scan by name, or the reason why the scan is rejected."""
    there, rejected = scans.find(folder, "bids")
    masks = {scan.image.name.removesuffix(".nii.gz"): getattr(scan, kind) for scan in there}
    taken = {name: mask and mask.name.removesuffix(".nii.gz") for name, mask in masks.items()}
    return taken | {one.path.name.removesuffix(".nii.gz"): one.reason for one in rejected}


@pytest.mark.parametrize("kind", ["brain", "lesion"])
@pytest.mark.parametrize(
    ("plain", "other"),
    [
        ("sub-01", "sub-01_acq-post"),
        ("sub-01_run-1", "sub-01_run-10"),
        ("sub-01_ses-1", "sub-01_ses-10"),
        ("sub-01_acq-iso", "sub-01_acq-iso2"),
        ("sub-01", "sub-01_ce-gad"),
        ("sub-01", "sub-01_rec-norm"),
        ("sub-01_acq-a", "sub-01_acq-a_run-1"),
        ("sub-01", "sub-011"),
    ],
)
def test_a_mask_belongs_to_the_scan_with_its_entities(tmp_path, kind, plain, other):
    what = {"brain": "desc-brain_mask", "lesion": "label-lesion_mask"}[kind]
    put(tmp_path, f"{plain}_T2w", f"{other}_T2w", f"{LESIONS}:{other}_{what}")
    assert found(tmp_path, kind) == {f"{plain}_T2w": None, f"{other}_T2w": f"{other}_{what}"}
    put(tmp_path, f"{LESIONS}:{plain}_{what}")
    assert found(tmp_path, kind) == {f"{name}_T2w": f"{name}_{what}" for name in (plain, other)}


def test_indices_are_numbers_and_labels_are_text(tmp_path):
    put(tmp_path, "sub-01_run-1_T2w", f"{LESIONS}:sub-01_run-01_label-L_mask")
    put(tmp_path, "sub-02_acq-1_T2w", "sub-02_acq-01_T2w", f"{LESIONS}:sub-02_acq-01_label-L_mask")
    assert found(tmp_path) == {
        "sub-01_run-1_T2w": "sub-01_run-01_label-L_mask",
        "sub-02_acq-1_T2w": None,
        "sub-02_acq-01_T2w": "sub-02_acq-01_label-L_mask",
    }


@pytest.mark.parametrize(
    "mask",
    [
        f"{LESIONS}:sub-01_label-lesion_mask",
        f"{LESIONS}:sub-01_label-L_mask",
        f"{LESIONS}:sub-01_label-tumor_mask",
        f"{LESIONS}:sub-01_desc-lesion_mask",
        f"{LESIONS}:sub-01_T2w_desc-lesion_mask",
        f"{LESIONS}:sub-01_space-orig_label-L_desc-manual_mask",
        f"{LESIONS}:sub-01_space-T2w_label-L_mask",
        f"{LESIONS}:sub-01_res-high_label-L_mask",
        "derivatives:sub-01_label-L_mask",
        "derivatives/lesions/second:sub-01_label-L_mask",
        "sub-01_label-lesion_mask",
        "sub-01_T2w_label-lesion_roi",
    ],
)
def test_names_of_lesion_masks(tmp_path, mask):
    put(tmp_path, "sub-01_T2w", "sub-02_T2w", mask)
    assert found(tmp_path) == {"sub-01_T2w": mask.rpartition(":")[2], "sub-02_T2w": None}


@pytest.mark.parametrize("other", ["desc-brainstem", "label-GM", "label-left", "label-GM_desc-brain", "desc-lung"])
def test_other_masks_are_ignored(tmp_path, other):
    put(tmp_path, "sub-01_T2w", f"{LESIONS}:sub-01_{other}_mask")
    assert found(tmp_path, "lesion") == found(tmp_path, "brain") == {"sub-01_T2w": None}


def test_scans_use_masks_of_their_space(tmp_path):
    put(tmp_path, "sub-01_space-MNI_T2w", f"{LESIONS}:sub-01_space-MNI_label-L_mask")
    put(tmp_path, f"{LESIONS}:sub-01_space-other_label-L_mask")
    assert found(tmp_path) == {"sub-01_space-MNI_T2w": "sub-01_space-MNI_label-L_mask"}


def test_masks_in_another_space_are_ignored(tmp_path):
    for what in ("desc-brain_mask", "label-L_mask"):
        put(tmp_path, "sub-01_T2w", f"{LESIONS}:sub-01_{what}", f"{LESIONS}:sub-01_space-MNI_{what}")
        put(tmp_path, f"{LESIONS}:sub-01_res-2_{what}")
    assert found(tmp_path, "brain") == {"sub-01_T2w": "sub-01_desc-brain_mask"}
    assert found(tmp_path, "lesion") == {"sub-01_T2w": "sub-01_label-L_mask"}


def test_a_scan_with_a_lesion_in_another_space_is_rejected(tmp_path):
    put(
        tmp_path,
        "sub-01_T2w",
        f"{LESIONS}:sub-01_space-MNI_label-L_mask",
        f"{LESIONS}:sub-02_space-T1w_desc-brain_mask",
    )
    put(tmp_path, "sub-02_T2w")
    there = found(tmp_path, "brain")
    assert there["sub-02_T2w"] is None
    assert "label-L_mask.nii.gz is in another space; resample it to the scan" in str(there["sub-01_T2w"])


@pytest.mark.parametrize(
    ("scan", "mask"),
    [
        ("sub-01_acq-iso_run-1_T2w", "sub-01_label-L_mask"),
        ("sub-01_run-1_T2w", "sub-01_run-10_label-L_mask"),
        ("sub-01_T2w", "sub-01_acq-post_label-L_mask"),
        ("sub-01_T2w", "sub-01_T1w_label-lesion_roi"),
        ("sub-01_ses-1_T2w", "sub-01_label-L_mask"),
    ],
)
def test_a_patient_with_an_unpaired_mask_is_rejected(tmp_path, scan, mask):
    put(tmp_path, scan, "sub-02_T2w", f"{LESIONS}:{mask}")
    there = found(tmp_path)
    assert there.pop("sub-02_T2w") is None
    [reason] = there.values()
    assert f"{mask}.nii.gz may be its lesion mask, but has other entities" in str(reason)


def test_masks_of_several_pipelines_are_refused(tmp_path):
    put(tmp_path, "sub-01_T2w", "derivatives/a:sub-01_desc-brain_mask", "derivatives/b:sub-01_desc-brain_mask")
    names = [f"derivatives/{name}/sub-01/anat/sub-01_desc-brain_mask.nii.gz" for name in "ab"]
    [reason] = found(tmp_path).values()
    assert f"2 brain masks fit it ({', '.join(names)}); choose with `brains`" in str(reason)


def test_a_mask_of_two_scans_is_refused(tmp_path):
    put(tmp_path, "sub-01_run-1_T2w", "sub-01_run-01_T2w", f"{LESIONS}:sub-01_run-1_label-L_mask")
    assert all("is also the lesion mask of" in str(reason) for reason in found(tmp_path).values())


def test_scans_of_a_pipeline_use_masks_beside_them(tmp_path):
    """The data set is the folder of a pipeline such as fMRIPrep."""
    for space in ("", "_space-MNI_res-2"):
        put(tmp_path, f"sub-01{space}_desc-preproc_T2w", f"sub-01{space}_desc-brain_mask")
    assert found(tmp_path, "brain") == {
        "sub-01_desc-preproc_T2w": "sub-01_desc-brain_mask",
        "sub-01_space-MNI_res-2_desc-preproc_T2w": "sub-01_space-MNI_res-2_desc-brain_mask",
    }


def test_a_scan_in_the_folder_of_another_subject_is_refused(tmp_path):
    put(tmp_path, "sub-01_T2w")
    (tmp_path / "sub-01/anat/sub-02_T2w.nii.gz").touch()
    there = found(tmp_path)
    assert there["sub-01_T2w"] is None
    assert "another subject than its folder sub-01" in str(there["sub-02_T2w"])


def test_links_to_nothing_are_missing_files(tmp_path):
    """In a datalad clone, a scan that was not fetched, or whose mask was not, is rejected by name."""
    put(tmp_path, *(f"sub-0{i}_T2w" for i in range(1, 6)), f"{LESIONS}:sub-01_label-L_mask")
    put(tmp_path, *(f"{LESIONS}:sub-0{i}_label-L_mask" for i in (2, 3)), f"{LESIONS}:sub-04_desc-brain_mask")
    for name in ("sub-01/anat/sub-01_T2w", f"{LESIONS}/sub-02/anat/sub-02_label-L_mask"):
        (tmp_path / f"{name}.nii.gz").unlink()
        (tmp_path / f"{name}.nii.gz").symlink_to("../../.git/annex/objects/xx/SHA256E-s9--1.nii.gz")
    (tmp_path / f"{LESIONS}/sub-04/anat/sub-04_desc-brain_mask.nii.gz").unlink()
    (tmp_path / f"{LESIONS}/sub-04/anat/sub-04_desc-brain_mask.nii.gz").symlink_to("gone")
    there = found(tmp_path)
    assert "sub-01_T2w.nii.gz: its content was not fetched (a broken link)" in str(there["sub-01_T2w"])
    assert "its mask" in str(there["sub-02_T2w"])
    assert "sub-02_label-L_mask.nii.gz: its content was not fetched" in str(there["sub-02_T2w"])
    assert there["sub-03_T2w"] == "sub-03_label-L_mask"
    assert "sub-04_desc-brain_mask.nii.gz: is a broken link" in str(there["sub-04_T2w"])
    assert there["sub-05_T2w"] is None


@pytest.mark.parametrize(("link", "left_out"), [(f"{LESIONS}/sub-01", ["01"]), (LESIONS, ["01", "02"])])
def test_folders_of_masks_that_are_links_to_nothing_reject_scans(tmp_path, link, left_out):
    put(tmp_path, "sub-01_T2w", "sub-02_T2w")
    (tmp_path / link).parent.mkdir(parents=True)
    (tmp_path / link).symlink_to("gone")
    there = found(tmp_path)
    reasons = {name for name, reason in there.items() if reason}
    assert reasons == {f"sub-{name}_T2w" for name in left_out}
    assert f"its lesion mask may be below {tmp_path / link}: is a broken link" in str(there["sub-01_T2w"])


def test_patterns_replace_entities(tmp_path):
    put(tmp_path, "sub-01_T2w", "derivatives/a:sub-01_label-L_mask", "derivatives/b:sub-01_label-L_mask")
    there, rejected = scans.find(tmp_path, lesions="derivatives/b/sub-{0}/{1}sub-{2}_label-L_mask.nii.gz")
    assert rejected == []
    assert [str(scan.lesion) for scan in there] == [f"{tmp_path}/derivatives/b/sub-01/anat/sub-01_label-L_mask.nii.gz"]


def test_names_are_parsed_into_entities():
    name = bids.parse(Path("x/sub-01_acq-a-b_run-007_T1w_space-MNI_desc-brain_mask.nii.gz"), "T1w")
    assert name.source == {("sub", "01"), ("acq", "a-b"), ("run", "7")}
    assert name.derived == {"space": "MNI", "desc": "brain"}
    assert name.suffix == "mask"
