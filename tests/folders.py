"""Small folders of images on the disk, as a user would bring them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_png(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def healthy(count: int, *, seed: int = 0, size: int = 32) -> np.ndarray:
    """[count, size, size] uint8: a soft blob each, at a random place, and a little noise."""
    rng = np.random.default_rng(seed)
    centre, grid = rng.uniform(0.35, 0.65, (2, count, 1, 1)) * size, np.arange(size)
    distance = np.hypot(grid[:, None] - centre[0], grid - centre[1])
    blob = 180 * np.exp(-((distance / (0.25 * size)) ** 2)) + rng.normal(20, 4, (count, size, size))
    return np.clip(blob, 0, 255).astype(np.uint8)


def with_squares(images: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(images with a bright square each, their masks), both uint8."""
    rng = np.random.default_rng(seed)
    images, masks = images.copy(), np.zeros_like(images)
    for image, mask in zip(images, masks, strict=True):
        top, left = rng.integers(2, len(image) - 8, 2)
        image[top : top + 6, left : left + 6] = 250
        mask[top : top + 6, left : left + 6] = 255
    return images, masks


def write_benchmark(folder: Path, *, train: int = 12, test: int = 4, size: int = 32) -> Path:
    """train/good, test/good, test/bad and ground_truth/bad, as MVTec AD has them."""
    for i, image in enumerate(healthy(train, seed=1, size=size)):
        write_png(folder / "train" / "good" / f"{i:03d}.png", image)
    for i, image in enumerate(healthy(test, seed=2, size=size)):
        write_png(folder / "test" / "good" / f"{i:03d}.png", image)
    for i, (image, mask) in enumerate(zip(*with_squares(healthy(test, seed=3, size=size)), strict=True)):
        write_png(folder / "test" / "bad" / f"{i:03d}.png", image)
        write_png(folder / "ground_truth" / "bad" / f"{i:03d}_mask.png", mask)
    return folder
