"""Intensities of images and volumes: z-score and robust normalization."""

from typing import Literal, get_args

import numpy as np

from jaxvae.errors import ArgumentError

Normalization = Literal["none", "zscore", "robust"]


def check(normalise: str) -> None:
    """Raise InputError if `normalise` is not one of `Normalization`."""
    if normalise not in get_args(Normalization):
        raise ArgumentError("normalise", normalise, "pass none, zscore or robust")


def as_float(images: np.ndarray) -> np.ndarray:
    """uint8 as float32 in 0..1; float32 unchanged."""
    return images.astype(np.float32) / 255 if images.dtype == np.uint8 else images


def centre_and_spread(values: np.ndarray, *, robust: bool) -> tuple[np.ndarray, np.ndarray]:
    """The centre and the spread of values, for normalization.

    Normalization subtracts the centre and divides by the spread.

    Args:
      values: [..., P] float64, P of at least 1.
      robust: take the median and 1.4826 times the median absolute deviation instead of the mean and the standard
        deviation. If that deviation is 0, because more than half of the values are equal, take the standard deviation.

    Returns:
      (centre, spread), both [...]. The spread of values that are equal to within the rounding of float32 is 0.

    >>> centre_and_spread(np.array([[0.0, 2.0], [5.0, 5.0]]), robust=False)
    (array([1., 5.]), array([1., 0.]))
    """
    centre, spread = values.mean(axis=-1), values.std(axis=-1)
    if robust:
        centre = np.median(values, axis=-1)
        deviation = 1.4826 * np.median(np.abs(values - centre[..., None]), axis=-1)
        spread = np.where(deviation > 0, deviation, spread)
    return centre, np.where(spread <= 1e-6 * np.abs(values).max(axis=-1), 0, spread)
