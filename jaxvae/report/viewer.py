"""Volumes to leaf through: axial slices, maps over them and the known lesion's outline, within the page itself.

Everything is in the section that `viewer` returns: the voxels as pictures, and names and numbers as JSON. `STYLE` and
`SCRIPT` are what a page needs once beside it; `page.html` takes all three.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxvae.errors import InputError
from jaxvae.report import panels, style
from jaxvae.scoring.overlay import heat_colours

STYLE = resources.files("jaxvae.report").joinpath("viewer.css").read_text("utf-8")
SCRIPT = resources.files("jaxvae.report").joinpath("viewer.js").read_text("utf-8")

MARGIN = 2  # voxels around the foreground, so that an outline never lies on the picture's edge
LARGEST = 256  # pixels across or down a slice; above, whole blocks of voxels become one pixel
OPACITY = 80  # per cent at the top of the scale, as in `scoring.overlay`


class Shown(NamedTuple):
    """One volume and what is known of it. Axes run to the patient's right, front and head (RAS).

    Attributes:
      name: of the volume, plain text.
      image: [X, Y, Z] float32.
      maps: [X, Y, Z] each, non-negative, by name of the score.
      mask: [X, Y, Z] bool, the known lesion, or None.
      thresholds: by name of the map, what 1 % of healthy voxels reach; a map may have none.
      spacing: from voxel to voxel along X, Y and Z, mm.
      facts: plain text, shown beside the volume.
      affine: [4, 4], from indices to millimetres to the right, front and head; without it positions are indices.
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
    """A volume as far as it is shown: its arrays within the box, and the voxels of it that are not background."""

    shown: Shown
    foreground: np.ndarray
    origin: tuple[int, int, int]
    step: int


def viewer(volumes: Sequence[Shown]) -> str:
    """The section of a page in which the volumes can be leafed through; a page has room for one.

    Each volume is cropped to the box around its foreground (what differs from its corners) and its mask; slices still
    larger than `LARGEST` are reduced by a whole number, means of images and maps. Levels are 8 bits: an image's from
    the 0.5th to the 99.5th percentile of its foreground, a map's from 0 to its 99.5th percentile over the foreground of
    all volumes, for a colour to mean the same in each. Equal volumes give equal bytes.

    Args:
      volumes: at least one; they may differ in size, spacing and maps.

    Raises:
      InputError: no volume, shapes that do not belong together, or a spacing or threshold that is no positive number.
    """
    if not volumes:
        raise InputError("no volume to show; a viewer needs at least one")
    cuts = [_cut(shown) for shown in volumes]
    tops = _tops(cuts)
    content = {
        # Both ends of the colours are left out, for the reason that `scoring.overlay` gives.
        "colours": heat_colours(0.3 + 0.5 * np.linspace(0, 1, 256)).tolist(),
        "outline": panels.OUTLINE,
        "volumes": [_volume(cut, tops) for cut in cuts],
    }
    # An end tag within a name would close the element; in JSON the sign may as well be written by its number.
    data = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return SECTION.replace("{opacity}", str(OPACITY)).replace("{outline}", panels.OUTLINE).replace("{data}", data)


