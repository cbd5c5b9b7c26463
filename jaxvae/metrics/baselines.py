"""Baseline scores without a model: brightness and equalised brightness.

Every trained model should beat them. On FLAIR images, equalised brightness finds multiple-sclerosis lesions better than
many trained networks (Meissen et al. 2021, Challenging current semi-supervised anomaly segmentation methods for brain
MRI).
"""

import numpy as np

from jaxvae.errors import InputError


def brightness(images: np.ndarray) -> np.ndarray:
    """|x|, averaged over channels.

    Args:
      images: [N, H, W, C], uint8 (divided by 255) or float.

    Returns:
      [N, H, W, 1] float32.

    Raises:
      InputError: images of another rank or dtype, or with NaN or infinite values.

    >>> brightness(np.array([[[[255, 0]]]], dtype=np.uint8))
    array([[[[0.5]]]], dtype=float32)
    """
    return _means(np.abs(_as_images(images)))


def equalised_brightness(images: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Brightness after equalising the histogram of each image's foreground.

    rank / n, with the rank of x (averaged over channels) among the image's n foreground pixels, 1 for the darkest. Ties
    get their mean rank. Ranks are of x, not |x|, so dark pixels stay dark after a z-score. Background is 0, foreground
    above 0 and at most 1.

    Args:
      images: [N, H, W, C], uint8 or float.
      mask: [N, H, W] or [N, H, W, 1] bool, True on the foreground. Without it, the background is the value of more than
        half of the image's border; an image without such a value has no background.

    Returns:
      [N, H, W, 1] float32.

    Raises:
      InputError: as `brightness`; a mask that is not bool or has another shape.

    >>> equalised_brightness(np.array([[[0, 0, 0, 0], [0, 7, 9, 0], [0, 0, 0, 0]]], np.uint8)[..., None])[0, 1, :, 0]
    array([0. , 0.5, 1. , 0. ], dtype=float32)
    """
    images = _as_images(images)
    count, height, width, _ = images.shape
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape not in ((count, height, width), (count, height, width, 1)):
            expected = (count, height, width, 1)
            raise InputError(f"mask is {mask.dtype} of shape {mask.shape}: must be bool of shape {expected}")
    values = _means(images)
    maps = np.zeros((count, height, width, 1), dtype=np.float32)
    # A few images at a time, so that the eight-byte arrays of their size stay in the cache.
    step = max(1, (1 << 16) // max(1, height * width))
    for start in range(0, count, step):
        part = slice(start, start + step)
        foreground = _foreground(images[part]) if mask is None else mask[part]
        ranks = _ranks(values[part].reshape(-1, height * width), foreground.reshape(-1, height * width))
        maps[part] = ranks.reshape(-1, height, width, 1)
    return maps


def _means(images: np.ndarray) -> np.ndarray:
    """[N, H, W, 1] float32, the mean over the channels; bytes are divided by 255, NaN and infinity are refused."""
    maps = images.mean(axis=-1, keepdims=True, dtype=np.float32) / np.float32(255 if images.dtype == np.uint8 else 1)
    if maps.size and not np.isfinite([maps.min(), maps.max()]).all():
        image = int(np.argmin(np.isfinite(maps).all(axis=(1, 2, 3))))
        raise InputError(f"images[{image}] holds NaN or infinite values; repair or remove that image")
    return maps


def _as_images(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 4:
        raise InputError(f"images has shape {images.shape}: must be [N, H, W, C], with C = 1 for grey images")
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise InputError(f"images has dtype {images.dtype}: must be uint8 or float")
    return images


def _foreground(images: np.ndarray) -> np.ndarray:
    """[N, H, W] bool: the pixels without the value of most of their image's border; all, if there is no such value."""
    border = np.concatenate([images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]], axis=1)
    # If more than half of a row of numbers are equal, they equal the median.
    middle = np.sort(border, axis=1)[:, border.shape[1] // 2]  # [N, C]
    share = np.mean((border == middle[:, None]).all(axis=-1), axis=1)
    is_background = (images == middle[:, None, None]).all(axis=-1)
    return ~(is_background & (share > 0.5)[:, None, None])


def _ranks(values: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """[N, P]: mean rank of each foreground pixel in its row, divided by their number; 0 for background."""
    values = np.where(foreground, values, -np.inf)
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    background = np.sum(~foreground, axis=1, keepdims=True)
    # Runs of equal values over all rows; a run's mean rank is midway between its first and its last.
    begins = np.ones(ordered.shape, dtype=bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.flatnonzero(begins)
    lengths = np.diff(first, append=ordered.size)
    mean_rank = np.repeat(first % ordered.shape[1] + (lengths + 1) / 2, lengths).reshape(ordered.shape)
    equalised = (mean_rank - background) / np.maximum(ordered.shape[1] - background, 1)
    ranks = np.empty_like(equalised)
    np.put_along_axis(ranks, order, equalised, axis=1)
    return np.where(foreground, ranks, 0)
