"""Style of all figures: lines, colours, and sheets measured in pixels.

Sheets are saved at 150 dots per inch. A page shows a sheet of `WIDTH` pixels at about two thirds of its size, so it is
sharp on any screen. Nothing here uses pyplot or changes matplotlib's global settings.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxvae import files
from jaxvae.errors import InputError
from jaxvae.scores import BLUE, GREEN, ORANGE, SCORES, SKY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType

DPI = 150
WIDTH = 1500
TEXT = 20  # pixels, the usual size of text
SMALL = 17
LARGEST = 30_000  # pixels per side; browsers and image viewers fail a little above

INK = "#222222"
MUTED = "#6b6b6b"
FAINT = "#d0d0d0"

PURPLE = "#cc79a7"  # Okabe & Ito 2008; not the colour of any score
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, SKY, INK)


class Line(NamedTuple):
    """The colour of a score, and the dashes of its curve as matplotlib writes them."""

    colour: str
    dashes: LineStyleType = "-"


LINES = {name: Line(score.colour, score.dashes) for name, score in SCORES.items()}


def display(name: str) -> str:
    """The label of a score; its name if it is not in `SCORES`.

    >>> display("kl_grad"), display("my score")
    ('KL-Grad', 'my score')
    """
    return SCORES[name].label if name in SCORES else name


def lines(names: Iterable[str]) -> dict[str, Line]:
    """The line of each score; scores not in `SCORES` get free colours."""
    names = list(dict.fromkeys(names))
    taken = {LINES[name].colour for name in names if name in LINES}
    free = [colour for colour in PALETTE if colour not in taken] or list(PALETTE)
    # The second round through the colours is dashed, so that no two curves look the same.
    fresh = (Line(colour, dashes) for dashes in itertools.cycle(("-", "--", ":", "-.")) for colour in free)
    return {name: LINES.get(name) or next(fresh) for name in names}


def shorten(text: str, length: int) -> str:
    """`text` within `length` characters, without its middle."""
    if len(text) <= length:
        return text
    return text[: (length - 1) // 2] + "…" + text[len(text) - length // 2 :]


def sheet(width: float, height: float) -> Figure:
    """An empty white figure in pixels. Raises InputError if it is too large."""
    from matplotlib.figure import Figure

    if max(width, height) > LARGEST:
        raise InputError(
            f"a figure of {width:.0f} x {height:.0f} pixels: image viewers cannot open it; show fewer images or scores"
        )
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")


def axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in pixels from the upper left corner of the sheet."""
    across, down = figure.bbox.size
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def text(figure: Figure, x: float, y: float, content: str, *, size: float = TEXT, **look: Any) -> None:
    """Write a line of text of `size` pixels at a place from the upper left."""
    across, down = figure.bbox.size
    plain = {"color": INK, "va": "center", "fontsize": points(size), "parse_math": False}
    figure.text(x / across, 1 - y / down, content, **{**plain, **look})


def points(pixels: float) -> float:
    """Pixels of a sheet in typographic points, matplotlib's unit of text and lines."""
    return pixels * 72 / DPI


def plain_axes(panel: Axes, *, xlabel: str = "", ylabel: str = "") -> None:
    """Reduce the axes to two thin spines, short ticks and grey labels."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set(color=MUTED, linewidth=points(1.5))
    panel.tick_params(which="both", colors=MUTED, labelsize=points(SMALL), width=points(1.5), length=points(6))
    panel.tick_params(which="minor", length=points(3))
    for axis, label in ((panel.xaxis, xlabel), (panel.yaxis, ylabel)):
        axis.get_offset_text().set(fontsize=points(SMALL), color=MUTED)
        axis.set_label_text(label, fontsize=points(TEXT), color=INK)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure as PNG or SVG by the ending of `path`, or as both.

    Raises:
      InputError: another ending, or the file cannot be written.
    """
    path = Path(path)
    kinds = (".png", ".svg") if path.suffix == "" else (path.suffix.lower(),)
    if not {*kinds} <= {".png", ".svg"}:
        raise InputError(f"{path}: figures are written as .png or .svg; use one of these endings")
    for kind in kinds:
        content = io.BytesIO()
        # Without a date, equal figures are equal files.
        metadata = {"Date": None} if kind == ".svg" else None
        figure.savefig(content, format=kind[1:], dpi=DPI, facecolor="white", metadata=metadata)
        files.write(path.with_suffix(kind), content.getvalue())
