"""Folders as data sets: splits, masks, and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvae.data import images
from jaxvae.data.images.image_files import read
from jaxvae.data.images.preparation import Preparation
from jaxvae.data.resampling import resize
from jaxvae.errors import InputError


def picture(path: Path, seed: int = 0, shape: tuple[int, ...] = (12, 16, 3)) -> np.ndarray:
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return written(path, array)


def written(path: Path, array: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return array


def square(value: int = 255) -> np.ndarray:
    mask = np.zeros((12, 16), np.uint8)
    mask[2:5, 3:9] = value
    return mask


@pytest.fixture
def benchmark(tmp_path) -> Path:
    for i in range(10):
        picture(tmp_path / "train" / "good" / f"{i}.png", i)
    for i in range(3):
        picture(tmp_path / "test" / "good" / f"{i}.png", 20 + i)
        picture(tmp_path / "test" / "hole" / f"{i}.png", 30 + i)
        written(tmp_path / "ground_truth" / "hole" / f"{i}_mask.png", square())
    return tmp_path


@pytest.fixture
def cases(tmp_path) -> Path:
    """Ten patients of four slices; the third slice of each has a lesion."""
    for patient in range(10):
        for i in range(4):
            picture(tmp_path / f"p{patient}" / f"s_{i}.png", 10 * patient + i)
            written(tmp_path / f"p{patient}" / f"s_{i}_mask.png", square(255 if i == 2 else 0))
    return tmp_path


def test_load_splits_a_benchmark_folder(benchmark):
    splits = images.load(benchmark, validation=0.2)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (8, 2, 6)
    assert splits.train.masks is None
    assert splits.validation.masks is None
    assert {*splits.train.names} | {*splits.validation.names} == {f"train/good/{i}.png" for i in range(10)}
    assert splits.test.kinds == ("good",) * 3 + ("hole",) * 3
    np.testing.assert_array_equal(splits.test.labels, [False] * 3 + [True] * 3)
    assert splits.test.masks is not None
    np.testing.assert_array_equal(splits.test.masks[..., 0], [0 * square() > 0] * 3 + [square() > 0] * 3)
    for dataset in (splits.train, splits.validation, splits.test):
        assert dataset.images.dtype == np.uint8
        for image, name in zip(dataset.images, dataset.names, strict=True):
            np.testing.assert_array_equal(image, read(benchmark / name))


def test_cases_stay_together_and_training_slices_are_healthy(cases):
    splits = images.load(cases, validation=0.25, test=0.4, seed=3)
    groups = [{*part.groups} for part in (splits.train, splits.validation, splits.test)]
    assert [len(g) for g in groups] == [4, 2, 4]  # 4 of 10 are tested on, a quarter of 6 is rounded to 2
    assert set.union(*groups) == {f"p{i}" for i in range(10)}
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (12, 6, 16)
    assert not splits.train.labels.any()
    assert not splits.validation.labels.any()
    np.testing.assert_array_equal(splits.test.labels, [name.endswith("s_2.png") for name in splits.test.names])
    assert splits.test.masks is not None
    np.testing.assert_array_equal(splits.test.masks.any(axis=(1, 2, 3)), splits.test.labels)
    assert {*splits.test.kinds} == {"good", "anomalous"}


def test_the_seed_alone_decides_the_split(cases):
    one, same, other = (images.load(cases, seed=seed).test.groups for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_flat_folder_is_all_healthy(tmp_path):
    for i in range(5):
        picture(tmp_path / f"{i}.png", i)
    splits = images.load(tmp_path, validation=0.2)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (4, 1, 0)
    assert splits.test.images.shape == (0, 12, 16, 3)
    assert splits.train.kinds == ("good",) * 4


def test_a_folder_to_score_has_no_labels_or_masks(cases):
    dataset = images.read_folder(cases)
    assert len(dataset) == 40
    assert not dataset.labels.any()
    assert dataset.masks is None
    one = images.read_folder(cases / "p3" / "s_1.png")
    assert one.names == ("s_1.png",)
    np.testing.assert_array_equal(one.images[0], dataset.images[dataset.names.index("p3/s_1.png")])


def test_images_are_in_the_order_of_their_names(cases):
    dataset = images.read_folder(cases)
    for image, name in zip(dataset.images, dataset.names, strict=True):
        np.testing.assert_array_equal(image, read(cases / name))


def test_masks_are_resized_with_their_images(benchmark):
    splits = images.load(benchmark, preparation=Preparation(size=8))
    assert splits.test.images.shape == (6, 8, 8, 3)
    assert splits.test.images.dtype == np.float32
    assert splits.test.masks is not None
    expected = resize(square()[..., None] > 0, 8, kind="mask")
    np.testing.assert_array_equal(splits.test.masks[3:], [expected] * 3)


def test_a_lesion_lost_in_resizing_still_counts(cases):
    splits = images.load(cases, preparation=Preparation(size=1))
    assert splits.test.masks is not None
    assert not splits.test.masks.any()
    assert splits.test.labels.sum() == 3


@pytest.mark.parametrize("value", [1, 2, 255])
def test_every_nonzero_mask_value_is_anomalous(benchmark, value):
    written(benchmark / "ground_truth" / "hole" / "1_mask.png", square(value))
    coloured = np.stack([square(0), square(value), square(0)], axis=-1)
    written(benchmark / "ground_truth" / "hole" / "2_mask.png", coloured)
    masks = images.load(benchmark).test.masks
    assert masks is not None
    np.testing.assert_array_equal(masks[3:, ..., 0], [square() > 0] * 3)


def test_all_masks_of_an_image_count(tmp_path):
    """As in MVTec LOCO, where each defect of an image has a separate mask."""
    for i in range(3):
        picture(tmp_path / "train" / "good" / f"{i}.png", i)
    picture(tmp_path / "validation" / "good" / "0.png", 7)
    picture(tmp_path / "test" / "logical_anomalies" / "000.png", 8)
    first, second = square(), np.roll(square(200), 5, axis=0)
    for i, mask in enumerate((first, second)):
        written(tmp_path / "ground_truth" / "logical_anomalies" / "000" / f"{i:03d}.png", mask)
    splits = images.load(tmp_path)
    assert (splits.train.names, splits.validation.names) == (
        tuple(f"train/good/{i}.png" for i in range(3)),
        ("validation/good/0.png",),
    )
    assert splits.test.masks is not None
    np.testing.assert_array_equal(splits.test.masks[0, ..., 0], (first > 0) | (second > 0))


def test_halves_train_on_their_healthy_images(tmp_path):
    """As in KolektorSDD2, whose training images include defects."""
    for i in range(6):
        for half in ("train", "test"):
            picture(tmp_path / half / f"{i}.png", i)
            written(tmp_path / half / f"{i}_GT.png", square(255 if i < 2 else 0))
    splits = images.load(tmp_path, validation=0)
    assert splits.train.names == tuple(f"train/{i}.png" for i in range(2, 6))
    np.testing.assert_array_equal(splits.test.labels, [True, True, False, False, False, False])
    assert splits.notices == ("2 images with anomalies are not trained on",)


def test_a_mask_with_an_anomaly_among_healthy_images_is_refused(tmp_path):
    for kind in ("good", "Ungood"):
        picture(tmp_path / "test" / kind / "img" / "0.png")
        written(tmp_path / "test" / kind / "label" / "0.png", square())
    picture(tmp_path / "train" / "good" / "0.png")
    with pytest.raises(
        InputError, match=r"good/label/0\.png: shows an anomaly, but .* is in a folder of healthy images"
    ):
        images.load(tmp_path, validation=0)


def test_thresholded_masks_are_counted(benchmark):
    soft = np.asarray(Image.fromarray(np.kron(square(), np.ones((4, 4), np.uint8))).resize((16, 12), Image.BILINEAR))
    for i in range(2):
        written(benchmark / "ground_truth" / "hole" / f"{i}_mask.png", soft)
    splits = images.load(benchmark)
    assert splits.test.masks is not None
    np.testing.assert_array_equal(splits.test.masks[3:, ..., 0], [square() > 0] * 3)
    assert splits.notices == (
        "2 masks: its values, from 0 to 255, are not labels; those from 127.5 upwards were taken as positive",
    )


def test_a_rotated_photograph_with_an_unrotated_mask_is_named(benchmark):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = benchmark / "test" / "hole" / "1.png"
    Image.fromarray(picture(path)).save(path, exif=exif)
    with pytest.raises(
        InputError,
        match=r"1_mask\.png: 16x12 pixels, but .* 12x16 pixels; 1\.png was rotated by its EXIF orientation 6",
    ):
        images.load(benchmark)


def test_the_noise_of_a_jpeg_mask_is_not_anomalous(cases):
    for patient in range(10):
        folder = cases / f"p{patient}"
        for i in range(4):
            (folder / f"s_{i}_mask.png").unlink()
            noise = np.random.default_rng(i).integers(0, 9, (12, 16), dtype=np.uint8)
            Image.fromarray(np.maximum(square(255 if i == 2 else 0), noise)).save(folder / f"s_{i}_mask.jpg")
    splits = images.load(cases)
    np.testing.assert_array_equal(splits.test.labels, [name.endswith("s_2.png") for name in splits.test.names])


def test_mixed_depths_get_one_scale(tmp_path):
    shallow = picture(tmp_path / "a.png", shape=(4, 4))
    written(tmp_path / "b.npy", shallow.astype(np.uint16) * 257)
    picture(tmp_path / "c.png", shape=(4, 4))
    dataset = images.read_folder(tmp_path)
    assert dataset.images.dtype == np.float32
    for image in dataset.images:
        np.testing.assert_allclose(image[..., 0], shallow / 255, rtol=1e-6)


def test_two_sizes_are_refused_with_both_files(tmp_path):
    picture(tmp_path / "a.png", shape=(4, 6, 3))
    picture(tmp_path / "b.png", shape=(5, 6, 3))
    with pytest.raises(InputError, match=r"b\.png: 6x5 pixels, but .*a\.png has 6x4 pixels; pass `size`"):
        images.read_folder(tmp_path)
    assert images.read_folder(tmp_path, preparation=Preparation(size=3)).images.shape == (2, 3, 3, 3)


def test_two_numbers_of_channels_are_refused_with_both_files(tmp_path):
    picture(tmp_path / "a.png", shape=(4, 6, 3))
    picture(tmp_path / "b.png", shape=(4, 6))
    with pytest.raises(InputError, match=r"b\.png: 1 channels, but .*a\.png has 3; pass as `channels`"):
        images.read_folder(tmp_path)
    assert images.read_folder(tmp_path, preparation=Preparation(channels=(0,))).images.shape == (2, 4, 6, 1)
    with pytest.raises(InputError, match=r"b\.png: channels=\(1,\): channels are counted from 0; the image has 1"):
        images.read_folder(tmp_path, preparation=Preparation(channels=(1,)))


def test_a_mask_of_another_size_is_named(benchmark):
    written(benchmark / "ground_truth" / "hole" / "1_mask.png", np.zeros((16, 12), np.uint8))
    with pytest.raises(InputError, match=r"hole/1_mask\.png: 12x16 pixels, but its image .*1\.png has 16x12"):
        images.load(benchmark, preparation=Preparation(size=8))


@pytest.mark.parametrize("broken", ["train/good/7.png", "test/hole/2.png", "ground_truth/hole/2_mask.png"])
def test_a_broken_file_is_named(benchmark, broken):
    (benchmark / broken).write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    with pytest.raises(InputError, match=f"^{benchmark / broken}: "):
        images.load(benchmark)


@pytest.mark.parametrize("arguments", [{"validation": 1}, {"validation": -0.1}, {"test": 1.5}, {"test": float("nan")}])
def test_fractions_out_of_range_are_named(benchmark, arguments):
    with pytest.raises(InputError, match=f"^{next(iter(arguments))}="):
        images.load(benchmark, **arguments)


def test_too_few_groups_to_split_are_refused(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"validation=0\.1: .* has too few images or cases for it; pass 0"):
        images.load(tmp_path)
    assert len(images.load(tmp_path, validation=0).train) == 1


def test_cases_without_a_healthy_slice_are_refused(tmp_path):
    for patient in range(4):
        picture(tmp_path / f"p{patient}" / "s.png", patient)
        written(tmp_path / f"p{patient}" / "s_mask.png", square())
    with pytest.raises(InputError, match="no slice of the cases to train on is healthy"):
        images.load(tmp_path)


def test_no_progress_bar_without_a_terminal(cases, capfd):
    images.read_folder(cases)
    assert capfd.readouterr() == ("", "")


def test_brain_slices(data):
    folder = data / "lgg-mri-segmentation" / "kaggle_3m"
    splits = images.load(folder, preparation=Preparation(size=64, channels=(1,), normalise="zscore"))
    groups = [{*part.groups} for part in (splits.train, splits.validation, splits.test)]
    assert sum(len(g) for g in groups) == len(set.union(*groups)) == 28
    assert splits.train.images.shape[1:] == (64, 64, 1)
    assert not splits.train.labels.any()
    assert {*splits.test.kinds} == {"good", "anomalous"}
    everything = images.read_folder(folder, preparation=Preparation(size=8))
    assert len(everything) == 601


def test_photographs_of_a_spindle(data):
    splits = images.load(data / "bsdata-pitting", preparation=Preparation(size=128))
    assert (len(splits.train) + len(splits.validation), len(splits.test)) == (66, 62)
    assert splits.test.labels.sum() == 40
    assert splits.test.masks is not None
    assert not splits.test.masks[~splits.test.labels].any()
    assert 0 <= splits.train.images.min() < splits.train.images.max() <= 1
    with pytest.raises(InputError, match=r"pass a folder below it, like .*kaggle_3m"):
        images.load(data / "lgg-mri-segmentation")
