"""A sweep in its folder: the plan, written before anything is trained; a part a program; the table of all runs.

    plan.json              what is trained, cut into programs; a sweep goes on only where the plan is the same
    parts/0003.jsonl       the rows of program 3, whole or not there
    parts/0003.time.json   how long it took, apart, so that the table of a resumed sweep is that of another
    table.jsonl, table.csv all rows so far, in the order of the plan

Since the programs are part of the plan, sums are taken in the same order however often a sweep is stopped, and by
however many processes it is done.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvae import files
from jaxvae.data.kinds import same_images
from jaxvae.errors import InputError
from jaxvae.files import flat

Plan = dict[str, Any]  # "programs": a list of {"fixed": {...}, "runs": [{...}, ...]}, and what decides all of them
Row = dict[str, Any]  # One run: its settings and its numbers


def programs_of(
    fixed: Mapping[str, Sequence[Any]], free: Mapping[str, Sequence[Any]], together: int
) -> list[dict[str, Any]]:
    """The product of all axes as programs of at most `together` runs.

    Args:
      fixed: axes that change shapes or data: a program has one value of each.
      free: axes that vary within a program.

    >>> [len(program["runs"]) for program in programs_of({"size": [32, 64]}, {"seed": [0, 1, 2]}, together=2)]
    [2, 1, 2, 1]
    """
    runs = [dict(zip(free, values, strict=True)) for values in itertools.product(*free.values())]
    return [
        {"fixed": dict(zip(fixed, values, strict=True)), "runs": runs[start : start + together]}
        for values in itertools.product(*fixed.values())
        for start in range(0, len(runs), together)
    ]


def claim(folder: Path, plan: Plan) -> None:
    """Writes the plan into a new folder, or holds it against the one that is there.

    Raises:
      InputError: the folder holds something else, or another sweep.
    """
    plan = json.loads(json.dumps(plan))
    path = folder / "plan.json"
    if not path.exists():
        taken = folder.exists() and (
            not folder.is_dir() or any(not entry.name.startswith(".") for entry in folder.iterdir())
        )
        # Looked for again, since another process of the same job may have written it in between.
        if taken and not path.exists():
            raise InputError(f"{folder}: is there already and is no sweep (no plan.json); name a new folder")
        files.write_json(path, plan)
        return
    there = files.read_json(path, way_out="name a new folder, or remove this one")
    before, now = flat(there), flat(plan)
    same = same_images(there, plan)
    for name in now:
        # The images may have moved.
        if before.get(name) == now[name] or (name == "data.data" and same):
            continue
        if name == "images.contents":
            if same is not False:
                continue  # Sweeps of earlier versions have a fingerprint of names only.
            raise InputError(
                f"{folder}: was made from other images than there are now; bring those back, or name a new folder"
            )
        what = "other runs" if name == "programs" else f"{name} {before.get(name)} and now it is {now[name]}"
        way_out = "install that version" if name == "jaxvae" else "repeat its flags"
        raise InputError(f"{folder}: holds another sweep, made with {what}; {way_out}, or name a new folder")


def missing(folder: Path, plan: Plan) -> list[int]:
    """The numbers of the programs that have no part yet, or a damaged one."""
    return [number for number in range(len(plan["programs"])) if not _rows(folder, plan, number)]


def add_part(folder: Path, plan: Plan, number: int, rows: list[Row], seconds: float) -> None:
    """Keeps the rows of one program, and the table with them in it."""
    files.write_json(_part(folder, number).with_suffix(".time.json"), {"seconds": round(seconds, 2)})
    files.write_lines(_part(folder, number), [_finite(row) for row in rows])
    write_table(folder, plan)


def seconds_a_program(folder: Path) -> float | None:
    """The mean of what has been trained; None before anything was."""
    timed = [files.read_json(path, {"seconds": int | float}) for path in folder.glob("parts/*.time.json")]
    times = [record["seconds"] for record in timed]
    return statistics.fmean(times) if times else None


def write_table(folder: Path, plan: Plan) -> list[Row]:
    """table.jsonl and table.csv from the parts there are; the rows."""
    rows = [row for number in range(len(plan["programs"])) for row in _rows(folder, plan, number)]
    files.write_lines(folder / "table.jsonl", rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write(folder / "table.csv", text.getvalue().encode())
    return rows


def score_of(rows: Iterable[Row]) -> str:
    """What settings are compared by: how well the ELBO's gradient finds pixels, or the ELBO images; without a test the
    validation ELBO, else the loss."""
    names = {name for row in rows for name in row}
    for name in ("pixel_average_precision/elbo_grad", "image_auroc/elbo", "validation_elbo"):
        if name in names:
            return name
    return "loss"


def best_of(score: str) -> Callable[..., float]:
    """max, or min for a loss."""
    return min if score == "loss" else max


def over_seeds(rows: Iterable[Row], settings: Sequence[str], score: str) -> list[Row]:
    """A row a setting, best first: mean, standard deviation and worst of a score over its seeds.

    A setting of which a run diverged comes last, whatever its others reached: it is not robust.

    >>> rows = [{"beta": 1, "seed": s, "auroc": 0.5 + s / 10} for s in (0, 1)] + [{"beta": 2, "seed": 0, "auroc": 0.9}]
    >>> [(row["beta"], round(row["mean"], 2), row["seeds"]) for row in over_seeds(rows, ["beta"], "auroc")]
    [(2, 0.9, 1), (1, 0.55, 2)]
    """
    found: dict[tuple[Any, ...], list[float | None]] = {}
    for row in rows:
        reached = None if row.get("diverged") else row.get(score)
        found.setdefault(tuple(row[name] for name in settings), []).append(reached)
    sign, worst = (1, max) if best_of(score) is min else (-1, min)
    summary = []
    for values, scores in found.items():
        good = [score for score in scores if score is not None]
        summary.append(
            {
                **dict(zip(settings, values, strict=True)),
                "mean": statistics.fmean(good) if good else None,
                "std": statistics.stdev(good) if len(good) > 1 else None,
                "worst": worst(good, default=None),
                "seeds": len(scores),
                "diverged": len(scores) - len(good),
            }
        )
    return sorted(summary, key=lambda row: (row["diverged"], sign * (row["mean"] or 0.0)))


def _part(folder: Path, number: int) -> Path:
    return folder / "parts" / f"{number:04d}.jsonl"


def _rows(folder: Path, plan: Plan, number: int) -> list[Row]:
    """The rows of a program, one for each of its runs; none if its part is missing or damaged."""
    program = plan["programs"][number]
    try:
        rows = files.read_lines(_part(folder, number), {"loss?": int | float | None, "diverged?": bool})
    except InputError:
        return []
    runs = [{**program["fixed"], **run} for run in program["runs"]]
    settings = [{name: row.get(name) for name in run} for row, run in zip(rows, runs, strict=False)]
    numbers = all(value is None or isinstance(value, int | float) for row in rows for value in row.values())
    return rows if numbers and len(rows) == len(runs) and settings == runs else []


def _finite(row: Row) -> Row:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
