"""Layouts are recognised by file names, and errors are found before any image is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxvae.data.images import folders
from jaxvae.data.images.tree import mask_stem
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
VISA = (
    "object,split,label,image,mask\n"
    "candle,train,normal,candle/Data/Images/Normal/0001.JPG,\n"
    "candle,test,normal,candle/Data/Images/Normal/0002.JPG,\n"
    "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png\n"
    "pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,\n"
)
# Data sets as downloaded: the files, and their (train, validation, (test, kind, masks)).
DOWNLOADED = {
    "MVTec AD": (BENCHMARK, ["train/good/000.png", "train/good/001.png"], [], [
        ("test/crack/000.png", "crack", ["ground_truth/crack/000_mask.png"]),
        ("test/crack/001.png", "crack", ["ground_truth/crack/001_mask.png"]),
        ("test/good/000.png", "good", []),
    ]),
    "MVTec LOCO": (
        ("train/good/0.png", "validation/good/1.png", "test/good/2.png", "test/logical_anomalies/0.png",
         "test/structural_anomalies/0.png", "ground_truth/logical_anomalies/0/000.png",
         "ground_truth/logical_anomalies/0/001.png", "ground_truth/structural_anomalies/0/000.png"),
        ["train/good/0.png"], ["validation/good/1.png"], [
            ("test/good/2.png", "good", []),
            ("test/logical_anomalies/0.png", "logical_anomalies",
             ["ground_truth/logical_anomalies/0/000.png", "ground_truth/logical_anomalies/0/001.png"]),
            ("test/structural_anomalies/0.png", "structural_anomalies",
             ["ground_truth/structural_anomalies/0/000.png"]),
        ]),
    "VisA for PyTorch": (
        ("train/good/0.JPG", "test/good/1.JPG", "test/bad/000.JPG", "ground_truth/bad/000.png"),
        ["train/good/0.JPG"], [], [
            ("test/bad/000.JPG", "bad", ["ground_truth/bad/000.png"]), ("test/good/1.JPG", "good", []),
        ]),
    "BTech": (
        ("train/ok/0000.bmp", "test/ok/0001.bmp", "test/ko/0000.bmp", "ground_truth/ko/0000.png"),
        ["train/ok/0000.bmp"], [], [
            ("test/ko/0000.bmp", "ko", ["ground_truth/ko/0000.png"]), ("test/ok/0001.bmp", "good", []),
        ]),
    "BMAD with pixels": (
        ("train/good/1.png", "valid/good/img/2.png", "valid/Ungood/img/3.png", "valid/Ungood/label/3.png",
         "test/good/img/4.png", "test/good/label/4.png", "test/Ungood/img/5.png", "test/Ungood/label/5.png"),
        ["train/good/1.png"], ["valid/good/img/2.png"], [
            ("test/Ungood/img/5.png", "Ungood", ["test/Ungood/label/5.png"]),
            ("test/good/img/4.png", "good", ["test/good/label/4.png"]),
        ]),
    "BMAD of whole images": (
        ("train/good/img/1.png", "valid/good/2.png", "test/good/4.png", "test/Ungood/5.png"),
        ["train/good/img/1.png"], ["valid/good/2.png"],
        [("test/Ungood/5.png", "Ungood", []), ("test/good/4.png", "good", [])],
    ),
    "MVTec AD 2": (
        ("train/good/0.png", "validation/good/1.png", "test_public/good/2.png", "test_public/bad/3_regular.png",
         "test_public/ground_truth/bad/3_regular_mask.png"),
        ["train/good/0.png"], ["validation/good/1.png"], [
            ("test_public/bad/3_regular.png", "bad", ["test_public/ground_truth/bad/3_regular_mask.png"]),
            ("test_public/good/2.png", "good", []),
        ]),
    "KolektorSDD2": (
        ("train/10000.png", "train/10000_GT.png", "train/10001.png", "train/10001_GT.png", "test/2.png",
         "test/2_GT.png"),
        ["train/10000.png", "train/10001.png"], [], [("test/2.png", None, ["test/2_GT.png"])],
    ),
    "KolektorSDD": (
        ("kos01/Part0.jpg", "kos01/Part0_label.bmp", "kos01/Part10.jpg", "kos01/Part10_label.bmp",
         "kos02/Part2.jpg", "kos02/Part2_label.bmp"),
        ["kos01/Part0.jpg", "kos01/Part10.jpg", "kos02/Part2.jpg"], [], [],
    ),
}  # fmt: skip


def trained_on(directory: Path) -> list:
    found = folders.find(directory)
    folders.refuse_without_training(directory, found)
    return found.train


def names(root: Path, paths) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


@pytest.mark.parametrize("data_set", DOWNLOADED)
def test_downloaded_benchmarks_are_recognised(tmp_path, data_set):
    files, train, validation, test = DOWNLOADED[data_set]
    tmp_path = touch(tmp_path / "data", *files)
    found = folders.find(tmp_path)
    assert [entry.name for entry in found.train] == train
    assert [entry.name for entry in found.validation] == validation
    assert [(entry.name, entry.kind, names(tmp_path, entry.masks)) for entry in found.test] == test
    used = {*names(tmp_path, [path for entry in (*found.train, *found.validation, *found.test)
                              for path in (entry.path, *entry.masks)])}  # fmt: skip
    assert used | {*names(tmp_path, [one.path for one in found.left_out])} == {*files}
    # For the folder above, the message names the folder to pass.
    with pytest.raises(InputError, match=f"pass a folder below it, like {tmp_path}$"):
        folders.find(tmp_path.parent)


def test_visa_is_split_by_its_table(tmp_path):
    touch(
        tmp_path / "candle", "Data/Images/Normal/0001.JPG", "Data/Images/Normal/0002.JPG", "Data/Masks/Anomaly/000.png"
    )
    touch(tmp_path / "candle", "Data/Images/Normal/0003.JPG", "Data/Images/Anomaly/000.JPG", "image_anno.csv")
    with pytest.raises(
        InputError,
        match=r"has the folders of VisA, but .*split_csv/1cls\.csv with its splits is missing; copy it there",
    ):
        folders.find(tmp_path / "candle")
    table = tmp_path / "split_csv" / "1cls.csv"
    table.parent.mkdir()
    table.write_text(VISA)
    found = folders.find(tmp_path / "candle")
    assert [entry.name for entry in found.train] == ["Data/Images/Normal/0001.JPG"]
    assert [(entry.path.name, entry.kind, len(entry.masks)) for entry in found.test] == [
        ("0002.JPG", "good", 0),
        ("000.JPG", "anomaly", 1),
    ]
    assert folders.summary(found.left_out) == "left out: 1 file (.csv), 1 image (in Data/Images/Normal)"
    with pytest.raises(InputError, match=r"pass a folder below it, like .*candle"):
        folders.find(tmp_path)
    for wrong, said in (
        (VISA.replace("candle/Data/Images/Normal/0002", "candle/../../etc/0002"), "is outside its folder"),
        (VISA.replace("0002", "0009"), r"0009\.JPG, which is missing"),
        (VISA.replace("candle,train,normal", "candle,train,anomaly"), r"000\.png|missing|trains on anomalous"),
        ("a,b\n1,2\n", "lacks one of the columns"),
        (VISA.replace("candle", "pcb2"), "has no training images of candle"),
    ):
        table.write_text(wrong)
        with pytest.raises(InputError, match=said):
            folders.find(tmp_path / "candle")


@pytest.mark.parametrize(
    ("files", "layout"), [(BENCHMARK, "benchmark"), (CASES, "cases"), (("a.png", "b.JPG", "c.webp", "d.BMP"), "flat")]
)
def test_layouts_are_recognised_and_other_files_counted(tmp_path, files, layout):
    touch(tmp_path, *files, *LITTER)
    found = folders.find(tmp_path)
    assert found.layout == layout
    assert sorted(names(tmp_path, [one.path for one in found.left_out])) == sorted(
        [".DS_Store", "._a.png", ".hidden", "LICENSE", "README.md", "data.csv"]
    )
    said = folders.summary(found.left_out)
    assert said.startswith("left out: 3 hidden files, ")
    for words in ("1 file (without suffix)", "1 file (.md)", "1 file (.csv)"):
        assert words in said


def test_every_unused_file_is_listed(tmp_path):
    touch(tmp_path, *BENCHMARK, "train/bad/0.png", "train/good/2.txt", "train/good/3.gif", "train/good/001_Mask.png")
    touch(tmp_path, "train/good/more/9.png", "extra/0.png", "test/5.png")
    found = folders.find(tmp_path)
    assert [entry.name for entry in found.train] == ["train/good/000.png", "train/good/001.png"]
    reasons = {
        record["path"].removeprefix(f"{tmp_path}/"): record["reason"] for record in folders.records(found.left_out)
    }
    assert reasons == {
        "train/bad/0.png": "image (in train/bad)",
        "train/good/2.txt": "file (.txt)",
        "train/good/3.gif": "file (.gif)",
        "train/good/001_Mask.png": "mask",
        "train/good/more/9.png": "image (in train/good/more)",
        "extra/0.png": "image (in extra)",
        "test/5.png": "image (in test)",
    }


@pytest.mark.parametrize(
    "ending", ["_mask", "_Mask", "_MASK", "_GT", "_gt", "_label", "_Label", "_seg", "-mask", "_labels"]
)
def test_masks_are_never_images(tmp_path, ending):
    touch(tmp_path, "a.png", f"a{ending}.png")
    assert mask_stem(tmp_path / f"a{ending}.png") == "a"
    with pytest.raises(InputError, match=rf"a{ending}\.png: is a mask, but all images here count as healthy"):
        folders.find(tmp_path)
    entries, left_out = folders.unlabelled(tmp_path)
    assert [entry.name for entry in entries] == ["a.png"]
    assert folders.summary(left_out) == "left out: 1 mask"
    touch(tmp_path / "cases", "p/a.png", f"p/a{ending}.tif")
    found = folders.find(tmp_path / "cases")
    assert [(entry.name, [mask.name for mask in entry.masks]) for entry in found.train] == [
        ("p/a.png", [f"a{ending}.tif"])
    ]


def test_benchmark_without_ground_truth_has_no_masks(tmp_path):
    touch(tmp_path, *BENCHMARK[:5])
    assert all(not entry.masks for entry in folders.find(tmp_path).test)


def test_slices_are_ordered_by_number_and_grouped_by_case(tmp_path):
    touch(tmp_path, *CASES, *LITTER)
    entries = folders.find(tmp_path).train
    assert [(e.name, e.group) for e in entries] == [("p2/a_2.tif", "p2"), ("p2/a_10.tif", "p2"), ("p10/b.png", "p10")]
    assert [mask.name for e in entries for mask in e.masks] == ["a_2_mask.tif", "a_10_mask.tif", "b_mask.tif"]


def test_a_longer_name_is_a_different_name(tmp_path):
    touch(tmp_path, "p/a_1.png", "p/a_1_mask.png", "p/a_10.png", "p/a_10_mask.png", "p/a_1_b.png", "p/a_1_b_mask.png")
    pairs = [(e.path.stem, [mask.stem for mask in e.masks]) for e in folders.find(tmp_path).train]
    assert pairs == [(stem, [f"{stem}_mask"]) for stem in ("a_1", "a_1_b", "a_10")]


def test_unlabelled_images_exclude_masks(tmp_path):
    touch(tmp_path, *CASES, "top.npy", "ground_truth/x/000/000.png", *LITTER)
    entries, left_out = folders.unlabelled(tmp_path)
    assert [entry.name for entry in entries] == ["p2/a_2.tif", "p2/a_10.tif", "p10/b.png", "top.npy"]
    assert "4 masks" in folders.summary(left_out)
    assert [e.name for e in folders.unlabelled(tmp_path / "top.npy")[0]] == ["top.npy"]


def test_a_dangling_mask_never_makes_an_image_healthy(tmp_path):
    touch(tmp_path / "cases", *CASES)
    (tmp_path / "cases/p2/a_2_mask.tif").unlink()
    (tmp_path / "cases/p2/a_2_mask.tif").symlink_to("../.git/annex/objects/gone")
    touch(tmp_path / "bench", *BENCHMARK)
    (tmp_path / "bench/ground_truth/crack/001_mask.png").unlink()
    (tmp_path / "bench/ground_truth/crack/001_mask.png").symlink_to("gone")
    found = folders.find(tmp_path / "cases")
    assert [entry.name for entry in found.train] == ["p2/a_10.tif", "p10/b.png"]
    said = "left out: 1 broken link (a_2_mask.tif), 1 image (its mask is a broken link)"
    assert folders.summary(found.left_out) == said
    assert [e.name for e in folders.find(tmp_path / "bench").test] == ["test/crack/000.png", "test/good/000.png"]


def test_a_dangling_image_is_named_and_counted(tmp_path):
    touch(tmp_path, *BENCHMARK)
    for i in range(4):
        (tmp_path / f"train/good/x{i}.png").symlink_to("gone")
    found = folders.find(tmp_path)
    assert len(found.train) == 2
    assert folders.summary(found.left_out) == "left out: 4 broken links (x0.png, x1.png, x2.png, ...)"
    for i in range(2):
        (tmp_path / f"train/good/00{i}.png").unlink()
    with pytest.raises(InputError, match=r"no image to train on \(.*x0\.png is a broken link; fetch the"):
        trained_on(tmp_path)


@pytest.mark.parametrize("masks_only", [True, False])
def test_a_folder_of_links_to_nothing_is_not_healthy(tmp_path, masks_only):
    for name in CASES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if "_mask" in name or not masks_only:
            (tmp_path / name).symlink_to("gone")
        else:
            (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"no image to train on \(.* is a broken link; fetch the linked files"):
        trained_on(tmp_path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), "has no known layout; arrange it as train/good and test, as folders of cases"),
        (("notes.txt", "x/y/z/w.png"), r"has no known layout; .*left out: 1 file \(.txt\), 1 image \(in x/y/z\)"),
        (("data/bottle/train/good/0.png", "data/bottle/test/good/0.png"), "pass a folder below it, like .*bottle$"),
        (("train/good/0.png",), "pass a folder below it, like .*train/good$"),
    ],
)
def test_a_folder_without_layout_names_the_layouts(tmp_path, files, said):
    touch(tmp_path, *files)
    with pytest.raises(InputError, match=said):
        folders.find(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    touch(tmp_path, "a.txt")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        folders.find(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"a\.txt: is a file; pass its folder"):
        folders.find(tmp_path / "a.txt")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        folders.unlabelled(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no PNG, JPEG, BMP, WebP, TIFF or npy image .*left out: 1 file \(.txt\)"):
        folders.unlabelled(tmp_path)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("ground_truth/crack/001_mask.png", r"test/crack/001\.png: its mask .*crack/001_mask\.\* is missing"),
        ("test/crack/001.png", r"crack/001_mask\.png: is a mask, but its image .*test/crack/001\.\* is missing"),
    ],
)
def test_benchmark_image_and_mask_need_each_other(tmp_path, lost, said):
    touch(tmp_path, *BENCHMARK)
    (tmp_path / lost).unlink()
    with pytest.raises(InputError, match=said):
        folders.find(tmp_path)


def test_masks_of_a_kind_without_images_are_named(tmp_path):
    touch(tmp_path, *BENCHMARK, "ground_truth/scratch/007_mask.png")
    with pytest.raises(InputError, match=r"scratch/007_mask\.png: is a mask, but its image"):
        folders.find(tmp_path)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("p2/a_2_mask.tif", r"p2/a_2\.tif: its mask .*a_2_mask\.\* is missing; add one \(all zero if healthy\)"),
        ("p2/a_2.tif", r"p2/a_2_mask\.tif: is a mask, but its image .*p2/a_2\.\* is missing"),
    ],
)
def test_a_slice_and_its_mask_need_each_other(tmp_path, lost, said):
    touch(tmp_path, *CASES)
    (tmp_path / lost).unlink()
    with pytest.raises(InputError, match=said):
        folders.find(tmp_path)


@pytest.mark.parametrize("second", ["p2/a_2.png", "p2/a_2_seg.png"])
def test_two_files_of_one_name_are_refused(tmp_path, second):
    touch(tmp_path, *CASES, second)
    with pytest.raises(InputError, match=r"has the same name as a_2\.png|is a second mask of a_2"):
        folders.find(tmp_path)


def test_empty_parts_of_a_benchmark_are_named(tmp_path):
    touch(tmp_path / "a", "train/good/notes.txt", "test/good/0.png")
    with pytest.raises(InputError, match=r"a: no image to train on \(left out: 1 file \(.txt\)\)"):
        trained_on(tmp_path / "a")
    assert [entry.name for entry in folders.find(tmp_path / "a").test] == ["test/good/0.png"]
    touch(tmp_path, "train/good/0.png", "test/notes.txt")
    with pytest.raises(InputError, match=r"test: no folder of images; pass .*train/good to train without test images"):
        folders.find(tmp_path)


def test_a_folder_of_volumes_is_reported(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "scan.nii.gz").touch()
    with pytest.raises(InputError, match=f"{tmp_path}: holds volumes; first run `jaxvae prepare {tmp_path}`"):
        folders.find(tmp_path)
    for place in (tmp_path, tmp_path / "deep" / "scan.nii.gz"):
        with pytest.raises(InputError, match="pass a run that was trained on prepared volumes"):
            folders.unlabelled(place)
