"""Intensities of images: uint8 as float, and z-score and robust normalization."""

from __future__ import annotations

import numpy as np


def as_float(images: np.ndarray) -> np.ndarray:
    """uint8 as float32 in 0..1; float32 as it is."""
    return images.astype(np.float32) / 255 if images.dtype == np.uint8 else images


def normalise(image: np.ndarray, *, robust: bool) -> np.ndarray:
    foreground = image[(image != 0).any(axis=-1)].T.astype(np.float64, order="C")  # [C, pixels]
    if foreground.size == 0:
        return image
    centre, spread = foreground.mean(axis=1), foreground.std(axis=1)
    if robust:
        centre = np.median(foreground, axis=1)
        mad = 1.4826 * np.median(np.abs(foreground - centre[:, None]), axis=1)
        spread = np.where(mad > 0, mad, spread)
    # A channel without spread beyond float32's rounding, such as an empty one, is only centred.
    constant = spread <= 1e-6 * np.abs(foreground).max(axis=1)
    spread = np.where(constant, 1, spread)
    return (image - centre.astype(np.float32)) / spread.astype(np.float32)
