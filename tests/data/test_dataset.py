"""Data sets: selection, splits by group, and fingerprints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jaxvae.data.dataset import (
    Dataset,
    check_fraction,
    contents,
    is_among,
    same_contents,
    set_aside,
    sketches,
    take,
)
from jaxvae.errors import InputError


def dataset(count: int = 12, groups: int = 5) -> Dataset:
    """Images whose pixels are their number, like all other fields."""
    images = np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None, None], (count, 2, 3, 1)).copy()
    return Dataset(
        images=images,
        labels=np.arange(count) % 2 == 1,
        masks=images % 2 == 1,
        names=tuple(map(str, range(count))),
        groups=tuple(f"g{i % groups}" for i in range(count)),
        kinds=tuple("odd" if i % 2 else "even" for i in range(count)),
    )


def assert_whole(part: Dataset) -> None:
    for i, name in enumerate(part.names):
        number = int(name)
        assert (part.images[i] == number).all()
        assert part.labels[i] == number % 2
        assert part.kinds[i] == ("odd" if number % 2 else "even")
        assert part.groups[i] == f"g{number % 5}"
        assert part.masks is None or (part.masks[i] == number % 2).all()


@pytest.mark.parametrize("index", [np.array([7, 0, 3]), np.arange(12) > 4, np.array([], int)])
def test_take_selects_all_fields_of_an_image(index):
    part = take(dataset(), index)
    assert part.names == tuple(np.arange(12)[index].astype(str))
    assert_whole(part)
    assert_whole(take(replace(dataset(), masks=None), index))


def test_taking_all_images_copies_nothing():
    everything = dataset()
    assert take(everything, np.ones(12, bool)) is everything


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("seed", range(3))
def test_groups_are_split_and_never_cut(fraction, seed):
    rest, part = set_aside("here", dataset(), "test", fraction, seed)
    assert sorted(rest.names + part.names, key=int) == [str(i) for i in range(12)]
    assert not {*rest.groups} & {*part.groups}
    assert len({*part.groups}) == (0 if fraction == 0 else min(max(1, round(5 * fraction)), 4))
    assert_whole(rest)
    assert_whole(part)


def test_the_seed_decides_the_split():
    parts = [set_aside("here", dataset(), "test", 0.4, seed)[1].names for seed in (0, 0, 1, 2, 3)]
    assert parts[0] == parts[1]
    assert len(set(parts)) > 1


def test_one_group_cannot_be_split():
    with pytest.raises(InputError, match=r"test=0.3: here has too few images or cases for it; pass 0"):
        set_aside("here", dataset(groups=1), "test", 0.3, 0)
    for fraction in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="must be at least 0 and below 1"):
            check_fraction("test", fraction)


def test_contents_see_every_pixel_and_the_order_of_images():
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    was = contents(images[:15], images[15:])
    assert same_contents(was, contents(images))
    assert same_contents(was, contents(images.copy()))
    one_level = images.copy()
    one_level[7, 3, 4, 1] ^= 1
    for other in (one_level, 255 - images, images[::-1], images[:, ::-1], images[:, :, ::-1], images[..., ::-1]):
        assert not same_contents(was, contents(other))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 4096.0])
def test_contents_are_equal_up_to_rounding(scale):
    images = (scale * np.random.default_rng(0).random((200, 16, 16, 1))).astype(np.float32)
    rounded = np.nextafter(images, np.where(np.random.default_rng(1).random(images.shape) < 0.5, -np.inf, np.inf))
    assert not np.array_equal(images, rounded)
    assert same_contents(contents(images), contents(rounded.astype(np.float32)))
    images[9, 2, 2] *= 1.01
    assert not same_contents(contents(images), contents(rounded.astype(np.float32)))


def test_images_are_recognised_by_their_pixels():
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), np.uint8)
    again = np.concatenate([images[[250, 3]], images[:1] ^ 1, 255 - images[:2]])
    assert is_among(sketches(again), sketches(images)).tolist() == [True, True, False, False, False]
    assert is_among(sketches(again), np.empty((0, 3))).tolist() == [False] * 5
