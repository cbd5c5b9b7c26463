"""Figure of single images: the image, its reconstruction, its maps and its mask."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxvae.errors import InputError
from jaxvae.report import style
from jaxvae.scoring.overlay import grey_limits, heat_colours, in_grey

OUTLINE = "#00e5ff"  # far from all greys and from all colours of the heat map
LARGEST = 384  # pixels of the sheet; wider images are reduced
GAP, MARGIN = 14, 24  # pixels between images, and around them all


class Column(NamedTuple):
    """One column: colours [N, H, W, 3] uint8, and the top of its scale."""

    header: str
    pixels: np.ndarray
    high: float | None = None
    masks: np.ndarray | None = None


def cases(values: np.ndarray, *, count: int = 1) -> tuple[np.ndarray, list[str]]:
    """Choose the images to show: `count` each of the best, the median and the worst.

    Args:
      values: [N] one number per image, higher is better (Dice); NaN is never chosen.
      count: images of each kind.

    Returns:
      [M] int, indices into `values` from the best to the worst, each image once, M <= 3 count; and M labels: `best`,
      `median`, `worst`.

    >>> cases(np.array([0.5, np.nan, 0.9, 0.1, 0.4]))
    (array([2, 4, 3]), ['best', 'median', 'worst'])
    """
    values = np.asarray(values, dtype=np.float64)
    order = np.argsort(-values, kind="stable")[: np.count_nonzero(~np.isnan(values))]
    size = len(order)
    middle = (size - count + 1) // 2
    kinds = {"best": range(count), "worst": range(size - count, size), "median": range(middle, middle + count)}
    # If there are few images, the kinds overlap. The first kind to claim a rank names it.
    labels: dict[int, str] = {}
    for kind, ranks in kinds.items():
        labels |= {rank: kind for rank in ranks if 0 <= rank < size and rank not in labels}
    ranks = sorted(labels)
    return order[ranks], [labels[rank] for rank in ranks]


def figure(
    path: str | os.PathLike[str],
    images: np.ndarray,
    reconstructions: np.ndarray | None,
    maps: Mapping[str, np.ndarray],
    masks: np.ndarray | None,
    titles: Sequence[str],
) -> None:
    """Draw one row per image: image, reconstruction, maps and the mask's outline.

    An image and its reconstruction share one grey scale, from the 0.5th to the 99.5th percentile of the image. Each
    column of maps has one colour scale, from 0 to its 99.5th percentile, drawn below it. Pixels are enlarged by a whole
    number without smoothing; only images wider than `LARGEST` are reduced.

    Args:
      path: ends in .png or .svg; without an ending both are written.
      images: [N, H, W, C] in any range; colour if C = 3, else the first channel as grey.
      reconstructions: as `images`, or None to leave out the column.
      maps: non-negative [N, H, W, 1] by name of the score.
      masks: [N, H, W, 1] bool, or None to leave out the column.
      titles: N lines of text, such as `best: texture, test/00031, Dice 0.71`.

    Raises:
      InputError: shapes that do not match, no image, or a file that cannot be written.
    """
    images = np.asarray(images)
    _check(images, reconstructions, maps, masks, titles)
    columns = _columns(images, reconstructions, maps, masks)
    scale = _scale(images.shape[1], images.shape[2], len(columns))
    height, width = (math.ceil(side * scale) for side in images.shape[1:3])
    # Text and margins grow with the sheet, so that text has the same size in all figures on a page.
    zoom = max(1.0, len(columns) * width / (style.WIDTH - 2 * MARGIN - (len(columns) - 1) * GAP))
    gap, margin, header, caption, bar = (round(zoom * size) for size in (GAP, MARGIN, 34, 34, 52))
    row, start = caption + height + gap, margin + header
    end = start + len(images) * row
    sheet = style.sheet(2 * margin + len(columns) * (width + gap) - gap, end + (bar if maps else 0) + margin - gap)

    # All headers have the size at which the longest one fits its column.
    size = min(zoom * style.TEXT, width / (0.68 * max(len(column.header) for column in columns)))
    for j, column in enumerate(columns):
        left = margin + j * (width + gap)
        style.text(sheet, left, margin + header / 2, column.header, size=size, weight="bold")
        for i, pixels in enumerate(column.pixels):
            mask = None if column.masks is None else column.masks[i]
            _cell(sheet, pixels, mask, (left, start + i * row + caption, width, height), zoom)
        if column.high is not None:
            _bar(sheet, column.high, left, end, width, zoom)
    size = zoom * style.SMALL
    length = int((sheet.bbox.width - 2 * margin) / (0.58 * size))
    for i, title in enumerate(titles):
        line = start + i * row + 0.55 * caption
        style.text(sheet, margin, line, style.shorten(title, length), size=size, color=style.MUTED)
    style.save(sheet, path)


def outline(mask: np.ndarray) -> np.ndarray:
    """The border of a mask, as edges of its pixels.

    Args:
      mask: [H, W] bool.

    Returns:
      [S, 2, 2] the (x, y) ends of S edges of length 1. The centre of pixel (0, 0) is the origin.
    """
    inside = np.pad(mask.astype(bool), 1)
    # An edge is between a pixel and the one above it, or to the left of it, if exactly one of the two is inside.
    level = np.argwhere(inside[1:] != inside[:-1])[:, None, ::-1] - [[1.5, 0.5], [0.5, 0.5]]
    upright = np.argwhere(inside[:, 1:] != inside[:, :-1])[:, None, ::-1] - [[0.5, 1.5], [0.5, 0.5]]
    return np.concatenate([level, upright])


def _check(images, reconstructions, maps, masks, titles) -> None:
    if images.ndim != 4 or not len(images):
        raise InputError(f"the images are {images.shape}: must be (N, H, W, C) with at least one image")
    if len(titles) != len(images):
        raise InputError(f"{len(titles)} titles for {len(images)} images; give one for each")
    expected = {"the reconstructions": (reconstructions, images.shape), "the masks": (masks, (*images.shape[:3], 1))}
    expected |= {f"the map {name!r}": (values, (*images.shape[:3], 1)) for name, values in maps.items()}
    for what, (values, shape) in expected.items():
        if values is not None and np.shape(values) != shape:
            raise InputError(f"{what}: shape {np.shape(values)}, must be {shape} for images of {images.shape}")


def _columns(images, reconstructions, maps, masks) -> list[Column]:
    limits = grey_limits(images)
    shown = in_grey(images, *limits)
    columns = [Column("Image", shown)]
    if reconstructions is not None:
        columns.append(Column("Reconstruction", in_grey(np.asarray(reconstructions), *limits)))
    for name, values in maps.items():
        values = np.asarray(values)[..., 0]
        high = top_of_scale(values)
        columns.append(Column(style.display(name), heat_colours(np.clip(values / high, 0, 1)), high))
    if masks is not None:
        columns.append(Column("Mask", shown, masks=np.asarray(masks)[..., 0]))
    return columns


def top_of_scale(values: np.ndarray) -> float:
    """Top of the colour scale of a map, robust to outliers; above zero."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 1.0
    return float(np.percentile(finite, 99.5)) or float(finite.max()) or 1.0


