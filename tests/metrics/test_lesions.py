"""Lesions against a flood fill, detection against sets of voxels, and laws that hold for any masks."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from jaxvae.errors import InputError
from jaxvae.metrics.lesions import Detection, bounding_box, detection, detection_rates, lesions, match


def draw(seed: int, share: float = 0.08, shape: tuple[int, int, int] = (9, 10, 11)) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


def flood(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Components as sets of voxels, neighbours being those that differ by no more than one in each coordinate."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    components = []
    while left:
        reached = [left.pop()]
        component = set(reached)
        while reached:
            voxel = reached.pop()
            near = {tuple(np.add(voxel, offset).tolist()) for offset in product((-1, 0, 1), repeat=3)} & left
            left -= near
            component |= near
            reached += near
        components.append(component)
    return components


def counted(predicted: np.ndarray, mask: np.ndarray, overlap: float, smallest: int) -> tuple[int, int, int]:
    marked, voxels = set(map(tuple, np.argwhere(mask).tolist())), set(map(tuple, np.argwhere(predicted).tolist()))
    large = [lesion for lesion in flood(mask) if len(lesion) >= smallest]
    detected = [lesion for lesion in large if len(lesion & voxels) >= max(1, overlap * len(lesion))]
    return len(large), len(detected), sum(not component & marked for component in flood(predicted))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("smallest", [1, 2, 5])
def test_lesions_are_those_of_a_flood_fill(seed, smallest):
    mask = draw(seed)
    labels, number = lesions(mask, smallest=smallest)
    found = [set(map(tuple, np.argwhere(labels == i + 1).tolist())) for i in range(number)]
    expected = [component for component in flood(mask) if len(component) >= smallest]
    assert labels.dtype == np.int32
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    assert np.count_nonzero(labels) == sum(map(len, expected))


def test_corners_connect():
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[[0, 1, 2], [0, 1, 0], [0, 1, 0]] = True
    assert lesions(mask).number == 1
    mask[1, 1, 1] = False
    assert lesions(mask).number == 2


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_order_and_position_change_nothing(order):
    mask = np.asarray(draw(3), order=order)
    labels, number = lesions(mask)
    padded, padded_number = lesions(np.pad(mask, ((3, 0), (0, 2), (1, 4))))
    assert number == padded_number
    np.testing.assert_array_equal(padded[3:, :-2, 1:-4], labels)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("overlap", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("smallest", [1, 3])
def test_detection_is_that_of_sets_of_voxels(seed, overlap, smallest):
    mask = draw(seed)
    predicted = draw(seed + 100, 0.04) | (mask & draw(seed + 200, 0.3))
    expected = counted(predicted, mask, overlap, smallest)
    assert detection(predicted, mask, overlap=overlap, smallest=smallest) == expected
    assert match(lesions(predicted), lesions(mask, smallest=smallest), mask, overlap=overlap) == expected


def test_the_mask_finds_all_of_itself_and_nothing_finds_nothing():
    mask = draw(0)
    number = lesions(mask).number
    nothing = np.zeros_like(mask)
    assert detection(mask, mask, overlap=1.0) == Detection(number, number, 0)
    assert detection(nothing, mask) == Detection(number, 0, 0)
    assert detection(mask, nothing) == Detection(0, 0, number)
    assert detection(nothing, nothing) == Detection(0, 0, 0)


def test_a_lesion_too_small_to_count_is_no_false_positive():
    mask = np.zeros((1, 1, 5), dtype=bool)
    mask[0, 0, 0] = True
    assert detection(mask, mask, smallest=2) == Detection(0, 0, 0)


def test_more_overlap_never_detects_more():
    mask = draw(1, 0.2)
    predicted = draw(2, 0.3)
    detected = [detection(predicted, mask, overlap=overlap).detected for overlap in np.linspace(0, 1, 11)]
    assert detected == sorted(detected, reverse=True)


def test_rates_pool_lesions_and_average_volumes():
    volumes = [Detection(10, 9, 0), Detection(1, 0, 3), Detection(0, 0, 3)]
    assert detection_rates(volumes) == (9 / 11, 2.0)
    assert detection_rates([Detection(0, 0, 4)]) == (None, 4.0)
    with pytest.raises(InputError, match="at least one volume"):
        detection_rates([])


@pytest.mark.parametrize("seed", range(3))
def test_the_bounding_box_is_the_smallest(seed):
    mask = draw(seed, 0.004)
    voxels = np.argwhere(mask)
    box = bounding_box(mask)
    assert [side.start for side in box] == voxels.min(axis=0).tolist()
    assert [side.stop for side in box] == (voxels.max(axis=0) + 1).tolist()
    assert mask[bounding_box(mask & False)].size == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda mask: lesions(mask.astype(np.uint8)), "mask has dtype uint8"),
        (lambda mask: lesions(mask[0]), r"mask has shape \(10, 11\)"),
        (lambda mask: detection(mask[1:], mask), "give two of one shape"),
        (lambda mask: detection(mask, mask, overlap=1.5), "overlap=1.5"),
    ],
)
def test_what_is_no_volume_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(draw(0))


@pytest.mark.parametrize(("found", "size"), [(7, 100), (14, 25), (3, 10)])
def test_exactly_the_share_that_is_asked_for_is_enough(found, size):
    mask, predicted = np.zeros((1, 1, size), bool), np.zeros((1, 1, size), bool)
    mask[:], predicted[..., :found] = True, True
    assert detection(predicted, mask, overlap=found / size).detected == 1
