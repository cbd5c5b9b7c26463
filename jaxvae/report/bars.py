"""Bar charts of scores: one group of bars per tick, with the spread of each bar."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxvae.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Bars(NamedTuple):
    """The bars of one score, one per tick. NaN is not drawn."""

    label: str
    colour: str
    means: Sequence[float]
    spreads: Sequence[float]  # from the mean to either end of the error bar


def figure(
    path: str | os.PathLike[str], ticks: Sequence[str], scores: Sequence[Bars], *, xlabel: str = "", ylabel: str = ""
) -> None:
    """Write a chart with a legend above it. `path` is as for `style.save`."""
    sheet = style.sheet(style.WIDTH, 620)
    panel = sheet.add_axes((0.07, 0.14, 0.91, 0.74))
    draw(panel, ticks, scores)
    panel.set(xlabel=xlabel, ylabel=ylabel)
    panel.legend(ncols=len(scores), frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    style.save(sheet, path)


def draw(panel: Axes, ticks: Sequence[str], scores: Sequence[Bars]) -> np.ndarray:
    """Draw the bars of all scores at each tick; returns their x positions."""
    width = 0.8 / len(scores)
    middles = np.arange(len(ticks)) + width * (np.arange(len(scores)) - (len(scores) - 1) / 2)[:, None]
    for (label, colour, means, spreads), x in zip(scores, middles, strict=True):
        panel.bar(x, means, 0.9 * width, yerr=spreads, color=colour, label=label, error_kw={"lw": 1})
    panel.set_xticks(range(len(ticks)), ticks)
    return middles
