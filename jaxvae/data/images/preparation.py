"""What is done to every image before a model sees it: written into a run, and done again when the run scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxvae.data.normalization import as_float, normalise
from jaxvae.data.resampling import resize, sides
from jaxvae.errors import ArgumentError


@dataclass(frozen=True)
class Preparation:
    """Channels are chosen first, then the image is resized, then normalised.

    Args:
      size: both sides in pixels after resizing, or (height, width); None leaves them.
      channels: the channels to keep, counted from 0; None keeps all.
      normalise: per image and channel, over the pixels that are not 0 in every channel (so that the empty surrounding
        of a scan does not count): `zscore` subtracts the mean and divides by the standard deviation; `robust` takes
        the median and 1.4826 times the median absolute deviation (the standard deviation where that is 0, as more than
        half of the pixels are equal); `none` keeps 0..1, or the range of a float image.
    Raises:
      InputError: size is not positive, channels are empty or negative, normalise is none of the three.
    """

    size: int | tuple[int, int] | None = None
    channels: tuple[int, ...] | None = None
    normalise: Literal["none", "zscore", "robust"] = "none"

    def __post_init__(self) -> None:
        if self.size is not None and min(sides(self.size)) < 1:
            raise ArgumentError("size", self.size, "both sides need at least 1 pixel")
        if self.channels is not None and (not self.channels or min(self.channels) < 0):
            raise ArgumentError("channels", self.channels, "pass those to keep, counted from 0")
        if self.normalise not in ("none", "zscore", "robust"):
            raise ArgumentError("normalise", self.normalise, "pass none, zscore or robust")


AS_IS = Preparation()


def prepare(image: np.ndarray, preparation: Preparation) -> np.ndarray:
    """The image, [H, W, C], uint8 or float32, as the model sees it.

    uint8 stays uint8 where nothing is resized or normalised; else it becomes float32 in 0..1 first.

    Raises:
      InputError: the image lacks a channel that is to be kept.

    >>> image = np.array([[[0, 1], [0, 3]]], np.float32)  # one row of two pixels, two channels
    >>> prepare(image, Preparation(channels=(1,)))[..., 0]
    array([[1., 3.]], dtype=float32)
    >>> prepare(image, Preparation(channels=(1,), normalise="zscore"))[..., 0]
    array([[-1.,  1.]], dtype=float32)
    """
    if preparation.channels is not None:
        if max(preparation.channels) >= image.shape[-1]:
            kept, count = preparation.channels, image.shape[-1]
            raise ArgumentError("channels", kept, f"of an image of {count} channels, 0 to {count - 1} can be kept")
        image = image[..., list(preparation.channels)]
    if preparation.size is not None:
        image = resize(image, preparation.size, kind="image")
    if preparation.normalise != "none":
        image = normalise(as_float(image), robust=preparation.normalise == "robust")
    return image
