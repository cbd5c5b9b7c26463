"""Components against a flood fill, detection against sets of voxels, and laws for any masks."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from jaxvae.errors import InputError
from jaxvae.metrics.lesions import Detection, bounding_box, components, detect


def draw(seed: int, share: float = 0.08, shape: tuple[int, int, int] = (9, 10, 11)) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


def detected_by(predicted: np.ndarray, mask: np.ndarray, *, overlap: float = 0.0, smallest: int = 1) -> Detection:
    return detect(components(predicted), components(mask, smallest=smallest), mask, overlap=overlap)


def flood(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Components as sets of voxels. Neighbours differ by at most one in each coordinate."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    found = []
    while left:
        reached = [left.pop()]
        component = set(reached)
        while reached:
            voxel = reached.pop()
            near = {tuple(np.add(voxel, offset).tolist()) for offset in product((-1, 0, 1), repeat=3)} & left
            left -= near
            component |= near
            reached += near
        found.append(component)
    return found


def counted(predicted: np.ndarray, mask: np.ndarray, overlap: float, smallest: int) -> tuple[int, int, int]:
    marked, voxels = set(map(tuple, np.argwhere(mask).tolist())), set(map(tuple, np.argwhere(predicted).tolist()))
    large = [lesion for lesion in flood(mask) if len(lesion) >= smallest]
    detected = [lesion for lesion in large if len(lesion & voxels) >= max(1, overlap * len(lesion))]
    return len(large), len(detected), sum(not component & marked for component in flood(predicted))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("smallest", [1, 2, 5])
def test_components_equal_those_of_a_flood_fill(seed, smallest):
    mask = draw(seed)
    labels, number = components(mask, smallest=smallest)
    found = [set(map(tuple, np.argwhere(labels == i + 1).tolist())) for i in range(number)]
    expected = [component for component in flood(mask) if len(component) >= smallest]
    assert labels.dtype == np.int32
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    assert np.count_nonzero(labels) == sum(map(len, expected))


def test_voxels_connect_at_corners():
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[[0, 1, 2], [0, 1, 0], [0, 1, 0]] = True
    assert components(mask).number == 1
    mask[1, 1, 1] = False
    assert components(mask).number == 2


@pytest.mark.parametrize("order", ["C", "F"])
def test_components_do_not_depend_on_memory_order_or_position(order):
    mask = np.asarray(draw(3), order=order)
    labels, number = components(mask)
    padded, padded_number = components(np.pad(mask, ((3, 0), (0, 2), (1, 4))))
    assert number == padded_number
    np.testing.assert_array_equal(padded[3:, :-2, 1:-4], labels)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("overlap", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("smallest", [1, 3])
def test_detection_equals_counts_over_sets_of_voxels(seed, overlap, smallest):
    mask = draw(seed)
    predicted = draw(seed + 100, 0.04) | (mask & draw(seed + 200, 0.3))
    expected = counted(predicted, mask, overlap, smallest)
    assert detected_by(predicted, mask, overlap=overlap, smallest=smallest) == expected


def test_a_mask_detects_itself_and_an_empty_one_nothing():
    mask = draw(0)
    number = components(mask).number
    nothing = np.zeros_like(mask)
    assert detected_by(mask, mask, overlap=1.0) == Detection(number, number, 0)
    assert detected_by(nothing, mask) == Detection(number, 0, 0)
    assert detected_by(mask, nothing) == Detection(0, 0, number)
    assert detected_by(nothing, nothing) == Detection(0, 0, 0)


def test_a_lesion_too_small_to_count_gives_no_false_positive():
    mask = np.zeros((1, 1, 5), dtype=bool)
    mask[0, 0, 0] = True
    assert detected_by(mask, mask, smallest=2) == Detection(0, 0, 0)


def test_requiring_more_overlap_never_detects_more():
    mask = draw(1, 0.2)
    predicted = draw(2, 0.3)
    detected = [detected_by(predicted, mask, overlap=overlap).detected for overlap in np.linspace(0, 1, 11)]
    assert detected == sorted(detected, reverse=True)


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
        (lambda mask: components(mask.astype(np.uint8)), "mask has dtype uint8"),
        (lambda mask: components(mask[0]), r"mask has shape \(10, 11\)"),
        (lambda mask: detected_by(mask[1:], mask), "must be of one shape"),
        (lambda mask: detected_by(mask, mask, overlap=1.5), "overlap=1.5"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(InputError, match=message):
        call(draw(0))


@pytest.mark.parametrize(("found", "size"), [(7, 100), (14, 25), (3, 10)])
def test_covering_exactly_the_required_fraction_detects(found, size):
    mask, predicted = np.zeros((1, 1, size), bool), np.zeros((1, 1, size), bool)
    mask[:], predicted[..., :found] = True, True
    assert detected_by(predicted, mask, overlap=found / size).detected == 1
