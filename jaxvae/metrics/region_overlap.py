"""AUPRO: area under the per-region-overlap curve.

Small lesions count as much as large ones.
"""

import numpy as np

from jaxvae.errors import InputError
from jaxvae.metrics.checks import checked
from jaxvae.metrics.histograms import descending


def aupro(scores: np.ndarray, masks: np.ndarray, *, fpr_limit: float = 0.3) -> float:
    """Area under the per-region-overlap curve up to a false-positive rate.

    (1 / limit) * integral from 0 to limit of PRO(f) df. f is the false-positive rate over the healthy pixels of all
    images; PRO is the fraction of a lesion that is found, averaged over lesions. A lesion is an 8-connected component
    of one image's mask. The curve is exact: it has a corner at every distinct score, straight lines between the corners
    (oblique if scores tie), and ends at the limit. A perfect score has 1, chance limit / 2.

    Args:
      scores: [N, H, W] or [N, H, W, 1].
      masks: bool, of the same shape.
      fpr_limit: the end of the integral, in (0, 1].

    Raises:
      InputError: as `auroc`; arrays of another rank; a limit outside (0, 1].

    References:
      Bergmann et al., The MVTec anomaly detection dataset, IJCV 2021, with a limit of 0.3.

    >>> scores = np.array([[[0.9, 0.8, 0.1, 0.7]]])
    >>> aupro(scores, np.array([[[True, False, False, True]]]), fpr_limit=0.5)
    0.5
    """
    _check(fpr_limit)
    scores, masks = checked(scores, masks, "masks")
    if scores.ndim != 3 and not (scores.ndim == 4 and scores.shape[-1] == 1):
        raise InputError(f"scores has shape {scores.shape}: AUPRO needs maps, [N, H, W] or [N, H, W, 1]")
    scores, masks = scores.reshape(scores.shape[:3]), masks.reshape(masks.shape[:3])
    regions = _regions(masks)
    negatives, positives = np.sort(scores[~masks]), scores[masks]
    # Searching in ascending order stays in the cache.
    order = np.argsort(positives)
    positives, regions = positives[order], regions[order]
    # PRO is a sum over lesion pixels of steps, each 1 / (lesions * pixels of its lesion) high. A step begins at the
    # rate of healthy pixels above that pixel. If some tie with it, it climbs until they have been counted too.
    begin = (negatives.size - np.searchsorted(negatives, positives, "right")) / negatives.size
    end = (negatives.size - np.searchsorted(negatives, positives, "left")) / negatives.size
    sizes = np.bincount(regions)
    areas = _area_of_climb(begin, end, fpr_limit) / sizes[regions]
    return float(np.sum(areas) / (sizes.size * fpr_limit))


def histogram_aupro(counts: np.ndarray, overlap: np.ndarray, *, fpr_limit: float = 0.3) -> float:
    """AUPRO of binned scores; equal to `aupro` of scores rounded to their bins.

    Args:
      counts: [2, B], healthy and anomalous pixels per bin, bins ascending; add two to merge them.
      overlap: [B], the fraction of a lesion that lies in the bin, summed over lesions; add two to merge them.

    Raises:
      InputError: as `histogram_auroc`; no lesion; a limit outside (0, 1].

    >>> histogram_aupro(np.array([[2, 0, 0], [1, 0, 1]]), np.array([0.5, 0.0, 0.5]), fpr_limit=0.5)
    0.625
    """
    _check(fpr_limit)
    healthy, _ = descending(counts)
    if not overlap.any():
        raise InputError("overlap holds no lesion; add images with some")
    rates = np.concatenate([[0.0], np.cumsum(healthy) / healthy.sum()])
    found = np.concatenate([[0.0], np.cumsum(overlap[::-1], dtype=np.float64)])
    inside = rates <= fpr_limit
    heights = np.append(found[inside], np.interp(fpr_limit, rates, found))
    return float(np.trapezoid(heights, np.append(rates[inside], fpr_limit)) / (found[-1] * fpr_limit))


def _check(fpr_limit: float) -> None:
    if not 0 < fpr_limit <= 1:
        raise InputError(f"fpr_limit={fpr_limit}: must be above 0 and at most 1")


def _regions(masks: np.ndarray) -> np.ndarray:
    """Number, from 0, of the 8-connected component of each anomalous pixel of masks [N, H, W]."""
    from scipy import ndimage

    masks = masks[masks.any(axis=(1, 2))]
    # Neighbours are pixels of the same image only, so just the middle plane is set.
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = True
    components = np.empty(masks.shape, dtype=np.int32)
    ndimage.label(masks, structure, output=components)
    return components[masks] - 1


def _area_of_climb(begin: np.ndarray, end: np.ndarray, limit: float) -> np.ndarray:
    """Integral from 0 to `limit` of a step that climbs in a straight line from 0 at `begin` to 1 at `end`."""
    inside = np.minimum(end, limit) - np.minimum(begin, limit)
    width = np.where(end > begin, end - begin, 1)
    return limit - np.minimum(end, limit) + inside**2 / (2 * width)
