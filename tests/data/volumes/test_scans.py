"""Finding scans: known layouts, custom patterns, and errors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jaxvae.data.volumes import scans
from jaxvae.errors import InputError


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder: Path, *arguments: str, **patterns: str) -> list[tuple[str, str, str | None, str | None]]:
    there, rejected = scans.find(folder, *arguments, **patterns)
    assert rejected == []
    relative = [
        [None if path is None else str(path.relative_to(folder)) for path in (s.brain, s.lesion)] for s in there
    ]
    return [(scan.name, scan.patient, *masks) for scan, masks in zip(there, relative, strict=True)]


ISLES = "VSD.Brain.XX.O.MR_{}.{}/VSD.Brain.XX.O.MR_{}.{}.nii"


@pytest.mark.parametrize("layout", ["auto", "named"])
@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        (
            "hcp",
            ["100307/T1w/T2w_acpc_dc_restore_brain.nii.gz", "100307/T1w/T1w_acpc_dc_restore_brain.nii.gz"],
            ("100307/T1w/T2w_acpc_dc_restore_brain", "100307", None, None),
        ),
        (
            "brats2017",
            [f"HGG/Brats17_2013_2_1/Brats17_2013_2_1_{what}.nii.gz" for what in ("t1", "t2", "flair", "seg")],
            (
                "HGG/Brats17_2013_2_1/Brats17_2013_2_1_t2",
                "Brats17_2013_2_1",
                None,
                "HGG/Brats17_2013_2_1/Brats17_2013_2_1_seg.nii.gz",
            ),
        ),
        (
            "isles2015",
            [
                "7/" + ISLES.format("T2", 70616, "T2", 70616),
                "7/" + ISLES.format("Flair", 70614, "Flair", 70614),
                "7/VSD.Brain.XX.O.OT.70613/VSD.Brain.XX.O.OT.70613.nii",
            ],
            (
                "7/" + ISLES.format("T2", 70616, "T2", 70616).removesuffix(".nii"),
                "7",
                None,
                "7/VSD.Brain.XX.O.OT.70613/VSD.Brain.XX.O.OT.70613.nii",
            ),
        ),
        (
            "bids",
            [
                "sub-01/anat/sub-01_T2w.nii.gz",
                "derivatives/strip/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
                "derivatives/manual/sub-01/anat/sub-01_label-L_mask.nii.gz",
            ],
            (
                "sub-01/anat/sub-01_T2w",
                "01",
                "derivatives/strip/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
                "derivatives/manual/sub-01/anat/sub-01_label-L_mask.nii.gz",
            ),
        ),
        (
            "brats2017",
            [f"BraTS20_Training_001/BraTS20_Training_001_{what}.nii" for what in ("t1ce", "t2", "seg")],
            (
                "BraTS20_Training_001/BraTS20_Training_001_t2",
                "BraTS20_Training_001",
                None,
                "BraTS20_Training_001/BraTS20_Training_001_seg.nii",
            ),
        ),
        (
            "brats2017",
            [f"train/BraTS2021_00000/BraTS2021_00000_{what}.nii.gz" for what in ("flair", "t2", "seg")],
            (
                "train/BraTS2021_00000/BraTS2021_00000_t2",
                "BraTS2021_00000",
                None,
                "train/BraTS2021_00000/BraTS2021_00000_seg.nii.gz",
            ),
        ),
        *(
            (
                "brats2023",
                [f"BraTS-{task}-00008-101/BraTS-{task}-00008-101-{what}.nii.gz" for what in ("t1c", "t2w", "seg")],
                (
                    f"BraTS-{task}-00008-101/BraTS-{task}-00008-101-t2w",
                    f"BraTS-{task}-00008",
                    None,
                    f"BraTS-{task}-00008-101/BraTS-{task}-00008-101-seg.nii.gz",
                ),
            )
            for task in ("GLI", "MET", "MEN", "PED", "SSA")
        ),
        (
            "brats2024goat",
            [f"BraTS-GoAT-00063/BraTS-GoAT-00063-{what}.nii.gz" for what in ("t1n", "t2f", "t2w", "seg")],
            (
                "BraTS-GoAT-00063/BraTS-GoAT-00063-t2w",
                "BraTS-GoAT-00063",
                None,
                "BraTS-GoAT-00063/BraTS-GoAT-00063-seg.nii.gz",
            ),
        ),
        (
            "brats2024rt",
            [f"BraTS-MEN-RT-0005-1/BraTS-MEN-RT-0005-1_{what}.nii.gz" for what in ("t1c", "gtv")],
            (
                "BraTS-MEN-RT-0005-1/BraTS-MEN-RT-0005-1_t1c",
                "BraTS-MEN-RT-0005",
                None,
                "BraTS-MEN-RT-0005-1/BraTS-MEN-RT-0005-1_gtv.nii.gz",
            ),
        ),
        ("ixi", ["T1/IXI002-Guys-0828-T1.nii.gz"], ("T1/IXI002-Guys-0828-T1", "IXI002-Guys-0828", None, None)),
    ],
)
def test_known_layouts(tmp_path, layout, name, files, expected):
    made(tmp_path, *files)
    assert found(tmp_path, "auto" if layout == "auto" else name) == [expected]


def test_custom_patterns_pair_scans_with_masks(tmp_path):
    made(tmp_path, "T1/a_T1.nii.gz", "T1/b_T1.nii.gz", "M/a_T1_M.nii.gz", "M/b_T1_M.nii.gz", "T1/.a_T1.nii.gz")
    assert found(tmp_path, images="T1/*_T1.nii.gz", brains="M/{0}_T1_M.nii.gz") == [
        ("T1/a_T1", "T1/a_T1", "M/a_T1_M.nii.gz", None),
        ("T1/b_T1", "T1/b_T1", "M/b_T1_M.nii.gz", None),
    ]


def test_brackets_in_a_folders_name_are_literal(tmp_path):
    made(tmp_path, "p[1]/t2.nii", "p[1]/m.nii", "p1/t2.nii", "p1/m.nii")
    assert [scan[3] for scan in found(tmp_path, images="*/t2.nii", lesions="{0}/m.nii")] == ["p1/m.nii", "p[1]/m.nii"]


def test_a_patients_sessions_are_one_patient(tmp_path):
    made(
        tmp_path,
        *(f"sub-01/ses-{i}/anat/sub-01_ses-{i}_T2w.nii.gz" for i in (1, 2)),
        *(f"derivatives/x/sub-01/ses-{i}/anat/sub-01_ses-{i}_desc-brain_mask.nii.gz" for i in (1, 2)),
        *(f"sub-02/anat/sub-02_run-{i}_T2w.nii.gz" for i in (1, 2)),
    )
    there = found(tmp_path)
    assert [patient for _, patient, _, _ in there] == ["01", "01", "02", "02"]
    assert [brain and Path(brain).name for _, _, brain, _ in there] == [
        "sub-01_ses-1_desc-brain_mask.nii.gz",
        "sub-01_ses-2_desc-brain_mask.nii.gz",
        None,
        None,
    ]


def test_patients_are_guessed_from_names(tmp_path):
    made(tmp_path / "flat", "T1/a.nii", "T1/b.nii")
    made(tmp_path / "deep", "a/t1.nii", "b/t1.nii")
    assert [scan[1] for scan in found(tmp_path / "flat")] == ["T1/a", "T1/b"]
    assert [scan[1] for scan in found(tmp_path / "deep")] == ["a", "b"]
    assert [scan[1] for scan in found(tmp_path / "flat", images="T1/?.nii", patients="x")] == ["x", "x"]


def test_guesses_are_reported(tmp_path):
    made(tmp_path / "flat", "a_t2.nii", "b_t2.nii", "a_seg.nii", "b_seg.nii")
    made(tmp_path / "ixi", "T1/IXI049-HH-1355_T1.nii.gz", "T1/IXI053-Guys-0727_T1.nii.gz")
    [patients, healthy] = scans.doubts(scans.find(tmp_path / "flat", images="*_t2.nii")[0])
    assert patients == "patients were guessed from the file names (2 found); if that is wrong, pass `patients`"
    assert healthy == "there are no lesion masks, so all scans count as healthy"
    assert scans.doubts(scans.find(tmp_path / "ixi")[0]) == [healthy]
    masks = {"lesions": "{0}_seg.nii", "patients": "of {0}"}
    assert scans.doubts(scans.find(tmp_path / "flat", images="*_t2.nii", **masks)[0]) == []


def test_scans_that_count_as_healthy_are_counted(tmp_path):
    made(tmp_path, *(f"sub-{i}/sub-{i}_T2w.nii" for i in range(5)), "sub-3/sub-3_acq-post_T2w.nii")
    made(tmp_path, "derivatives/x/sub-0/sub-0_label-L_mask.nii", "derivatives/x/sub-3/sub-3_acq-post_label-L_mask.nii")
    made(tmp_path, "derivatives/x/sub-0/sub-0_desc-brain_mask.nii")
    [lesions, brains] = scans.doubts(scans.find(tmp_path)[0])
    assert lesions == (
        "4 of 6 scans have no lesion mask and count as healthy, such as sub-1/sub-1_T2w; the patients of 1 have a "
        "lesion mask for another scan"
    )
    assert brains == ("5 of 6 scans have no brain mask, such as sub-1/sub-1_T2w; their brains are found in the images")


def test_masks_of_several_scans_are_reported(tmp_path):
    made(tmp_path, "p_t1.nii", "p_t2.nii", "q_t1.nii", "p_seg.nii", "q_seg.nii")
    there, _ = scans.find(tmp_path, images="*_t?.nii", lesions="{0}_seg.nii", brains="p_seg.nii", patients="{0}")
    assert scans.doubts(there) == [
        "1 brain mask serves several scans, such as p_seg.nii for p_t1 and p_t2",
        "1 lesion mask serves several scans, such as p_seg.nii for p_t1 and p_t2",
    ]


def test_links_to_nothing_are_rejected_by_name(tmp_path):
    made(tmp_path, *(f"{name}_{what}.nii.gz" for name in "abc" for what in ("t2", "seg", "brain")))
    for name in ("a_t2", "b_seg", "c_brain"):
        (tmp_path / f"{name}.nii.gz").unlink()
        (tmp_path / f"{name}.nii.gz").symlink_to("gone")
    why = "is a broken link (gone is missing); repair or remove the link"
    there, rejected = scans.find(tmp_path, brains="{1}_brain.nii.gz")
    assert there == []
    assert [one.reason for one in rejected] == [
        f"{tmp_path}/a_t2.nii.gz: {why}",
        f"{tmp_path}/b_t2.nii.gz: its mask {tmp_path}/b_seg.nii.gz: {why}",
        f"{tmp_path}/c_t2.nii.gz: its mask {tmp_path}/c_brain.nii.gz: {why}",
    ]
    there, rejected = scans.unlabelled(tmp_path, images="*_t2.nii.gz", brains="{0}_brain.nii.gz")
    assert [scan.name for scan in there] == ["b_t2"]
    assert [one.path.name for one in rejected] == ["a_t2.nii.gz", "c_t2.nii.gz"]
    there, rejected = scans.unlabelled(tmp_path)
    assert len(there) == 6
    assert [one.path.name for one in rejected] == ["a_t2.nii.gz", "b_seg.nii.gz", "c_brain.nii.gz"]
    with pytest.raises(InputError, match=r"a_t2\.nii\.gz: is a broken link"):
        scans.unlabelled(tmp_path / "a_t2.nii.gz")


def test_folders_that_are_links_to_nothing_are_rejected(tmp_path):
    made(tmp_path, "p1/t2.nii", "p1/seg.nii")
    (tmp_path / "p2").symlink_to("gone")
    why = f"{tmp_path}/p2: is a broken link (gone is missing); repair or remove the link"
    for there, rejected in (
        scans.find(tmp_path, images="*/t2.nii", lesions="{0}/seg.nii"),
        scans.find(tmp_path, images="**/t2.nii", lesions="{0}/seg.nii"),
        scans.unlabelled(tmp_path, images="*/t2.nii"),
    ):
        assert [scan.name for scan in there] == ["p1/t2"]
        assert [one.reason for one in rejected] == [why]
    for function in (scans.find, scans.unlabelled):
        with pytest.raises(InputError, match="p2: is a broken link"):
            function(tmp_path / "p2")


def test_the_modality_names_of_earlier_years(tmp_path):
    made(tmp_path, *(f"BraTS-GLI-00000-000-{what}.nii.gz" for what in ("t1n", "t1c", "t2w", "t2f", "seg")))
    for old, new in (("t1", "t1n"), ("t1ce", "t1c"), ("t2", "t2w"), ("flair", "t2f"), ("t2f", "t2f")):
        [scan] = scans.find(tmp_path, modality=old)[0]
        assert scan.name == f"BraTS-GLI-00000-000-{new}"


def test_a_bids_folder_is_bids_for_every_modality(tmp_path):
    made(tmp_path / "bids", *(f"sub-1/anat/sub-1_{what}.nii.gz" for what in ("T1w", "T2w", "FLAIR")))
    for modality in ("T1w", "T2w", "FLAIR"):
        assert found(tmp_path / "bids", modality=modality) == [(f"sub-1/anat/sub-1_{modality}", "1", None, None)]
    made(tmp_path / "brats", *(f"sub-1/sub-1_{what}.nii.gz" for what in ("t2", "flair", "seg")))
    for modality in ("t2", "flair"):
        assert found(tmp_path / "brats", modality=modality) == [
            (f"sub-1/sub-1_{modality}", "sub-1", None, "sub-1/sub-1_seg.nii.gz")
        ]


def test_brats_time_points_are_one_patient(tmp_path):
    made(tmp_path, *(f"{n}/BraTS-GLI-00008-00{n}-{what}.nii.gz" for n in (0, 1) for what in ("t2w", "seg")))
    assert {scan[1] for scan in found(tmp_path)} == {"BraTS-GLI-00008"}


def test_choices_of_the_command_are_the_layouts():
    from typing import get_args, get_type_hints

    from jaxvae.cli.prepare import Prepare
    from jaxvae.data.volumes.known_datasets import LAYOUTS

    assert get_args(get_type_hints(Prepare)["layout"]) == ("auto", *LAYOUTS)


def test_scans_that_differ_in_suffix_have_unique_names(tmp_path):
    made(tmp_path, "a.nii", "a.nii.gz", "b.nii")
    assert [scan[0] for scan in found(tmp_path)] == ["a.nii", "a.nii.gz", "b"]
    assert [scan.name for scan in scans.unlabelled(tmp_path)[0]] == ["a.nii", "a.nii.gz", "b"]


def test_question_marks_and_brackets(tmp_path):
    made(tmp_path, "p1/t.nii", "p2/t.nii", "q1/t.nii")
    assert [scan[1] for scan in found(tmp_path, images="p?/t.nii")] == ["p1", "p2"]
    assert [scan[1] for scan in found(tmp_path, images="[!q]1/t.nii")] == ["p1"]


def test_another_modality(tmp_path):
    made(tmp_path, "a/x/x_t2.nii.gz", "a/x/x_flair.nii.gz", "a/x/x_seg.nii.gz")
    there, _ = scans.find(tmp_path, "brats2017", modality="flair")
    assert [scan.name for scan in there] == ["a/x/x_flair"]


def test_a_scan_without_its_mask_is_rejected(tmp_path):
    made(tmp_path, "x/x_t2.nii.gz", "x/x_seg.nii.gz", "y/y_t2.nii.gz")
    there, rejected = scans.find(tmp_path)
    assert [scan.patient for scan in there] == ["x"]
    assert [(one.path.name, one.reason) for one in rejected] == [
        ("y_t2.nii.gz", f"{tmp_path / 'y' / 'y_t2.nii.gz'}: its mask y/y_seg.nii.gz is missing"),
    ]
    made(tmp_path, "y/y1_seg.nii.gz", "y/y2_seg.nii.gz")
    _, rejected = scans.find(tmp_path, images="*/*_t2.nii.gz", lesions="{0}/*_seg.nii.gz")
    assert "2 masks at y/*_seg.nii.gz" in rejected[0].reason


def test_folders_that_are_links_are_followed_once(tmp_path):
    made(tmp_path / "elsewhere", "p1/a_t2.nii.gz", "p1/a_seg.nii.gz")
    made(tmp_path / "data", "p2/b_t2.nii.gz", "p2/b_seg.nii.gz")
    (tmp_path / "data" / "p1").symlink_to(tmp_path / "elsewhere" / "p1")
    (tmp_path / "data" / "p2" / "up").symlink_to(tmp_path / "data")
    there, rejected = scans.find(tmp_path / "data")
    assert [scan.name for scan in there] == ["p1/a_t2", "p2/b_t2"]
    assert rejected == []
    assert [scan.name for scan in scans.unlabelled(tmp_path / "data")[0]] == [
        "p1/a_seg",
        "p1/a_t2",
        "p2/b_seg",
        "p2/b_t2",
    ]


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    made(tmp_path, "p1/a.nii", "p2/b.nii")
    scandir = os.scandir

    def refuse(place):
        if str(place).endswith("p2"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    there, rejected = scans.unlabelled(tmp_path)
    assert [scan.name for scan in there] == ["p1/a"]
    assert [one.reason for one in rejected] == [f"{tmp_path / 'p2'}: cannot be opened (Permission denied)"]


def test_a_file_has_one_identity_under_every_path(tmp_path, monkeypatch):
    made(tmp_path, "data/a.nii", "here/x.nii")
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path / "here")
    places = [tmp_path / "data", tmp_path / "linked", Path("../data")]
    (first, *others) = [scans.sources(scans.unlabelled(place)[0][0], "image") for place in places]
    assert others == [first, first]


def test_unlabelled_finds_all_volumes_without_masks(tmp_path):
    made(tmp_path, "a.nii", "b/c.nii.gz", "b/c_brain.nii.gz", "a_brain.nii", "notes.txt", "pair.hdr", "pair.img")
    there, rejected = scans.unlabelled(tmp_path)
    assert [scan.name for scan in there] == ["a", "a_brain", "b/c", "b/c_brain", "pair"]
    there, rejected = scans.unlabelled(tmp_path, brains="{0}{1}_brain.nii*")
    assert [(scan.name, scan.brain and scan.brain.name) for scan in there] == [
        ("a", "a_brain.nii"),
        ("b/c", "c_brain.nii.gz"),
    ]
    assert [one.path.name for one in rejected] == ["pair.img"]
    there, _ = scans.unlabelled(tmp_path, images="**/?.nii*", brains="{0}*_brain.nii*")
    assert [(scan.name, scan.brain and scan.brain.name) for scan in there] == [
        ("a", "a_brain.nii"),
        ("b/c", "c_brain.nii.gz"),
    ]
    with pytest.raises(InputError, match=r"no volume at \*_t2.nii"):
        scans.unlabelled(tmp_path, images="*_t2.nii")
    with pytest.raises(InputError, match=r"images='\*.nii': .*a.nii is a file; pass its folder"):
        scans.unlabelled(tmp_path / "a.nii", images="*.nii")
    with pytest.raises(InputError, match=r"brains='\{1\}.nii': can use \{0\} to \{0\}"):
        scans.unlabelled(tmp_path, images="*.nii", brains="{1}.nii")
    [alone], _ = scans.unlabelled(tmp_path / "a.nii")
    assert alone.name == "a"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"directory": "none"}, "none: no such folder"),
        ({"directory": "a.nii"}, "is a file; pass its folder"),
        ({"layout": "brats2018"}, "layout='brats2018': choose from auto, hcp"),
        ({"images": "*.mgz"}, r"no volume at \*.mgz"),
        ({"images": "*.nii", "brains": "{1}.nii"}, r"brains='\{1\}.nii': can use \{0\} to \{0\}"),
        ({"images": "a.nii", "lesions": "{0}.nii"}, "`images` has no star"),
        ({"images": "/*.nii"}, "must match files below"),
        ({"images": "*.nii", "brains": "{0.x}.nii"}, "can use"),
        ({"images": "*.nii", "layout": "hcp"}, "layout='hcp': cannot be combined with `images`"),
        ({"images": "*.nii", "modality": "T1"}, "modality='T1': the pattern of `images`, "),
        ({"modality": "t2f"}, "modality='t2f': none of the layouts hcp, .* has such scans"),
        ({"images": "*.nii", "lesions": "{x}.nii"}, r"lesions='\{x\}.nii': can use"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path, arguments, message):
    made(tmp_path, "a.nii")
    directory = tmp_path / arguments.pop("directory", "")
    with pytest.raises(InputError, match=message):
        scans.find(directory, **arguments)
    with pytest.raises(InputError, match="no volume"):
        scans.unlabelled(made(tmp_path / "empty", "x.txt"))
