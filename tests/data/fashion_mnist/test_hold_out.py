"""FashionMNIST with a held-out class."""

from __future__ import annotations

import numpy as np
import pytest

from fashion_files import TEST_LABELS, TRAIN_IMAGES, look_alike
from jaxvae.data import fashion_mnist
from jaxvae.data.fashion_mnist import idx_files
from jaxvae.errors import InputError


def test_held_out_class_is_only_in_the_test(tmp_path):
    arrays = look_alike(tmp_path)
    splits = fashion_mnist.load(tmp_path, hold_out=8, validation=0.25, verify=False)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (27, 9, 20)
    for healthy in (splits.train, splits.validation):
        assert not healthy.labels.any()
        assert "Bag" not in healthy.kinds
    assert not set(splits.train.names) & set(splits.validation.names)
    np.testing.assert_array_equal(splits.test.labels, arrays[TEST_LABELS] == 8)
    assert splits.test.kinds == tuple(fashion_mnist.CLASSES[i] for i in arrays[TEST_LABELS])
    for part in (splits.train, splits.validation):
        index = [int(name.removeprefix("train/")) for name in part.names]
        np.testing.assert_array_equal(part.images[..., 0], arrays[TRAIN_IMAGES][index])


def test_scaling_stacks_the_image(tmp_path):
    look_alike(tmp_path)
    one = fashion_mnist.load(tmp_path, hold_out=0, verify=False).test.images
    three = fashion_mnist.load(tmp_path, hold_out=0, scaling=3, verify=False).test.images
    assert three.shape == (20, 84, 28, 1)
    assert three.dtype == np.uint8
    np.testing.assert_array_equal(three, np.concatenate([one, one, one], axis=1))


@pytest.mark.parametrize("hold_out", [None, -1, 10, "Bag", True, 8.0])
def test_only_a_class_can_be_held_out(tmp_path, hold_out):
    with pytest.raises(InputError, match=r"hold_out=.*0\.\.9.*8 Bag"):
        fashion_mnist.load(tmp_path, hold_out=hold_out)


@pytest.mark.parametrize("arguments", [{"scaling": 0}, {"scaling": 1.5}, {"validation": 1.0}, {"validation": -0.1}])
def test_arguments_out_of_range_are_named(tmp_path, arguments):
    with pytest.raises(InputError, match=f"^{next(iter(arguments))}="):
        fashion_mnist.load(tmp_path, hold_out=8, **arguments)


@pytest.mark.parametrize("exists", [False, True])
def test_missing_files_are_named_with_the_download_command(tmp_path, exists):
    directory = tmp_path if exists else tmp_path / "nowhere"
    with pytest.raises(InputError, match=f"jaxvae prepare fashion_mnist:{directory}") as error:
        fashion_mnist.load(directory, hold_out=8)
    assert all(f"{name}.gz" in str(error.value) for name in idx_files.SHA256)


def test_one_missing_file_is_named(tmp_path):
    look_alike(tmp_path)
    (tmp_path / f"{TEST_LABELS}.gz").unlink()
    with pytest.raises(InputError, match=f"no {TEST_LABELS}.gz there"):
        fashion_mnist.load(tmp_path, hold_out=8, verify=False)


def test_other_files_need_verify_false(tmp_path):
    look_alike(tmp_path)
    with pytest.raises(InputError, match=r"not the official file.*verify=False"):
        fashion_mnist.load(tmp_path, hold_out=8)


def test_the_official_files(data):
    splits = fashion_mnist.load(data / "fashion-mnist", hold_out=8, validation=0.1, seed=1)
    assert splits.train.images.shape == (48600, 28, 28, 1)
    assert splits.validation.images.shape == (5400, 28, 28, 1)
    assert splits.test.images.shape == (10000, 28, 28, 1)
    assert splits.test.labels.sum() == 1000
    assert {splits.test.kinds[i] for i in np.flatnonzero(splits.test.labels)} == {"Bag"}
    # The mean grey value of the 60,000 training images is known to be 0.2860.
    images = fashion_mnist.read_idx(data / "fashion-mnist" / f"{TRAIN_IMAGES}.gz")
    assert images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
