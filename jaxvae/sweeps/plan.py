"""The folder of a sweep: a plan, one part per program, and the table of all runs.

    plan.json              the settings and the runs of every program, written before anything is trained
    parts/0003.jsonl       the rows of program 3; the file is whole or missing
    parts/0003.time.json   the seconds it took, in another file because they are not part of the table
    table.jsonl, table.csv all rows so far, in the order of the plan

The plan fixes which runs share a program. So a sweep has the same table however often it is stopped and however many
processes work on it.
"""

import csv
import io
import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvae import files
from jaxvae.data.kinds import same_images, with_new_names
from jaxvae.errors import InputError
from jaxvae.runs.config import EARLIER
from jaxvae.sweeps.comparison import Row

Plan = dict[str, Any]  # The settings that all runs share, and "programs": [{"fixed": {...}, "runs": [{...}, ...]}, ...]

# The names of this version for those of axes in the files of earlier versions.
RENAMED = {"held_out_class": "hold_out", "input_scaling": "scaling", "image_size": "size"}


def programs_of(
    fixed: Mapping[str, Sequence[Any]], free: Mapping[str, Sequence[Any]], runs_per_program: int
) -> list[dict[str, Any]]:
    """The product of all axes, cut into programs of at most `runs_per_program` runs.

    All runs of a program have the same values of the `fixed` axes, which change shapes or data.

    >>> [len(program["runs"]) for program in programs_of({"size": [32, 64]}, {"seed": [0, 1, 2]}, 2)]
    [2, 1, 2, 1]
    """
    runs = [dict(zip(free, values, strict=True)) for values in itertools.product(*free.values())]
    return [
        {"fixed": dict(zip(fixed, values, strict=True)), "runs": runs[start : start + runs_per_program]}
        for values in itertools.product(*fixed.values())
        for start in range(0, len(runs), runs_per_program)
    ]


def claim(sweep_dir: Path, plan: Plan) -> None:
    """Write the plan into a new folder, or compare it with the plan there.

    Raises:
      InputError: the folder holds something else, or another sweep.
    """
    plan = json.loads(json.dumps(plan))
    if (note := files.claim(sweep_dir, "plan.json", plan, what="a sweep")) is None:
        return
    facts = {"images?": dict, "volumes?": dict | None}
    note = files.check(note, str(sweep_dir / "plan.json"), facts, "name a new folder, or remove this one")
    note = json.loads(json.dumps(with_new_names(note)), object_hook=_renamed)
    same = same_images(note, plan)
    if same is False:
        raise InputError(f"{sweep_dir}: was made from other images; bring those back, or name a new folder")
    before, now = EARLIER | {"maps": []} | files.flat(note), files.flat(plan)
    # Sweeps of earlier versions have no hash of the images' contents. Images may move.
    free = ("jaxvae", "programs", "images.contents", *(("data.data",) if same else ()))
    files.refuse_other_settings(sweep_dir, before, now, ["jaxvae"], way_out="install that version")
    files.refuse_other_settings(sweep_dir, before, now, [name for name in now if name not in free])
    if before.get("programs") != now["programs"]:
        raise InputError(f"{sweep_dir}: was made with other runs; repeat its settings, or name a new folder")


def missing(sweep_dir: Path, plan: Plan) -> list[int]:
    """The numbers of the programs whose part is missing or damaged."""
    return [number for number in range(len(plan["programs"])) if not _rows(sweep_dir, plan, number)]


def add_part(sweep_dir: Path, plan: Plan, number: int, rows: list[Row], seconds: float) -> None:
    """Write the rows of one program, and the table with them."""
    files.write_json(_part(sweep_dir, number).with_suffix(".time.json"), {"seconds": round(seconds, 2)})
    # JSON has neither NaN nor infinity.
    finite = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]
    files.write_lines(_part(sweep_dir, number), finite)
    write_table(sweep_dir, plan)


def seconds_per_program(sweep_dir: Path) -> float | None:
    """Mean time of the programs trained so far; None if there are none."""
    timed = [files.read_json(path, {"seconds": int | float}) for path in sweep_dir.glob("parts/*.time.json")]
    return statistics.fmean(record["seconds"] for record in timed) if timed else None


def write_table(sweep_dir: Path, plan: Plan) -> list[Row]:
    """Write table.jsonl and table.csv from all parts. Returns their rows."""
    rows = [row for number in range(len(plan["programs"])) for row in _rows(sweep_dir, plan, number)]
    files.write_lines(sweep_dir / "table.jsonl", rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write(sweep_dir / "table.csv", text.getvalue().encode())
    return rows


def _part(sweep_dir: Path, number: int) -> Path:
    return sweep_dir / "parts" / f"{number:04d}.jsonl"


def _rows(sweep_dir: Path, plan: Plan, number: int) -> list[Row]:
    """The rows of a program, one per run; none if its part is missing or damaged."""
    program = plan["programs"][number]
    try:
        rows = files.read_lines(_part(sweep_dir, number), {"loss?": int | float | None, "diverged?": bool})
    except InputError:
        return []
    rows = [_renamed(row) for row in rows]
    runs = [{**program["fixed"], **run} for run in program["runs"]]
    settings = [{name: row.get(name) for name in run} for row, run in zip(rows, runs, strict=False)]
    numbers = all(value is None or isinstance(value, int | float) for row in rows for value in row.values())
    return rows if numbers and len(rows) == len(runs) and settings == runs else []


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    """A record of an earlier version with the names of this one."""
    return {RENAMED.get(name, name): value for name, value in values.items()}
