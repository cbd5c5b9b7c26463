"""The phantom: reproducible, brain-like, with exact masks that no threshold on brightness finds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score, precision_recall_curve

from jaxvae.data import phantom
from jaxvae.data.dataset import Dataset, Splits
from jaxvae.data.phantom import brain, drawn_lesions, rendering
from jaxvae.errors import InputError


@pytest.fixture(scope="module")
def splits() -> Splits:
    return phantom.load(train=400, test=160, seed=3)


@pytest.fixture(scope="module")
def twins() -> np.ndarray:
    """The test slices without their lesions."""
    return rendering._render("test", "healthy", np.arange(160), 64, 3)[0]


def of_kind(splits: Splits, kind: str) -> np.ndarray:
    return np.flatnonzero(np.array(splits.test.kinds) == kind)


def masks_of(dataset: Dataset) -> np.ndarray:
    assert dataset.masks is not None
    return dataset.masks


def best_dice(scores: np.ndarray, masks: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(masks.ravel(), scores.ravel())
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def test_a_slice_depends_on_its_seed_and_number_only():
    few, many = phantom.slices(5, size=32, seed=1), phantom.slices(70, size=32, seed=1)
    np.testing.assert_array_equal(few, many[:5])
    assert not np.array_equal(few, phantom.slices(5, size=32, seed=2))
    assert len(np.unique(many.reshape(70, -1), axis=0)) == 70


@pytest.mark.parametrize("size", [32, 64, 100])
def test_slices_are_brains_on_a_background_of_zeros(size: int):
    images = phantom.slices(24, size=size)
    assert images.shape == (24, size, size, 1)
    assert images.dtype == np.float32
    assert images.min() == 0
    assert 0.8 < images.max() <= 1
    brains = images > 0
    assert 0.3 < brains.mean(axis=(1, 2, 3)).min() < brains.mean(axis=(1, 2, 3)).max() < 0.7
    assert not images[:, [0, -1]].any()
    assert not images[:, :, [0, -1]].any()


def test_another_size_shows_the_same_brains():
    fine = phantom.slices(4, size=128).reshape(4, 64, 2, 64, 2).mean(axis=(2, 4)).reshape(4, -1)
    coarse = phantom.slices(4, size=64).reshape(4, -1)
    correlation = np.corrcoef(fine, coarse)[:4, 4:]
    assert np.diag(correlation).min() > 0.95
    assert np.all(np.diag(correlation) > correlation.max(axis=1, where=~np.eye(4, dtype=bool), initial=0))


def test_halves_mirror_each_other_more_than_other_brains():
    images = phantom.slices(32)[..., 0]
    # Only the inside is compared, because the outline of the brain differs between slices.
    inner = images[:, 20:44, 16:48].reshape(32, -1)
    mirrored = images[:, 20:44, 16:48][:, :, ::-1].reshape(32, -1)
    correlation = np.corrcoef(inner, mirrored)[:32, 32:]
    assert np.mean(np.diag(correlation)) > np.mean(correlation[~np.eye(32, dtype=bool)]) + 0.1
    assert np.diag(correlation).max() < 0.99


def test_tissue_has_the_contrast_of_t2():
    """In an average brain at three levels, fluid is bright, white matter dark, and grey matter between them."""
    average = brain.from_normals(np.zeros((1, brain.COUNT), dtype=np.float32))

    def at(level: float, p: float, q: float) -> float:
        subject = average._replace(level=np.full((1, 1), level, dtype=np.float32))
        place = np.array([[p]], dtype=np.float32), np.array([[q]], dtype=np.float32)
        brightness, inside = brain.tissue(subject, *place, brain.softness(128))
        assert inside.all()
        return float(brightness[0, 0])

    ventricle, thalamus, white = at(0.3, 0.15, 0.05), at(0.05, 0.19, -0.14), at(0.9, 0.3, 0.0)
    assert white < 0.35 < thalamus < 0.5 < 0.85 < ventricle
    assert at(0.9, 0.15, 0.05) < 0.4, "no ventricle near the top"
    assert at(0.9, 0.0, 0.0) > 0.5, "the fissure between the halves is open there"
    assert at(0.1, 0.0, 0.3) < 0.5, "the corpus callosum closes it below"


def test_load_returns_the_documented_splits(splits: Splits):
    train, validation, test = splits.train, splits.validation, splits.test
    assert (len(train), len(validation), len(test)) == (400, 40, 160)
    assert (train.names[17], validation.names[3], test.names[3]) == ("train/00017", "validation/00003", "test/00003")
    assert [test.kinds.count(kind) for kind in ("healthy", *drawn_lesions.KINDS)] == [80, 20, 20, 20, 20]
    np.testing.assert_array_equal(train.images[:5], phantom.slices(5, seed=3))
    for part in (train, validation, test):
        assert part.groups == part.names
        assert len(set(part.names)) == len(part)
        np.testing.assert_array_equal(part.labels, masks_of(part).any(axis=(1, 2, 3)))
        np.testing.assert_array_equal(part.labels, [kind != "healthy" for kind in part.kinds])
    everything = np.concatenate([part.images.reshape(len(part), -1) for part in (train, validation, test)])
    assert len(np.unique(everything, axis=0)) == 600


def test_lesions_cover_two_to_ten_percent_of_the_brain(splits: Splits):
    sick = splits.test.labels
    share = masks_of(splits.test)[sick].sum(axis=(1, 2, 3)) / (splits.test.images[sick] > 0).sum(axis=(1, 2, 3))
    assert 0.015 < share.min() < 0.035
    assert 0.07 < share.max() < 0.11


def test_healthy_slices_of_the_test_set_are_untouched(splits: Splits, twins: np.ndarray):
    healthy = ~splits.test.labels
    np.testing.assert_array_equal(splits.test.images[healthy], twins[healthy])


@pytest.mark.parametrize(("kind", "sign"), [("bright", 1), ("dark", -1)])
def test_masks_of_bright_and_dark_lesions_hold_changed_pixels(kind: str, sign: int, splits: Splits, twins: np.ndarray):
    index = of_kind(splits, kind)
    change, mask = sign * (splits.test.images - twins)[index], masks_of(splits.test)[index]
    # The bias field scales changes by at most a half in either direction; rectified noise adds a little.
    assert change[mask].min() > 0
    assert change[mask].mean() > 2 * drawn_lesions.VISIBLE
    assert np.abs(change[~mask]).max() < 1.5 * drawn_lesions.VISIBLE
    far = ~gaussian_filter(mask.astype(np.float32), (0, 3, 3, 0)).astype(bool)
    assert not change[far].any()


@pytest.mark.parametrize("kind", ["texture", "mass"])
def test_textures_and_masses_change_the_image_inside_their_mask(kind: str, splits: Splits, twins: np.ndarray):
    index = of_kind(splits, kind)
    change, mask = np.abs(splits.test.images - twins)[index], masks_of(splits.test)[index]
    assert change[mask].mean() > 10 * change[~mask].mean()
    assert np.median(change[mask]) > 0.03


def some_lesions(count: int) -> tuple[drawn_lesions.Lesions, np.ndarray, np.ndarray]:
    """Lesions, and the pixels of a 200 x 200 image that the brain fills."""
    lesion = drawn_lesions.from_uniforms(np.random.default_rng(0).random((count, drawn_lesions.COUNT)))
    p, q = (np.tile(axis.astype(np.float64), (count, 1)) for axis in brain.grid(200))
    return lesion, p, q


def test_a_texture_keeps_the_mean_brightness():
    lesion, p, q = some_lesions(5)
    brightness = 0.4 + 0.3 * np.sin(9 * p) * np.cos(7 * q)
    changed, mask = drawn_lesions.change("texture", lesion, p, q, brightness, 0.04)
    np.testing.assert_allclose(changed.sum(axis=1), brightness.sum(axis=1), rtol=1e-9)
    assert np.abs(changed - brightness)[mask].mean() > 0.05


def test_a_mass_moves_tissue_outwards_without_folding_it():
    lesion, p, q = some_lesions(8)
    came_p, came_q = drawn_lesions.push(lesion, p, q)
    moved = np.hypot(p - came_p, q - came_q)
    _, mask = drawn_lesions.change("mass", lesion, p, q, np.full_like(p, 0.4), 0.04)

    assert not moved[p**2 + q**2 > 1].any(), "the outline of the brain stays"
    distance, before = (np.hypot(a - lesion.p, b - lesion.q) for a, b in ((p, q), (came_p, came_q)))
    assert np.all(before <= distance + 1e-12)
    # The Jacobian of the map keeps its sign, so neighbours stay neighbours.
    p_map, q_map = (came.reshape(len(p), 200, 200) for came in (came_p, came_q))
    p_down, q_down = (np.diff(axis, axis=1)[:, :, 1:] for axis in (p_map, q_map))
    p_right, q_right = (np.diff(axis, axis=2)[:, 1:] for axis in (p_map, q_map))
    jacobian = p_down * q_right - p_right * q_down
    assert jacobian.min() > 0
    # Tissue has moved half of the largest movement on the outline, and less outside.
    outside = np.where(mask, 0, moved).max(axis=1)
    np.testing.assert_allclose(outside, moved.max(axis=1) / 2, rtol=0.25)


def test_no_threshold_on_brightness_finds_the_lesions(splits: Splits):
    images, masks = splits.test.images, masks_of(splits.test)
    inside = images > 0
    scores = {
        "bright": images,
        "dark": -images,
        "dark, inside the brain": np.where(inside, -images, -1),
        "unusual, inside the brain": np.where(inside, np.abs(images - np.median(images[inside])), 0),
    }
    for name, score in scores.items():
        assert average_precision_score(masks.ravel(), score.ravel()) < 0.25, name
        assert best_dice(score, masks) < 0.35, name
    brightest = np.isin(splits.test.kinds, ["healthy", "bright"])
    assert average_precision_score(masks[brightest].ravel(), images[brightest].ravel()) < 0.25


def test_a_linear_model_beats_every_threshold(splits: Splits):
    """32 directions, fitted to 400 slices, reconstruct new brains but not their lesions."""
    train, validation, test = (
        part.images.reshape(len(part), -1) for part in (splits.train, splits.validation, splits.test)
    )
    model = PCA(32, svd_solver="randomized", random_state=0).fit(train)

    def residual(images: np.ndarray) -> np.ndarray:
        return images - model.inverse_transform(model.transform(images))

    explained = 1 - np.sum(residual(validation) ** 2) / np.sum((validation - train.mean(axis=0)) ** 2)
    assert explained > 0.35
    score = np.abs(gaussian_filter(residual(test).reshape(splits.test.images.shape), (0, 1.5, 1.5, 0)))
    assert average_precision_score(masks_of(splits.test).ravel(), score.ravel()) > 0.3


def test_an_empty_test_set_and_no_validation_are_allowed():
    splits = phantom.load(train=3, test=0, size=16, validation=0)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (3, 0, 0)


@pytest.mark.parametrize(
    "wrong", [{"train": -1}, {"test": -5}, {"size": 8}, {"seed": -1}, {"validation": 1.5}, {"validation": -0.1}]
)
def test_a_number_out_of_range_is_named(wrong: dict[str, int]):
    ((name, value),) = wrong.items()
    with pytest.raises(InputError, match=f"^{name}={value}: "):
        phantom.load(**wrong)
