"""Viewer of volumes in a page: axial slices, maps and the known lesion.

The section that `viewer` returns holds the voxels as pictures and everything else as JSON. The page needs no server.
"""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxvae.errors import InputError
from jaxvae.metrics.lesions import bounding_box
from jaxvae.report import panels, style
from jaxvae.report.page import Section, source
from jaxvae.scoring.overlay import grey_limits, heat_colours

MARGIN = 2  # voxels around the foreground, so that the outline stays away from the picture's edge
LARGEST = 256  # pixels per side of a slice; blocks of voxels are averaged to stay below
OPACITY = 80  # percent at the top of the scale, as in `scoring.overlay`


class Shown(NamedTuple):
    """One volume to show. Axes run to the patient's right, front and head (RAS).

    Attributes:
      name: plain text.
      image: [X, Y, Z] float32.
      maps: [X, Y, Z] each, non-negative, by name of the score. The page opens with the first.
      mask: [X, Y, Z] bool, the known lesion, or None.
      thresholds: the value that 1 % of healthy voxels reach, by name of the map; can be missing.
      spacing: of the voxels along X, Y and Z, in mm.
      facts: plain text by name, shown beside the volume.
      affine: [4, 4], from indices to millimetres (RAS); without it, positions are shown as indices.
    """

    name: str
    image: np.ndarray
    maps: Mapping[str, np.ndarray]
    mask: np.ndarray | None
    thresholds: Mapping[str, float]
    spacing: tuple[float, float, float]
    facts: Mapping[str, str]
    affine: np.ndarray | None = None


class Cropped(NamedTuple):
    """A volume cropped to the shown box, with the mask of its foreground."""

    shown: Shown
    foreground: np.ndarray
    origin: tuple[int, ...]
    step: int


def viewer(volumes: Sequence[Shown]) -> Section:
    """The section of a page that shows the volumes slice by slice; one per page.

    Each volume is cropped to its foreground (the voxels that differ from its corners) and its mask. Slices larger than
    `LARGEST` are reduced by a whole number. Values have 256 levels: images from the 0.5th to the 99.5th percentile of
    the foreground, maps from 0 to the 99.5th percentile over the foreground of all volumes, so that a colour means the
    same in each. Equal volumes give equal bytes.

    Args:
      volumes: at least one; they may differ in size, spacing and maps.

    Raises:
      InputError: no volume, shapes that do not match, or a spacing or threshold that is not a positive number.
    """
    if not volumes:
        raise InputError("no volume to show; a viewer needs at least one")
    cuts = [_cut(shown) for shown in volumes]
    tops = _tops(cuts)
    content = {
        # The colours of `scoring.overlay`, which leaves out both ends.
        "colours": heat_colours(0.3 + 0.5 * np.linspace(0, 1, 256)).tolist(),
        "outline": panels.OUTLINE,
        "volumes": [_volume(cut, tops) for cut in cuts],
    }
    # An end tag in a name would close the element, so "<" is escaped.
    data = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    html = Template(source("viewer.html")).substitute(opacity=OPACITY, outline=panels.OUTLINE, data=data)
    return Section(html.rstrip(), source("viewer.css"), source("viewer.js"))


def quantise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as uint8: 0 up to `low` and for NaN, 255 from `high` on.

    >>> quantise(np.array([-1.0, 0.0, 1.0, 9.0, np.nan]), 0, 2)
    array([  0,   0, 128, 255,   0], dtype=uint8)
    """
    fraction = (np.asarray(values, np.float32) - np.float32(low)) / np.float32(high - low)
    return np.round(255 * np.nan_to_num(np.clip(fraction, 0, 1))).astype(np.uint8)


def columns(shape: tuple[int, ...]) -> int:
    """Number of slices of [X, Y, Z] side by side in a nearly square mosaic."""
    width, height, depth = shape
    return min(depth, math.ceil(math.sqrt(depth * height / width)))


def mosaic(levels: np.ndarray) -> bytes:
    """All axial slices in one grey PNG, from the feet up, the front on top.

    `levels` is [X, Y, Z] uint8, or bool, which takes one bit per pixel.
    """
    across = columns(levels.shape)
    slices = np.flip(levels, axis=1).transpose(2, 1, 0)  # [Z, rows, X]
    slices = np.pad(slices, ((0, -len(slices) % across), (0, 0), (0, 0)))
    _, height, width = slices.shape
    sheet = slices.reshape(-1, across, height, width).swapaxes(1, 2).reshape(-1, across * width)
    content = io.BytesIO()
    Image.fromarray(sheet).save(content, "PNG", optimize=True)
    return content.getvalue()


def _cut(shown: Shown) -> Cropped:
    shown = _checked(shown)
    foreground = _foreground(shown.image)
    kept = foreground if shown.mask is None else foreground | shown.mask
    box = tuple(slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in bounding_box(kept))
    step = math.ceil(max(kept[box].shape[:2]) / LARGEST)
    cropped = shown._replace(
        image=_blocks(shown.image[box], step).mean(axis=-1),
        maps={name: _blocks(values[box], step).mean(axis=-1) for name, values in shown.maps.items()},
        mask=None if shown.mask is None else _blocks(shown.mask[box], step).any(axis=-1),
    )
    inside = np.asarray(_blocks(foreground[box], step).any(axis=-1))
    return Cropped(cropped, inside, tuple(side.start for side in box), step)


def _checked(shown: Shown) -> Shown:
    """`shown` with arrays of the documented types."""
    image = np.asarray(shown.image, np.float32)
    if image.ndim != 3 or not image.size:
        raise InputError(f"{shown.name}: image has shape {image.shape}: must be (X, Y, Z) with every side above 0")
    maps = {name: np.asarray(values, np.float32) for name, values in shown.maps.items()}
    mask = None if shown.mask is None else np.asarray(shown.mask, bool)
    others = {f"the map {name!r}": values for name, values in maps.items()} | {"the mask": mask}
    for what, values in others.items():
        if values is not None and values.shape != image.shape:
            raise InputError(f"{shown.name}: {what} has shape {values.shape}: must be {image.shape}, like the image")
    numbers = {"the spacing": shown.spacing} | {
        f"the threshold of {name!r}": (value,) for name, value in shown.thresholds.items() if name in maps
    }
    for what, values in numbers.items():
        if not all(math.isfinite(value) and value > 0 for value in values):
            raise InputError(f"{shown.name}: {what} is {values}: must be positive numbers")
    if len(shown.spacing) != 3:
        raise InputError(f"{shown.name}: the spacing is {shown.spacing}: must be three numbers, in mm")
    return shown._replace(image=image, maps=maps, mask=mask)


def _foreground(image: np.ndarray) -> np.ndarray:
    """[X, Y, Z] bool: voxels that differ from the corners by a level or more; all, if none does."""
    levels = quantise(image, *_range(image))
    # Background is not always darkest: if the brain is normalised to mean 0, it is within the brain's range.
    background = np.median(levels[:: max(1, levels.shape[0] - 1), :: max(1, levels.shape[1] - 1)][..., [0, -1]])
    foreground = levels != background
    return foreground if foreground.any() else np.ones_like(foreground)


def _range(values: np.ndarray) -> tuple[float, float]:
    """0.5th and 99.5th percentile; the extremes if these are equal, and one apart if all values are equal."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (limit.item() for limit in grey_limits(finite.reshape(1, -1, 1, 1)))
    return low, high if high > low else low + 1


