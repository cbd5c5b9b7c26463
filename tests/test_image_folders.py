"""Layouts are told from names alone; what does not fit is named before any image is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxvae.data import image_folders
from jaxvae.errors import InputError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


BENCHMARK = (
    "train/good/000.png",
    "train/good/001.png",
    "test/good/000.png",
    "test/crack/000.png",
    "test/crack/001.png",
    "ground_truth/crack/000_mask.png",
    "ground_truth/crack/001_mask.png",
)
CASES = ("p2/a_10.tif", "p2/a_10_mask.tif", "p2/a_2.tif", "p2/a_2_mask.tif", "p10/b.png", "p10/b_mask.tif")
LITTER = (".DS_Store", "._a.png", "LICENSE", "README.md", "data.csv", ".hidden/x.png", ".hidden/x_mask.png")


@pytest.mark.parametrize(
    ("names", "layout"), [(BENCHMARK, "benchmark"), (CASES, "cases"), (("a.png", "b.JPG"), "flat")]
)
def test_layouts_are_told_apart_and_litter_is_no_image(tmp_path, names, layout):
    touch(tmp_path, *names, *LITTER)
    assert image_folders.layout_of(tmp_path) == layout
    assert not any(".hidden" in entry.name or "._" in entry.name for entry in image_folders.unlabelled(tmp_path))


def test_benchmark_entries_have_their_kind_and_mask(tmp_path):
    touch(tmp_path, *BENCHMARK, *LITTER)
    good = image_folders.healthy(tmp_path, tmp_path / "train" / "good")
    assert [(e.name, e.kind, e.mask, e.group) for e in good] == [
        (f"train/good/{i}.png", "good", None, f"train/good/{i}.png") for i in ("000", "001")
    ]
    test = image_folders.judged(tmp_path)
    truth = tmp_path / "ground_truth" / "crack"
    assert [(e.name, e.kind, e.mask) for e in test] == [
        ("test/crack/000.png", "crack", truth / "000_mask.png"),
        ("test/crack/001.png", "crack", truth / "001_mask.png"),
        ("test/good/000.png", "good", None),
    ]


def test_benchmark_without_ground_truth_has_no_masks(tmp_path):
    touch(tmp_path, *BENCHMARK[:5])
    assert all(entry.mask is None for entry in image_folders.judged(tmp_path))


def test_slices_are_ordered_by_number_and_grouped_by_case(tmp_path):
    touch(tmp_path, *CASES, *LITTER)
    entries = image_folders.cases(tmp_path)
    assert [(e.name, e.group) for e in entries] == [("p2/a_2.tif", "p2"), ("p2/a_10.tif", "p2"), ("p10/b.png", "p10")]
    assert [e.mask.name for e in entries if e.mask] == ["a_2_mask.tif", "a_10_mask.tif", "b_mask.tif"]


def test_unlabelled_walks_below_and_passes_over_masks(tmp_path):
    touch(tmp_path, *CASES, "top.npy", *LITTER)
    names = [entry.name for entry in image_folders.unlabelled(tmp_path)]
    assert names == ["p2/a_2.tif", "p2/a_10.tif", "p10/b.png", "top.npy"]
    assert [e.name for e in image_folders.unlabelled(tmp_path / "top.npy")] == ["top.npy"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "neither train/good and test, nor folders of cases"),
        (("notes.txt", "x/y/z.png"), "neither train/good and test"),
        (("bottle/train/good/0.png", "bottle/test/good/0.png"), "pass a folder below it, like .*bottle$"),
        (("train/good/0.png",), "pass a folder below it, like .*train/good$"),
    ],
)
def test_no_layout_says_what_would_be_one(tmp_path, names, said):
    touch(tmp_path, *names)
    with pytest.raises(InputError, match=said):
        image_folders.layout_of(tmp_path)


def test_a_folder_that_is_none_is_named(tmp_path):
    touch(tmp_path, "a.txt")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        image_folders.layout_of(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"a\.txt: is a file; pass its folder"):
        image_folders.layout_of(tmp_path / "a.txt")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        image_folders.unlabelled(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no PNG, JPEG, TIFF or npy image"):
        image_folders.unlabelled(tmp_path)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("ground_truth/crack/001_mask.png", r"test/crack/001\.png: its mask .*crack/001_mask\.\* is missing"),
        ("test/crack/001.png", r"crack/001_mask\.png: a mask, but its image .*test/crack/001\.\* is missing"),
    ],
)
def test_benchmark_image_and_mask_need_each_other(tmp_path, lost, said):
    touch(tmp_path, *BENCHMARK)
    (tmp_path / lost).unlink()
    with pytest.raises(InputError, match=said):
        image_folders.judged(tmp_path)


def test_masks_of_a_kind_that_has_no_images_are_named(tmp_path):
    touch(tmp_path, *BENCHMARK, "ground_truth/scratch/007_mask.png")
    with pytest.raises(InputError, match=r"scratch/007_mask\.png: a mask, but its image"):
        image_folders.judged(tmp_path)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("p2/a_2_mask.tif", r"p2/a_2\.tif: its mask .*a_2_mask\.\* is missing; a healthy image's is all zero"),
        ("p2/a_2.tif", r"p2/a_2_mask\.tif: a mask, but its image .*p2/a_2\.\* is missing"),
    ],
)
def test_a_slice_and_its_mask_need_each_other(tmp_path, lost, said):
    touch(tmp_path, *CASES)
    (tmp_path / lost).unlink()
    with pytest.raises(InputError, match=said):
        image_folders.cases(tmp_path)


def test_two_files_of_one_name_are_no_pair_for_a_mask(tmp_path):
    touch(tmp_path, *CASES, "p2/a_2.png")
    with pytest.raises(InputError, match=r"a_2\.tif: has the same name as a_2\.png"):
        image_folders.cases(tmp_path)


def test_a_mask_among_images_that_all_count_as_healthy_is_refused(tmp_path):
    touch(tmp_path, "a.png", "a_mask.png")
    with pytest.raises(InputError, match=r"a_mask\.png: a mask, but all images here count as healthy"):
        image_folders.healthy(tmp_path, tmp_path)


def test_empty_parts_of_a_benchmark_are_named(tmp_path):
    for folder in ("train/good", "test"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(InputError, match="train/good: no PNG"):
        image_folders.healthy(tmp_path, tmp_path / "train" / "good")
    with pytest.raises(InputError, match="test: no folder of images"):
        image_folders.judged(tmp_path)


def test_volumes_are_told_from_images_that_are_missing(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "scan.nii.gz").touch()
    with pytest.raises(InputError, match=f"{tmp_path}: holds volumes; first run `jaxvae prepare {tmp_path} --out"):
        image_folders.layout_of(tmp_path)
    for place in (tmp_path, tmp_path / "deep" / "scan.nii.gz"):
        with pytest.raises(InputError, match="volumes are scored by a run that was trained on prepared volumes"):
            image_folders.unlabelled(place)
