"""How often a score wins over many settings, with confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

Case = Mapping[str, float]  # the metric of every score at one setting


def wins(cases: Sequence[Case], scores: Sequence[str]) -> list[dict[str, Any]]:
    """One row per score: the number of settings it wins, and its mean, spread and worst value over settings.

    `share` is (value, low, high), with the 95 % interval of Clopper and Pearson. The interval treats settings as
    independent draws. Settings of one panel are not, so it is too narrow.
    """
    best = [max(scores, key=case.__getitem__) for case in cases]
    rows = []
    for score in scores:
        values = np.array([case[score] for case in cases])
        row = {"score": score, "settings": len(cases), "wins": best.count(score)}
        row |= {"share": _share(best.count(score), len(cases))}
        rows.append({**row, "mean": float(values.mean()), "spread": float(values.std()), "worst": float(values.min())})
    return rows


def beats(cases: Sequence[Case], score: str, rivals: Sequence[str]) -> tuple[float, float, float]:
    """The share of settings at which a score is above every rival, with an interval as in `wins`."""
    return _share(sum(case[score] > max(case[rival] for rival in rivals) for case in cases), len(cases))


def _share(count: int, total: int) -> tuple[float, float, float]:
    interval = binomtest(count, total).proportion_ci()
    return count / total, float(interval.low), float(interval.high)
