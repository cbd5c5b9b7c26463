"""Figure of the histograms of scores, healthy against anomalous."""

import math
import os
from collections.abc import Mapping

import numpy as np

from jaxvae.errors import InputError
from jaxvae.report import style

# These colours mean the same in every panel, so neither is the colour of a score.
GROUPS = {"healthy": "#8a8a8a", "anomalous": style.PURPLE}


def figure(path: str | os.PathLike[str], scores: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Draw one panel per score: the densities of healthy and anomalous on one axis.

    The axis spans the middle 99 % of both groups. Values beyond count in the outermost bins, which may be cut off at
    the top; the area of every histogram is one. The axis is logarithmic if its upper end is over ten times a median.

    Args:
      path: ends in .png or .svg; without an ending both are written.
      scores: (healthy, anomalous), numbers of any shape, by name of the score; one of the two may be empty.

    Raises:
      InputError: no score, no values or values that are not finite, or a file that cannot be written.
    """
    if not scores:
        raise InputError(f"{path}: no score to draw; give at least one")
    groups = {name: tuple(np.asarray(group).ravel() for group in pair) for name, pair in scores.items()}
    for name, values in groups.items():
        bad = sum(int(np.count_nonzero(~np.isfinite(group))) for group in values)
        if bad or not sum(map(len, values)):
            found = f"{bad} values that are not finite" if bad else "no value"
            raise InputError(f"score {name!r}: holds {found}; leave out the score or repair its source")
    across = min(len(groups), 4)
    down = math.ceil(len(groups) / across)
    margin, gap, top, height, below, legend = 28, 36, 44, 220, 62, 44
    width = min(460, (style.WIDTH - 2 * margin - (across - 1) * gap) / across)
    sheet = style.sheet(2 * margin + across * width + (across - 1) * gap, legend + down * (top + height + below))
    for k, (label, colour) in enumerate(GROUPS.items()):
        style.text(sheet, margin + 110 * k, 32, "■", size=style.TEXT, color=colour)
        style.text(sheet, margin + 110 * k + 22, 32, label, size=style.SMALL)
    for k, (name, pair) in enumerate(groups.items()):
        left = margin + k % across * (width + gap)
        start = legend + top + k // across * (top + height + below)
        style.text(sheet, left, start - 18, style.display(name), weight="bold")
        _panel(style.axes(sheet, left, start, width, height), *pair)
    style.save(sheet, path)


def bins(healthy: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, bool]:
    """(Edges [K + 1], whether they are logarithmic) of one axis."""
    groups = [group for group in (healthy, anomalous) if group.size]
    low = min(float(np.percentile(group, 0.5)) for group in groups)
    high = max(float(np.percentile(group, 99.5)) for group in groups)
    # The square root rule, within a range that is readable.
    count = int(np.clip(math.sqrt(min(map(len, groups))), 16, 60))
    positive = [group[group > 0] for group in groups if (group > 0).any()]
    if positive and min(group.min() for group in groups) >= 0:
        median = min(float(np.median(group)) for group in positive)
        if high > 10 * median:
            # Squared errors can be arbitrarily small; show six decades.
            low = max(high / 1e6, min(float(np.percentile(group, 0.5)) for group in positive))
            return np.geomspace(low, high, count + 1), True
    if high <= low:
        low, high = low - 0.5, low + 0.5
    return np.linspace(low, high, count + 1), False


def densities(values: np.ndarray, edges: np.ndarray, *, log: bool) -> np.ndarray:
    """Density of the values [N] per bin, [K]; the outer bins take the rest."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return counts / len(values) / np.diff(np.log10(edges) if log else edges)


def _panel(panel, healthy: np.ndarray, anomalous: np.ndarray) -> None:
    edges, log = bins(healthy, anomalous)
    style.plain_axes(panel)
    panel.spines["left"].set_visible(False)
    panel.set(yticks=[], xlim=(edges[0], edges[-1]), xscale="log" if log else "linear")
    if log:
        _few_ticks(panel, edges[0], edges[-1])
    else:
        panel.locator_params(axis="x", nbins=4)
    inner = outer = 0.0
    for values, colour in zip((healthy, anomalous), GROUPS.values(), strict=True):
        if values.size:
            heights = densities(values, edges, log=log)
            panel.stairs(heights, edges, fill=True, color=colour, alpha=0.35, linewidth=0)
            panel.stairs(heights, edges, baseline=None, color=colour, linewidth=style.points(3))
            inner, outer = max(inner, heights[1:-1].max()), max(outer, heights.max())
    # Many zeros in the first bin would flatten all others, so the first bin may be cut off at the top.
    panel.set_ylim(0, 1.06 * (min(outer, 1.5 * inner) or outer))


def _few_ticks(panel, low: float, high: float) -> None:
    """Set up to four ticks at powers of ten, and at 2 and 5 times these if the axis is shorter than two decades."""
    from matplotlib.ticker import FixedLocator, LogFormatterSciNotation, NullFormatter

    decades = np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if high > 100 * low else (1, 2, 5)
    ticks = np.array([factor * 10.0**decade for decade in decades for factor in factors])
    ticks = ticks[(ticks >= low) & (ticks <= high)]
    ticks = ticks[:: max(1, -(-len(ticks) // 4))]
    panel.xaxis.set_major_locator(FixedLocator(ticks.tolist()))
    panel.xaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf)))
    panel.xaxis.set_minor_formatter(NullFormatter())