def quantise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values of any shape as levels, uint8: 0 at `low` and below (and NaN), 255 at `high` and above, nearest between.

    >>> quantise(np.array([-1.0, 0.0, 1.0, 9.0, np.nan]), 0, 2)
    array([  0,   0, 128, 255,   0], dtype=uint8)
    """
    fraction = (np.asarray(values, np.float32) - np.float32(low)) / np.float32(high - low)
    return np.round(255 * np.nan_to_num(np.clip(fraction, 0, 1))).astype(np.uint8)


def columns(shape: tuple[int, ...]) -> int:
    """How many slices of a volume [X, Y, Z] lie side by side in its mosaic, to make it about square."""
    width, height, depth = shape
    return min(depth, math.ceil(math.sqrt(depth * height / width)))


def mosaic(levels: np.ndarray) -> bytes:
    """All axial slices in one grey picture, PNG: row by row from the feet up, each with the patient's front on top.

    Args:
      levels: [X, Y, Z] uint8, or bool, which takes one bit a pixel.
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
    box = tuple(_extent(np.asarray(kept.any(axis=others))) for others in ((1, 2), (0, 2), (0, 1)))
    sides = [side.stop - side.start for side in box[:2]]
    step = math.ceil(max(sides) / LARGEST)
    cropped = shown._replace(
        image=_blocks(shown.image[box], step).mean(axis=-1),
        maps={name: _blocks(values[box], step).mean(axis=-1) for name, values in shown.maps.items()},
        mask=None if shown.mask is None else _blocks(shown.mask[box], step).any(axis=-1),
    )
    foreground = np.asarray(_blocks(foreground[box], step).any(axis=-1))
    return Cropped(cropped, foreground, (box[0].start, box[1].start, box[2].start), step)


def _checked(shown: Shown) -> Shown:
    """`shown` with arrays of the types that its fields say."""
    image = np.asarray(shown.image, np.float32)
    if image.ndim != 3 or not image.size:
        raise InputError(f"{shown.name}: the image is {image.shape}; a viewer needs (X, Y, Z), none of them 0")
    maps = {name: np.asarray(values, np.float32) for name, values in shown.maps.items()}
    mask = None if shown.mask is None else np.asarray(shown.mask, bool)
    others = {f"the map {name!r}": values for name, values in maps.items()}
    others |= {} if mask is None else {"the mask": mask}
    for what, values in others.items():
        if values.shape != image.shape:
            raise InputError(f"{shown.name}: {what} is {values.shape}, where the image is {image.shape}")
    numbers = {"the spacing": shown.spacing} | {
        f"the threshold of {name!r}": (value,) for name, value in shown.thresholds.items() if name in maps
    }
    for what, values in numbers.items():
        if not all(math.isfinite(value) and value > 0 for value in values):
            raise InputError(f"{shown.name}: {what} is {values}; give positive numbers")
    if len(shown.spacing) != 3:
        raise InputError(f"{shown.name}: the spacing is {shown.spacing}; give three numbers, mm")
    return shown._replace(image=image, maps=maps, mask=mask)


def _foreground(image: np.ndarray) -> np.ndarray:
    """[X, Y, Z] bool: what differs from the corners of the volume by a level or more; all, should nothing differ."""
    low, high = _range(image)
    levels = quantise(image, low, high)
    # The background is not always the darkest: where a brain is normalised to mean 0, it lies within its range.
    background = np.median(levels[:: max(1, levels.shape[0] - 1), :: max(1, levels.shape[1] - 1)][..., [0, -1]])
    foreground = levels != background
    return foreground if foreground.any() else np.ones_like(foreground)


def _range(values: np.ndarray) -> tuple[float, float]:
    """0.5th and 99.5th percentile; the extremes where these do not differ, and one apart where nothing does."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = map(float, np.percentile(finite, [0.5, 99.5]))
    if high <= low:
        low, high = float(finite.min()), float(finite.max())
    return low, high if high > low else low + 1


def _tops(cuts: Sequence[Cropped]) -> dict[str, float]:
    """The top of each map's scale: no lower than its thresholds, for them to lie on the scale."""
    names = dict.fromkeys(name for cut in cuts for name in cut.shown.maps)
    tops = {}
    for name in names:
        having = [cut for cut in cuts if name in cut.shown.maps]
        top = panels.top_of_scale(np.concatenate([cut.shown.maps[name][cut.foreground] for cut in having]))
        tops[name] = max(top, *(cut.shown.thresholds.get(name, 0.0) for cut in having))
    return tops


def _extent(kept: np.ndarray) -> slice:
    """From the first True of [N] to the last, with a margin."""
    where = np.flatnonzero(kept)
    return slice(max(0, int(where[0]) - MARGIN), min(len(kept), int(where[-1]) + 1 + MARGIN))


