"""What a sweep found: its settings by rank; bars over each axis, with the spread over seeds; a heat map over two."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae.report import bars, style, tables
from jaxvae.sweeps import ranking

Row = dict[str, Any]


def summary(rows: Sequence[Row], axes: Sequence[str], score: str, most: int = 20) -> str:
    """The settings of a sweep as text, best mean over the seeds first; `most` of them."""
    settings = ranking.over_seeds(rows, axes, score)
    columns, best = [*axes, "mean", "std", "worst", "seeds", "diverged"], ranking.best_of(score)
    shown = tables.text(settings[:most], columns, best={"mean": best, "worst": best})
    more = f"\n... and {len(settings) - most} more settings" if len(settings) > most else ""
    return f"{score} over the seeds, best first\n{shown}{more}"


def figures(folder: Path, rows: Sequence[Row], axes: Sequence[str], score: str) -> list[Path]:
    """Draws bars_AXIS.png (see `along`) for every axis and heat_AXIS_AXIS.png for every two; the files."""
    drawn = []
    for axis in axes:
        drawn.append(folder / f"bars_{axis}.png")
        _bars(drawn[-1], rows, axes, axis, score)
    for down, across in itertools.combinations(axes, 2):
        drawn.append(folder / f"heat_{down}_{across}.png")
        _heat(drawn[-1], rows, down, across, score)
    return drawn


def along(rows: Sequence[Row], axes: Sequence[str], axis: str, score: str) -> tuple[list[float], list[float]]:
    """A score over one axis, [values] each in rising order: the mean over all settings that share a value, and the
    spread over seeds, the root mean square of those settings' standard deviations, which no other axis widens.

    NaN where no run has the score, or no setting two seeds.

    >>> runs = [(beta, size, seed) for beta in (0, 1) for size in (2, 4) for seed in (0, 1)]
    >>> rows = [{"beta": b, "size": s, "seed": i, "auroc": b + s + i / 10} for b, s, i in runs]
    >>> means, spreads = along(rows, ["beta", "size"], "beta", "auroc")
    >>> [round(mean, 2) for mean in means], [round(spread, 2) for spread in spreads]
    ([3.05, 4.05], [0.07, 0.07])
    """
    settings = ranking.over_seeds(rows, axes, score)
    groups = [[setting for setting in settings if setting[axis] == value] for value in _values(rows, axis)]
    means = [_mean(setting["mean"] for setting in group) for group in groups]
    return means, [math.sqrt(_mean(_square(setting["std"]) for setting in group)) for group in groups]


def _bars(path: Path, rows: Sequence[Row], axes: Sequence[str], axis: str, score: str) -> None:
    kind = score.partition("/")[0]
    # Of maps the published ones; a dozen bars a value are not looked at.
    found = [name for name in dict.fromkeys(name for row in rows for name in row) if name.partition("/")[0] == kind]
    solid = {name for name, line in style.LINES.items() if line.dashes == "-"}
    names = [name for name in found if name.partition("/")[2] in solid] or found
    short = [name.partition("/")[2] or name for name in names]
    colours = [line.colour for line in style.lines(short).values()]
    drawn = [
        bars.Bars(style.display(one), colour, *along(rows, axes, axis, name))
        for one, colour, name in zip(short, colours, names, strict=True)
    ]
    ticks = [str(value) for value in _values(rows, axis)]
    bars.figure(path, ticks, drawn, xlabel=axis.replace("_", " "), ylabel=kind.replace("_", " "))


def _heat(path: Path, rows: Sequence[Row], down: str, across: str, score: str) -> None:
    left, top = _values(rows, down), _values(rows, across)
    found = [[_of(rows, score=score, **{down: a, across: b}) for b in top] for a in left]
    means = np.array([[np.mean(scores) if scores else np.nan for scores in line] for line in found])
    sheet = style.sheet(style.WIDTH, 240 + 90 * len(left))
    plot = sheet.add_axes((0.12, 0.2, 0.8, 0.68))
    image = plot.imshow(means, cmap="viridis", aspect="auto")
    for (row, column), mean in np.ndenumerate(means):
        bright = mean > (np.nanmin(means) + np.nanmax(means)) / 2
        plot.text(column, row, f"{mean:.3f}", ha="center", va="center", color="black" if bright else "white")
    plot.set_xticks(range(len(top)), [str(value) for value in top])
    plot.set_yticks(range(len(left)), [str(value) for value in left])
    plot.set_xlabel(across.replace("_", " "))
    plot.set_ylabel(down.replace("_", " "))
    plot.set_title(f"{style.display(score.partition('/')[2] or score)}: {score.partition('/')[0].replace('_', ' ')}")
    sheet.colorbar(image, ax=plot, pad=0.02)
    style.save(sheet, path)


def _mean(numbers: Iterable[float | None]) -> float:
    """Of the numbers there are; NaN, which is not drawn, where there are none."""
    found = [number for number in numbers if number is not None]
    return statistics.fmean(found) if found else math.nan


def _square(number: float | None) -> float | None:
    return None if number is None else number * number


def _values(rows: Sequence[Row], axis: str) -> list[Any]:
    return sorted({row[axis] for row in rows})


def _of(rows: Sequence[Row], *, score: str, **where: Any) -> list[float]:
    """The values of a score in the runs of some settings, those that diverged left out."""
    found = (row.get(score) for row in rows if all(row[name] == value for name, value in where.items()))
    return [value for value in found if value is not None]
