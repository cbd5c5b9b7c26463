"""The rows of an experiment: kept part by part, then written with the command, the time and the machine."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxvae import files
from jaxvae.errors import InputError
from jaxvae.machine import machine

RESULTS = Path(__file__).parent / "results"


def make_folder(out: Path, *, quick: bool) -> None:
    """Make the folder of the results if it is missing.

    Raises:
      InputError: a quick trial would replace the results here, or the folder cannot be made.
    """
    if quick and out.resolve() == RESULTS.resolve():
        raise InputError("--quick: would replace the results; give another folder with --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.cannot_be_written(out, error) from error


def kept(path: Path, decides: dict[str, Any]) -> dict[str, Any] | None:
    """The `rows` and `seconds` of a finished part, or None if there is no file or its settings were others.

    Args:
      decides: the settings on which the rows depend.
    """
    found = files.read_json(path, {"rows": list}) if path.is_file() else None
    same = found is not None and found["decides"] == json.loads(json.dumps(decides))  # Tuples become lists in JSON.
    return found if same else None


def part(path: Path, decides: dict[str, Any], compute: Callable[[], list[dict[str, Any]]]) -> dict[str, Any]:
    """The `rows` and `seconds` of a part, from its file or computed now and written there."""
    found = kept(path, decides)
    if found is None:
        started = time.perf_counter()
        rows = compute()
        found = {"decides": decides, "rows": rows, "seconds": round(time.perf_counter() - started, 1)}
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, found)
        print(f"{path.stem}: {found['seconds']:.0f} s", flush=True)
    return found


def write(
    name: str, rows: list[dict[str, Any]], *, seconds: Sequence[float | None] | None, folder: Path = RESULTS
) -> None:
    """Write a list of rows to FOLDER/NAME, and how they were computed beside it, to NAME with `.context.json`.

    Args:
      seconds: of each run, None where unknown. None instead of a list leaves the context file unchanged, for rows that
        are only tabulated again.
    """
    files.write_json(folder / name, rows)
    if seconds is None:
        return
    timed = [time for time in seconds if time is not None]
    command = shlex.join(["python", "-m", f"experiments.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
    context = {"command": command, "runs": len(seconds), "runs_timed": len(timed), "seconds": round(sum(timed))}
    files.write_json((folder / name).with_suffix(".context.json"), {**context, **machine()})