def _blocks(values: np.ndarray, step: int) -> np.ndarray:
    """[X, Y, Z] as [X / step, Y / step, Z, step^2], rounded up; edges are repeated to fill the last blocks."""
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
    """The slice to begin with: with most of the lesion, or else of the first map; or else the middle one."""
    chosen = shown.mask if shown.mask is not None and shown.mask.any() else next(iter(shown.maps.values()), None)
    total = np.zeros(1) if chosen is None else np.nansum(chosen, axis=(0, 1), dtype=np.float64)
    return int(total.argmax()) if total.any() else shown.image.shape[2] // 2


def _map(name: str, values: np.ndarray, high: float, threshold: float | None) -> dict[str, Any]:
    levels = quantise(values, 0, high)
    above = None
    if threshold is not None:
        # Levels next to the threshold give way by one where rounding would carry them across it: what the page shows
        # from it on is then exactly what reaches it.
        above = min(255, math.floor(255 * threshold / high) + 1)
        levels = np.where(values >= threshold, np.maximum(levels, above), np.minimum(levels, above - 1)).astype(
            np.uint8
        )
    return {
        "name": style.display(name),
        "low": 0,
        "high": high,
        "threshold": threshold,
        "above": above,
        **_layer(levels),
    }


def _layer(levels: np.ndarray) -> dict[str, Any]:
    """The picture and the sum of its levels, by which the page finds out whether the browser let it read them."""
    picture = base64.b64encode(mosaic(levels)).decode()
    total = int(levels.sum(dtype=np.int64)) * (255 if levels.dtype == bool else 1)
    return {"sum": total, "png": f"data:image/png;base64,{picture}"}


SECTION = """\
<section class="viewer" aria-labelledby="viewer-title" aria-busy="true">
<h2 id="viewer-title">Volumes</h2>
<noscript><p>The volumes are shown by a script in this page, which this browser does not run.</p></noscript>
<div class="view">
<div class="stage">
<canvas class="slices" tabindex="0" role="slider" aria-label="Axial slice" aria-describedby="viewer-keys"></canvas>
<span class="side left" title="the patient's left">L</span>
<span class="side right" title="the patient's right">R</span>
<span class="side front" title="front">A</span>
<span class="side back" title="back">P</span>
</div>
<label class="row"><span>Slice</span><input class="slice" type="range" step="1" autocomplete="off"
><output class="slice-value"></output></label>
<p class="values"></p>
</div>
<div class="controls">
<label>Volume<select class="volume" autocomplete="off"></select></label>
<label>Map<select class="map" autocomplete="off"></select></label>
<div class="scale" role="img"><canvas class="bar" width="256" height="1"></canvas><i class="mark"></i>
<span class="ends"><span>0</span><span class="top"></span></span></div>
<label>Opacity<span class="row"><input class="opacity" type="range" min="0" max="100" step="5" value="{opacity}"
 autocomplete="off"><output class="opacity-value"></output></span></label>
<label class="check"><input class="outline" type="checkbox" checked autocomplete="off"
><span>Known lesion<i class="swatch" style="background: {outline}"></i></span></label>
<label class="check"><input class="threshold" type="checkbox" autocomplete="off"
><span>Only above what 1 % of healthy voxels reach<span class="threshold-value"></span></span></label>
<dl class="facts"></dl>
</div>
<div class="notes">
<p class="problem" role="alert" hidden></p>
<p id="viewer-keys">With the picture in focus: <kbd>←</kbd> <kbd>→</kbd> or <kbd>↑</kbd> <kbd>↓</kbd> next slice,
<kbd>PgUp</kbd> <kbd>PgDn</kbd> ten slices, <kbd>Home</kbd> <kbd>End</kbd> first and last, <kbd>[</kbd>
<kbd>]</kbd> opacity, <kbd>m</kbd> next map, <kbd>o</kbd> outline, <kbd>t</kbd> threshold.</p>
<p>Neurological convention: the patient's left is on the left. <span class="levels"></span></p>
</div>
<script type="application/json">{data}</script>
</section>"""
