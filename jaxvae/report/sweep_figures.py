"""Table and figures of a sweep: ranking, bars per axis, and heat maps."""

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae.report import bars, style, tables
from jaxvae.sweeps import comparison
from jaxvae.sweeps.comparison import Row


def summary(rows: Sequence[Row], axes: Sequence[str], score: str, most: int = 20) -> str:
    """The settings of a sweep as a table of up to `most` rows, the best mean first."""
    settings = comparison.over_seeds(rows, axes, score)
    columns, best = [*axes, "mean", "std", "worst", "seeds", "diverged"], comparison.best_of(score)
    shown = tables.text(settings[:most], columns, best={"mean": best, "worst": best})
    more = f"\n... and {len(settings) - most} more settings" if len(settings) > most else ""
    return f"{score} over the seeds, best first\n{shown}{more}"


def figures(sweep_dir: Path, rows: Sequence[Row], axes: Sequence[str], score: str) -> None:
    """Draw bars_AXIS.png per axis and heat_AXIS_AXIS.png for every two."""
    for axis in axes:
        _bars(sweep_dir / f"bars_{axis}.png", rows, axes, axis, score)
    for down, across in itertools.combinations(axes, 2):
        _heat(sweep_dir / f"heat_{down}_{across}.png", rows, down, across, score)


def along(rows: Sequence[Row], axes: Sequence[str], axis: str, score: str) -> tuple[list[float], list[float]]:
    """Means and spreads of a score along one axis, in rising order of its values.

    The mean is over all settings that share a value. The spread is the root mean square of their standard deviations
    over seeds, so that other axes do not widen it. Both are NaN if no run has the score, or no setting has two seeds.

    >>> runs = [(beta, size, seed) for beta in (0, 1) for size in (2, 4) for seed in (0, 1)]
    >>> rows = [{"beta": b, "size": s, "seed": i, "auroc": b + s + i / 10} for b, s, i in runs]
    >>> means, spreads = along(rows, ["beta", "size"], "beta", "auroc")
    >>> [round(mean, 2) for mean in means], [round(spread, 2) for spread in spreads]
    ([3.05, 4.05], [0.07, 0.07])
    """
    settings = comparison.over_seeds(rows, axes, score)
    groups = [[setting for setting in settings if setting[axis] == value] for value in _values(rows, axis)]
    means = [_mean(setting["mean"] for setting in group) for group in groups]
    squares = [[setting["std"] ** 2 for setting in group if setting["std"] is not None] for group in groups]
    return means, [math.sqrt(_mean(group)) for group in squares]


def _bars(path: Path, rows: Sequence[Row], axes: Sequence[str], axis: str, score: str) -> None:
    metric = score.partition("/")[0]
    columns = dict.fromkeys(name for row in rows for name in row)
    found = {name.partition("/")[2] or name: name for name in columns if name.partition("/")[0] == metric}
    # Only the published maps, whose lines are solid. A dozen bars per value would be too many.
    solid = {name for name, line in style.LINES.items() if line.dashes == "-"}
    found = {short: name for short, name in found.items() if short in solid} or found
    drawn = [
        bars.Bars(style.display(short), line.colour, *along(rows, axes, axis, found[short]))
        for short, line in style.lines(found).items()
    ]
    ticks = [str(value) for value in _values(rows, axis)]
    bars.figure(path, ticks, drawn, xlabel=_words(axis), ylabel=_words(metric))


def _heat(path: Path, rows: Sequence[Row], down: str, across: str, score: str) -> None:
    left, top = _values(rows, down), _values(rows, across)
    found = [[[row.get(score) for row in rows if (row[down], row[across]) == (a, b)] for b in top] for a in left]
    means = np.array([[_mean(scores) for scores in line] for line in found])
    sheet = style.sheet(style.WIDTH, 240 + 90 * len(left))
    plot = sheet.add_axes((0.12, 0.2, 0.8, 0.68))
    image = plot.imshow(means, cmap="viridis", aspect="auto")
    for (row, column), mean in np.ndenumerate(means):
        bright = mean > (np.nanmin(means) + np.nanmax(means)) / 2
        plot.text(column, row, f"{mean:.3f}", ha="center", va="center", color="black" if bright else "white")
    plot.set_xticks(range(len(top)), [str(value) for value in top])
    plot.set_yticks(range(len(left)), [str(value) for value in left])
    metric, _, name = score.partition("/")
    title = f"{style.display(name or score)}: {_words(metric)}"
    plot.set(xlabel=_words(across), ylabel=_words(down), title=title)
    sheet.colorbar(image, ax=plot, pad=0.02)
    style.save(sheet, path)


def _mean(numbers: Iterable[float | None]) -> float:
    """The mean without None; NaN, which is not drawn, if all are None."""
    found = [number for number in numbers if number is not None]
    return statistics.fmean(found) if found else math.nan


def _values(rows: Sequence[Row], axis: str) -> list[Any]:
    return sorted({row[axis] for row in rows})


def _words(name: str) -> str:
    return name.replace("_", " ")
