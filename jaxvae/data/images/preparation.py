"""Preparation of images for a model: channels, size and normalization.

Each run records its own.
"""

from dataclasses import dataclass

import numpy as np

from jaxvae.data import normalization
from jaxvae.data.normalization import Normalization, as_float, centre_and_spread
from jaxvae.data.resampling import resize, sides
from jaxvae.errors import ArgumentError


@dataclass(frozen=True)
class Preparation:
    """Channels are chosen first, then the image is resized, then normalised.

    Args:
      size: both sides in pixels after resizing, or (height, width); None leaves them.
      channels: the channels to keep, counted from 0; None keeps all.
      normalise: `zscore` or `robust`, as `normalization.centre_and_spread`, per image and channel; `none` keeps 0..1,
        or the range of a float image. Pixels that are 0 in every channel do not count: they surround a scan.

    Raises:
      InputError: size is not positive, channels are empty or negative, normalise is none of the three.
    """

    size: int | tuple[int, int] | None = None
    channels: tuple[int, ...] | None = None
    normalise: Normalization = "none"

    def __post_init__(self) -> None:
        if self.size is not None and min(sides(self.size)) < 1:
            raise ArgumentError("size", self.size, "both sides need at least 1 pixel")
        if self.channels is not None and (not self.channels or min(self.channels) < 0):
            raise ArgumentError("channels", self.channels, "pass those to keep, counted from 0")
        normalization.check(self.normalise)


AS_IS = Preparation()


def prepare(image: np.ndarray, preparation: Preparation) -> np.ndarray:
    """The image, [H, W, C], uint8 or float32, as a model takes it.

    uint8 stays uint8 if it is neither resized nor normalised; else it becomes float32 in 0..1 first.

    Raises:
      InputError: the image lacks a channel to keep.

    >>> image = np.array([[[0, 1], [0, 3]]], np.float32)  # one row of two pixels, two channels
    >>> prepare(image, Preparation(channels=(1,)))[..., 0]
    array([[1., 3.]], dtype=float32)
    >>> prepare(image, Preparation(channels=(1,), normalise="zscore"))[..., 0]
    array([[-1.,  1.]], dtype=float32)
    """
    if preparation.channels is not None:
        if max(preparation.channels) >= image.shape[-1]:
            count = image.shape[-1]
            raise ArgumentError("channels", preparation.channels, f"channels are counted from 0; the image has {count}")
        image = image[..., list(preparation.channels)]
    if preparation.size is not None:
        image = resize(image, preparation.size, kind="image")
    if preparation.normalise != "none":
        image = _normalise(as_float(image), robust=preparation.normalise == "robust")
    return image


def _normalise(image: np.ndarray, *, robust: bool) -> np.ndarray:
    foreground = image[(image != 0).any(axis=-1)].T.astype(np.float64, order="C")  # [C, pixels]
    if foreground.size == 0:
        return image
    centre, spread = centre_and_spread(foreground, robust=robust)
    # A channel without spread, such as an empty one, is only centred.
    return (image - centre.astype(np.float32)) / np.where(spread == 0, 1, spread).astype(np.float32)
