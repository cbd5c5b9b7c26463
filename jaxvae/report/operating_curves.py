"""Figure of ROC and precision-recall curves, side by side."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from jaxvae.errors import InputError
from jaxvae.report import style
from jaxvae.scores import BASELINES

Curve = Sequence[np.ndarray]

CHANCE = "chance"
DASHES = (0, (3, 2))


def figure(
    path: str | os.PathLike[str],
    roc: Mapping[str, Curve],
    pr: Mapping[str, Curve],
    prevalence: float,
    *,
    auroc: Mapping[str, float] | None = None,
    average_precision: Mapping[str, float] | None = None,
) -> None:
    """Draw both curves of every score, lines of chance, and a legend.

    ROC points are joined by straight lines. Precision is drawn in steps, because interpolation overestimates it (Davis
    & Goadrich 2006).

    Args:
      path: ends in .png or .svg; without an ending both are written.
      roc, pr: the curves by name of the score, from `curves.roc_curve` and `curves.pr_curve`. Only the first two
        arrays of each are used, [K].
      prevalence: fraction of anomalous images or pixels, which is the precision of chance.
      auroc, average_precision: the numbers of the legend, by name of the score.

    Raises:
      InputError: a curve with arrays of different length or values outside 0..1, no curve, or a file that cannot be
        written.
    """
    names = list(dict.fromkeys([*roc, *pr]))
    if not names:
        raise InputError(f"{path}: no curve to draw; give at least one score")
    _check("ROC curve", roc)
    _check("precision-recall curve", pr)
    lines = style.lines(names)
    side, top = 450, 64
    sheet = style.sheet(style.WIDTH, top + side + 84)

    left = _square(sheet, 96, top, side, "ROC", "False positive rate", "True positive rate")
    left.plot([0, 1], [0, 1], color=style.MUTED, linestyle=DASHES, linewidth=style.points(2))
    right = _square(sheet, 652, top, side, "Precision-recall", "Recall", "Precision")
    right.plot([0, 1], [prevalence] * 2, color=style.MUTED, linestyle=DASHES, linewidth=style.points(2))
    # Draw the baselines first and the first score last, so that it is on top.
    for name in sorted(names, key=lambda name: (name not in BASELINES, -names.index(name))):
        # Clipping would take half the width of a curve along the border.
        colour, dashes = lines[name]
        look = {"color": colour, "linestyle": dashes, "linewidth": style.points(3.5), "clip_on": False}
        if name in roc:
            left.plot(*roc[name][:2], **look)
        if name in pr:
            right.plot(*steps(*pr[name][:2]), **look)
    numbers = {"AUROC": {**(auroc or {}), CHANCE: 0.5}, "AP": {**(average_precision or {}), CHANCE: prevalence}}
    highest = max((float(np.max(curve[1])) for curve in pr.values()), default=1.0)
    if highest < 0.2:  # On a full axis, low precision would be invisible.
        ticks = [0.0, 0.5 * highest, highest]
        right.set_yticks(ticks, [f"{tick:.2g}" for tick in ticks])
        right.set_ylim(0, 1.02 * highest)
    _legend(sheet, 1146, top, lines, {header: values for header, values in numbers.items() if len(values) > 1})
    style.save(sheet, path)


def steps(recall: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners of a precision-recall curve, without interpolation.

    The precision is constant up to each recall. The area below is the average precision, the sum over k of (recall[k] -
    recall[k - 1]) precision[k].

    Recall is [K], rising or falling; the corners are (x, y), [2 K] each.

    >>> steps(np.array([0.5, 1.0]), np.array([1.0, 0.75]))
    (array([0. , 0.5, 0.5, 1. ]), array([1.  , 1.  , 0.75, 0.75]))
    """
    if recall[0] > recall[-1]:
        recall, precision = recall[::-1], precision[::-1]
    return np.repeat(np.append(0.0, recall), 2)[1:-1], np.repeat(precision, 2)


def _check(kind: str, curves: Mapping[str, Curve]) -> None:
    for name, (x, y, *_) in curves.items():
        if np.shape(x) != np.shape(y) or np.ndim(x) != 1 or not len(x):
            raise InputError(f"{kind} of {name!r}: arrays of shape {np.shape(x)} and {np.shape(y)}; must both be [K]")
        if not all(np.min(values) >= 0 and np.max(values) <= 1 for values in (x, y)):
            raise InputError(f"{kind} of {name!r}: holds values outside 0..1; give fractions, not counts or percent")


def _square(sheet, left: float, top: float, side: float, title: str, xlabel: str, ylabel: str):
    panel = style.axes(sheet, left, top, side, side)
    style.plain_axes(panel, xlabel=xlabel, ylabel=ylabel)
    ticks = {"0": 0, "0.25": 0.25, "0.5": 0.5, "0.75": 0.75, "1": 1}
    panel.set(xlim=(0, 1), ylim=(0, 1), axisbelow=True)
    panel.set_xticks(list(ticks.values()), list(ticks))
    panel.set_yticks(list(ticks.values()), list(ticks))
    panel.grid(color=style.FAINT, linewidth=style.points(1), alpha=0.6)
    style.text(sheet, left, top - 32, title, weight="bold")
    return panel


def _legend(sheet, left: float, top: float, lines: dict[str, style.Line], columns: dict[str, dict]) -> None:
    """Draw the legend as a table: line, name, and one column per metric."""
    from matplotlib.lines import Line2D

    across, down = sheet.bbox.size
    rights = {header: style.WIDTH - 24 - 78 * (len(columns) - 1 - k) for k, header in enumerate(columns)}
    for header, right in rights.items():
        style.text(sheet, right, top - 32, header, size=style.SMALL, color=style.MUTED, ha="right")
    for row, (name, line) in enumerate({**lines, CHANCE: style.Line(style.MUTED, DASHES)}.items()):
        y = top + 10 + 36 * row
        ends = [left / across, (left + 32) / across], [1 - y / down] * 2
        sheet.add_artist(Line2D(*ends, color=line.colour, linestyle=line.dashes, linewidth=style.points(4)))
        style.text(sheet, left + 44, y, style.shorten(style.display(name), 25 - 6 * len(columns)), size=style.SMALL)
        for header, values in columns.items():
            if name in values:
                style.text(sheet, rights[header], y, f"{values[name]:.3f}", size=style.SMALL, ha="right")
