"""The folder of a sweep: its plan, its parts, and a table that does not depend on the order of the work."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from jaxvae import files
from jaxvae.errors import InputError
from jaxvae.sweeps import plan

PLAN = {
    "jaxvae": "1",
    "epochs": 2,
    "programs": plan.programs_of({"size": [32, 64]}, {"seed": [0, 1, 2]}, runs_per_program=2),
}
RUNS = PLAN["programs"][0]["runs"]


def fill(folder: Path, numbers):
    plan.claim(folder, PLAN)
    for number in numbers:
        program = PLAN["programs"][number]
        rows = [{**program["fixed"], **run, "auroc": run["seed"] / 10 + number} for run in program["runs"]]
        plan.add_part(folder, PLAN, number, rows, seconds=number)


def test_programs_are_the_product_of_the_axes_in_parts():
    runs = [(program["fixed"]["size"], run["seed"]) for program in PLAN["programs"] for run in program["runs"]]
    assert runs == [(size, seed) for size in (32, 64) for seed in (0, 1, 2)]
    assert [len(program["runs"]) for program in PLAN["programs"]] == [2, 1, 2, 1]


def test_the_table_does_not_depend_on_the_order_of_the_parts(tmp_path):
    fill(tmp_path / "at once", range(4))
    fill(tmp_path / "in parts", [3])
    fill(tmp_path / "in parts", [0, 2])
    assert plan.missing(tmp_path / "in parts", PLAN) == [1]
    fill(tmp_path / "in parts", [1])
    assert plan.missing(tmp_path / "in parts", PLAN) == []
    for name in ("table.jsonl", "table.csv", "plan.json"):
        assert (tmp_path / "at once" / name).read_bytes() == (tmp_path / "in parts" / name).read_bytes()
    with (tmp_path / "at once" / "table.csv").open() as file:
        assert [row["size"] for row in csv.DictReader(file)] == ["32"] * 3 + ["64"] * 3


def test_the_time_per_program_is_the_mean_so_far(tmp_path):
    assert plan.seconds_per_program(tmp_path / "sweep") is None
    fill(tmp_path / "sweep", [1, 3])
    assert plan.seconds_per_program(tmp_path / "sweep") == 2


def test_nan_is_null_in_the_table(tmp_path):
    plan.claim(tmp_path / "sweep", PLAN)
    plan.add_part(tmp_path / "sweep", PLAN, 0, [{**run, "size": 32, "loss": math.nan} for run in RUNS], seconds=1)
    assert [row["loss"] for row in files.read_lines(tmp_path / "sweep" / "table.jsonl")] == [None, None]


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: b"",
        lambda lines: lines[0],
        lambda lines: b"{" + b"".join(lines),
        lambda lines: b"".join(lines[::-1]),
        lambda lines: lines[0] + lines[0],
        lambda lines: b"".join(lines).replace(b"0.1", b'"a"'),
    ],
    ids=["empty", "half", "no JSON", "exchanged", "repeated", "a word for a number"],
)
def test_a_damaged_part_is_missing(tmp_path, damage):
    fill(tmp_path, range(4))
    part = tmp_path / "parts" / "0000.jsonl"
    part.write_bytes(damage(part.read_bytes().splitlines(keepends=True)))
    assert plan.missing(tmp_path, PLAN) == [0]
    assert len(plan.write_table(tmp_path, PLAN)) == 4
    fill(tmp_path, [0])
    assert len(plan.write_table(tmp_path, PLAN)) == 6


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"epochs": 3}, "made with epochs 2, now 3; use those settings again, or name a new folder"),
        ({"programs": PLAN["programs"][:1]}, "was made with other runs; repeat its settings, or name a new folder"),
    ],
)
def test_another_sweep_in_the_folder_is_refused(tmp_path, change, complaint):
    plan.claim(tmp_path / "sweep", PLAN)
    with pytest.raises(InputError, match=complaint):
        plan.claim(tmp_path / "sweep", {**PLAN, **change})


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not a sweep"):
        plan.claim(tmp_path, PLAN)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_damaged_plan_is_named(tmp_path):
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(InputError, match=r"plan.json: not JSON"):
        plan.claim(tmp_path, PLAN)


def test_sweeps_of_earlier_versions_are_continued(tmp_path):
    """They have other names for three axes, in the plan and in the parts."""
    before = {"held_out_class": [1, 2], "input_scaling": [1], "image_size": [32]}
    after = {"hold_out": [1, 2], "scaling": [1], "size": [32]}
    old, new = ({**PLAN, "programs": plan.programs_of(axes, {"seed": [0, 1]}, 2)} for axes in (before, after))
    plan.claim(tmp_path, old)
    rows = [{**old["programs"][0]["fixed"], "seed": seed, "loss": 1.5} for seed in (0, 1)]
    files.write_lines(tmp_path / "parts" / "0000.jsonl", rows)
    plan.claim(tmp_path, new)
    assert plan.missing(tmp_path, new) == [1]
    table = [{"hold_out": 1, "scaling": 1, "size": 32, "seed": seed, "loss": 1.5} for seed in (0, 1)]
    assert plan.write_table(tmp_path, new) == table
    with pytest.raises(InputError, match="other runs"):
        plan.claim(tmp_path, {**new, "programs": new["programs"][:1]})