def _tops(cuts: Sequence[Cropped]) -> dict[str, float]:
    """The top of each map's scale, at or above its thresholds."""
    tops = {}
    for name in dict.fromkeys(name for cut in cuts for name in cut.shown.maps):
        having = [cut for cut in cuts if name in cut.shown.maps]
        top = panels.top_of_scale(np.concatenate([cut.shown.maps[name][cut.foreground] for cut in having]))
        tops[name] = max(top, *(cut.shown.thresholds.get(name, 0.0) for cut in having))
    return tops


def _blocks(values: np.ndarray, step: int) -> np.ndarray:
    """[X, Y, Z] as [X / step, Y / step, Z, step^2], rounded up; the last blocks are filled with the edge."""
    width, height, depth = values.shape
    padded = np.pad(values, ((0, -width % step), (0, -height % step), (0, 0)), mode="edge")
    blocks = padded.reshape(-(-width // step), step, -(-height // step), step, depth)
    return blocks.transpose(0, 2, 4, 1, 3).reshape(*blocks.shape[::2], step * step)


def _volume(cut: Cropped, tops: Mapping[str, float]) -> dict[str, Any]:
    shown, shape = cut.shown, cut.shown.image.shape
    low, high = _range(shown.image[cut.foreground])
    return {
        "name": shown.name,
        "facts": list(shown.facts.items()),
        "size": shape,
        "columns": columns(shape),
        "origin": cut.origin,
        "step": cut.step,
        "affine": None if shown.affine is None else np.asarray(shown.affine, float)[:3].round(5).tolist(),
        "spacing": [cut.step * shown.spacing[0], cut.step * shown.spacing[1]],
        "start": cut.origin[2] + _first(shown),
        "image": {"low": low, "high": high, **_layer(quantise(shown.image, low, high))},
        "maps": [_map(name, values, tops[name], shown.thresholds.get(name)) for name, values in shown.maps.items()],
        "mask": None if shown.mask is None else _layer(shown.mask),
    }


def _first(shown: Shown) -> int:
    """The first slice to show: with most of the lesion, without one with most of the first map, or the middle one."""
    chosen = shown.mask if shown.mask is not None and shown.mask.any() else next(iter(shown.maps.values()), None)
    total = np.zeros(1) if chosen is None else np.nansum(chosen, axis=(0, 1), dtype=np.float64)
    return int(total.argmax()) if total.any() else shown.image.shape[2] // 2


def _map(name: str, values: np.ndarray, high: float, threshold: float | None) -> dict[str, Any]:
    levels = quantise(values, 0, high)
    above = None
    if threshold is not None:
        # Rounding must not carry a level across the threshold, so levels next to it are moved by one. The page then
        # shows exactly the voxels that reach the threshold.
        above = min(255, math.floor(255 * threshold / high) + 1)
        levels = np.where(values >= threshold, np.maximum(levels, above), np.minimum(levels, above - 1))
    scale = {"low": 0, "high": high, "threshold": threshold, "above": above}
    return {"name": style.display(name), **scale, **_layer(levels)}


def _layer(levels: np.ndarray) -> dict[str, Any]:
    """The picture, and the sum of its levels, with which the page checks that the browser reads true pixels."""
    picture = base64.b64encode(mosaic(levels)).decode()
    total = int(levels.sum(dtype=np.int64)) * (255 if levels.dtype == bool else 1)
    return {"sum": total, "png": f"data:image/png;base64,{picture}"}
