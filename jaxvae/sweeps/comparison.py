"""The settings of a sweep ranked by a score over their seeds."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Row = dict[str, Any]  # The settings of one run and its metrics

# The scores by which settings are ranked: the first that the table has.
RANKED_BY = (
    "pixel_average_precision/elbo_grad",
    "pixel_average_precision/rec_error",
    "image_auroc/elbo",
    "image_auroc/nll",
    "validation_elbo",
    "loss",
)


def score_of(rows: Iterable[Row]) -> str:
    """The score by which settings are ranked, one of `RANKED_BY`."""
    names = {name for row in rows for name in row}
    return next((name for name in RANKED_BY if name in names), "loss")


def best_of(score: str) -> Callable[..., float]:
    """`min` for a loss, `max` for all other scores."""
    return min if score == "loss" else max


def over_seeds(rows: Iterable[Row], settings: Sequence[str], score: str) -> list[Row]:
    """Rank the settings by a score: mean, deviation and worst over the seeds.

    A setting comes last if one of its runs diverged, however good the others are, because it is not robust.

    >>> rows = [{"beta": 1, "seed": s, "auroc": 0.5 + s / 10} for s in (0, 1)] + [{"beta": 2, "seed": 0, "auroc": 0.9}]
    >>> [(row["beta"], round(row["mean"], 2), row["seeds"]) for row in over_seeds(rows, ["beta"], "auroc")]
    [(2, 0.9, 1), (1, 0.55, 2)]
    """
    found: dict[tuple[Any, ...], list[float | None]] = {}
    for row in rows:
        value = None if row.get("diverged") else row.get(score)
        found.setdefault(tuple(row[name] for name in settings), []).append(value)
    sign, worst = (1, max) if best_of(score) is min else (-1, min)
    summary = []
    for values, scores in found.items():
        good = [score for score in scores if score is not None]
        mean, std = statistics.fmean(good) if good else None, statistics.stdev(good) if len(good) > 1 else None
        numbers = {"mean": mean, "std": std, "worst": worst(good, default=None)}
        counts = {"seeds": len(scores), "diverged": len(scores) - len(good)}
        summary.append(dict(zip(settings, values, strict=True)) | numbers | counts)
    return sorted(summary, key=lambda row: (row["diverged"], sign * (row["mean"] or 0.0)))
