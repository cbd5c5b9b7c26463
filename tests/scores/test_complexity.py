"""Input complexity: the PNG file, the bins, and the units."""

from __future__ import annotations

import io

import jax
import numpy as np
import pytest
from PIL import Image

import jaxvae
from image_score_laws import check_laws, model_and_images
from jaxvae.scores import complexity


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_file_holds_the_whole_image(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7, channels), dtype=np.uint8)
    written: list[bytes] = []
    save = Image.Image.save

    def keep(self: Image.Image, file: io.BytesIO, *args: object, **settings: object) -> None:
        save(self, file, *args, **settings)
        written.append(file.getvalue())

    monkeypatch.setattr(Image.Image, "save", keep)
    bits = complexity.png_bits(image)
    assert bits == 8 * len(written[0])
    read = np.asarray(Image.open(io.BytesIO(written[0])))
    np.testing.assert_array_equal(read, image if channels == 3 else np.concatenate(np.moveaxis(image, -1, 0)))


def test_uint8_and_unit_images_have_the_same_bins() -> None:
    raw = np.random.default_rng(0).integers(0, 200, (3, 4, 4, 1), dtype=np.uint8)
    for images in (raw, raw / np.float32(255)):
        levels, widths = complexity.quantise(images)
        np.testing.assert_array_equal(levels, raw)
        np.testing.assert_allclose(widths, 1 / 255)


def test_other_images_are_quantised_in_their_own_range() -> None:
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
    levels, widths = complexity.quantise(images)
    low = images.min(axis=(1, 2, 3), keepdims=True)
    assert (levels.min(axis=(1, 2, 3)) == 0).all()
    assert (levels.max(axis=(1, 2, 3)) == 255).all()
    assert np.abs(low + levels * widths.reshape(-1, 1, 1, 1) - images).max() <= widths.max() * 0.5001
    constant = complexity.quantise(np.full((1, 4, 4, 1), -7.0, np.float32))
    assert (np.unique(constant[0]).size, constant[1][0]) == (1, 1 / 255)


def test_the_score_is_in_bits_of_the_8_bit_image() -> None:
    model, params, _ = model_and_images("dense")
    raw = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
    nats = np.asarray(jaxvae.sample_scores(model, params, raw, log_scale=-1.0).elbo, np.float64)
    expected = nats * np.log2(np.e) + 64 * np.log2(255) - [complexity.png_bits(image) for image in raw]
    got = complexity.score(model, params, raw, log_scale=-1.0)["complexity"]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_noise_that_the_model_predicts_well_costs_as_much_as_its_file() -> None:
    """A uniform image has 8 bits per value under the true density, and PNG cannot compress it."""
    raw = np.random.default_rng(0).integers(0, 256, (256, 256, 1), dtype=np.uint8)
    _, [width] = complexity.quantise(raw[None])
    bits = -raw.size * np.log2(width)  # The density is 1 in 0..1.
    assert bits == pytest.approx(complexity.png_bits(raw), rel=0.01)


def test_simple_images_have_short_files() -> None:
    rng = np.random.default_rng(0)
    empty, noise = np.zeros((32, 32, 1), np.uint8), rng.integers(0, 256, (32, 32, 1), dtype=np.uint8)
    edge = np.tile(np.repeat([20, 200], 16).astype(np.uint8)[None, :, None], (32, 1, 1))
    lengths = [complexity.png_bits(image) for image in (empty, edge, noise)]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize("kind", ["dense", "spatial"])
def test_the_laws_of_scores_hold(kind: str) -> None:
    check_laws(complexity, kind, traceable=False)


def test_an_image_with_nan_gets_nan_and_no_warning() -> None:
    model, params, images = model_and_images("dense")
    damaged = np.asarray(images).copy()
    damaged[1, 2, 2] = np.nan
    scores = np.asarray(complexity.score(model, params, jax.numpy.asarray(damaged))["complexity"])
    np.testing.assert_array_equal(np.isnan(scores), np.arange(5) == 1)
