"""Panels: the chosen cases, outlines, and pixels of the figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvae.errors import InputError
from jaxvae.report import panels


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def decoded(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_cases_picks_best_median_and_worst_images(rng: np.random.Generator) -> None:
    values = rng.permutation(np.append(rng.random(41), [np.nan] * 9))
    index, labels = panels.cases(values, count=3)
    ranked = np.sort(values[~np.isnan(values)])[::-1]
    assert labels == ["best"] * 3 + ["median"] * 3 + ["worst"] * 3
    np.testing.assert_array_equal(values[index], [*ranked[:3], *ranked[19:22], *ranked[-3:]])
    assert values[index[4]] == np.nanmedian(values)


@pytest.mark.parametrize("size", range(8))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_cases_appear_once_each_best_first(size: int, count: int) -> None:
    values = np.append(np.nan, np.linspace(0, 1, size))
    index, labels = panels.cases(values, count=count)
    assert len(set(index.tolist())) == len(index) == len(labels) == min(size, 3 * count)
    assert np.all(np.diff(values[index]) < 0)
    assert size == 0 or labels[0] == "best"
    assert size < 2 or labels[-1] == "worst" or count > 1


def test_the_outline_is_the_closed_perimeter(rng: np.random.Generator) -> None:
    mask = rng.random((9, 13)) < 0.5
    edges = panels.outline(mask)
    padded = np.pad(mask.astype(int), 1)
    perimeter = sum(int(np.abs(np.diff(padded, axis=axis)).sum()) for axis in (0, 1))
    assert edges.shape == (perimeter, 2, 2)
    np.testing.assert_allclose(np.linalg.norm(edges[:, 1] - edges[:, 0], axis=-1), 1)
    _, meeting = np.unique(edges.reshape(-1, 2), axis=0, return_counts=True)
    assert np.all(meeting % 2 == 0)
    # On either side of an edge's middle, one pixel is inside and one is not.
    middle = edges.mean(axis=1)
    across = np.abs(edges[:, 1] - edges[:, 0])[:, ::-1] / 2
    inside = [padded[tuple((end[:, ::-1] + 1).round().astype(int).T)] for end in (middle - across, middle + across)]
    assert np.all(inside[0] != inside[1])


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pixels_of_the_figure_equal_the_image(tmp_path: Path, rng: np.random.Generator, channels: int) -> None:
    """Every pixel is enlarged by the same whole number and keeps its value, in grey or in colour."""
    images = rng.integers(0, 256, (2, 20, 28, channels)).astype(np.uint8)
    images[:, :2, :, :] = np.array([0, 255], np.uint8)[:, None, None]  # so that percentiles are the whole range
    panels.figure(tmp_path / "figure.png", images, None, {}, None, ["first", "second"])
    picture = decoded(tmp_path / "figure.png")
    expected = np.broadcast_to(images[..., :1], (*images.shape[:3], 3)) if channels == 2 else images
    shown = [np.broadcast_to(image, (20, 28, 3)).repeat(11, axis=0).repeat(11, axis=1) for image in expected]
    height, width = shown[0].shape[:2]
    tops = [
        top
        for top in range(picture.shape[0] - height)
        for image in shown
        if np.array_equal(picture[top : top + height, panels.MARGIN : panels.MARGIN + width], image)
    ]
    assert len(tops) == 2


def test_maps_share_one_scale_over_the_rows(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8, 1))
    maps = np.stack([np.full((8, 8, 1), 0.5), np.full((8, 8, 1), 1.0)])
    panels.figure(tmp_path / "figure.png", images, None, {"combi": maps}, None, ["a", "b"])
    from matplotlib import colormaps

    picture = decoded(tmp_path / "figure.png")
    areas = [
        np.count_nonzero(np.all(picture == np.round(255 * np.array(colormaps["inferno"](value)[:3])), axis=-1))
        for value in (128, 255)
    ]
    assert min(areas) > 250**2  # both rows are of one colour, half and full; the rest is the colour bar


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("shape", [(1, 28, 28, 1), (2, 112, 28, 1), (1, 3, 500, 3), (1, 512, 512, 1), (2, 1, 1, 1)])
def test_figures_of_any_shape_are_written(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    images = np.random.default_rng(0).normal(size=shape)
    maps = np.abs(images[..., :1])
    path = tmp_path / f"figure.{suffix}"
    panels.figure(path, images, images, {"kl_grad": maps, "flat": 0 * maps}, maps > 3, ["$x_1$"] * len(images))
    assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")
    assert list(tmp_path.iterdir()) == [path]


def test_errors_name_the_array(tmp_path: Path) -> None:
    images = np.zeros((2, 4, 4, 1))
    path = tmp_path / "figure.png"
    with pytest.raises(InputError, match=r"the map 'combi': shape \(2, 4, 5, 1\)"):
        panels.figure(path, images, None, {"combi": np.zeros((2, 4, 5, 1))}, None, ["", ""])
    with pytest.raises(InputError, match="the masks"):
        panels.figure(path, images, None, {}, np.zeros((2, 4, 4), bool), ["", ""])
    with pytest.raises(InputError, match="1 titles for 2 images"):
        panels.figure(path, images, None, {}, None, [""])
    with pytest.raises(InputError, match="at least one"):
        panels.figure(path, images[:0], None, {}, None, [])
    assert not path.exists()