def _scale(height: int, width: int, columns: int) -> float:
    """Sheet pixels per image pixel: a whole number, or below 1 for large images."""
    if width > LARGEST:
        return 1 / math.ceil(width / LARGEST)
    aim = min(300, max(150, (style.WIDTH - 48) / columns - 14))
    return max(1, min(math.ceil(aim / width), int(2 * aim / height)))


def _cell(sheet, pixels: np.ndarray, mask: np.ndarray | None, place: tuple[float, ...], zoom: float) -> None:
    panel = style.axes(sheet, *place)
    panel.set_axis_off()
    panel.imshow(pixels, interpolation="nearest" if place[2] >= pixels.shape[1] else "hanning", aspect="auto")
    if mask is not None and mask.any():
        panel.set_autoscale_on(False)
        # One line with breaks, because one artist per edge would take seconds for a ragged mask.
        x, y = np.pad(outline(mask), ((0, 0), (0, 1), (0, 0)), constant_values=np.nan).reshape(-1, 2).T
        panel.plot(x, y, color=OUTLINE, linewidth=style.points(2.5 * zoom), solid_capstyle="projecting")


def _bar(sheet, high: float, left: float, top: float, width: float, zoom: float) -> None:
    thickness = round(10 * zoom)
    panel = style.axes(sheet, left, top, width, thickness)
    panel.set_axis_off()
    panel.imshow(heat_colours(np.linspace(0, 1, 256))[None], interpolation="nearest", aspect="auto")
    look = {"size": zoom * style.SMALL, "color": style.MUTED}
    line = top + thickness + 16 * zoom
    top_value = np.format_float_positional(high, 2, fractional=False, trim="-") if 1e-4 < high < 1e6 else f"{high:.1e}"
    style.text(sheet, left, line, "0", **look)
    style.text(sheet, left + width, line, top_value, ha="right", **look)
