"""Laws of a sweep's folder: the plan decides, parts are whole, and the table does not tell how it came about."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from jaxvae import files
from jaxvae.errors import InputError
from jaxvae.sweeps import plan

PLAN = {"epochs": 2, "programs": plan.programs_of({"size": [32, 64]}, {"seed": [0, 1, 2]}, together=2)}
RUNS = PLAN["programs"][0]["runs"]


def fill(folder: Path, numbers):
    plan.claim(folder, PLAN)
    for number in numbers:
        program = PLAN["programs"][number]
        rows = [{**program["fixed"], **run, "auroc": run["seed"] / 10 + number} for run in program["runs"]]
        plan.add_part(folder, PLAN, number, rows, seconds=number)


def test_programs_are_the_product_of_the_axes_cut_to_size():
    runs = [(program["fixed"]["size"], run["seed"]) for program in PLAN["programs"] for run in program["runs"]]
    assert runs == [(size, seed) for size in (32, 64) for seed in (0, 1, 2)]
    assert [len(program["runs"]) for program in PLAN["programs"]] == [2, 1, 2, 1]


def test_the_table_is_the_same_in_whatever_order_and_however_often_it_is_made(tmp_path):
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


def test_the_time_of_a_program_is_the_mean_of_those_that_were_trained(tmp_path):
    assert plan.seconds_a_program(tmp_path / "sweep") is None
    fill(tmp_path / "sweep", [1, 3])
    assert plan.seconds_a_program(tmp_path / "sweep") == 2


def test_what_is_not_finite_is_left_empty(tmp_path):
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
def test_a_damaged_part_is_made_again(tmp_path, damage):
    fill(tmp_path, range(4))
    part = tmp_path / "parts" / "0000.jsonl"
    part.write_bytes(damage(part.read_bytes().splitlines(keepends=True)))
    assert plan.missing(tmp_path, PLAN) == [0]
    assert len(plan.write_table(tmp_path, PLAN)) == 4
    fill(tmp_path, [0])
    assert len(plan.write_table(tmp_path, PLAN)) == 6


def test_a_run_that_diverged_reaches_nothing():
    rows = [{"beta": beta, "diverged": beta == 1, "loss": loss} for beta, loss in ((1, 3.0), (2, 5.0))]
    first, last = plan.over_seeds(rows, ["beta"], "loss")
    assert (first["beta"], first["diverged"]) == (2, 0)
    assert (last["beta"], last["diverged"], last["mean"]) == (1, 1, None)


def test_settings_are_ranked_by_their_mean_and_those_that_diverged_come_last():
    rows = [{"beta": beta, "seed": seed, "auroc": score} for beta, seed, score in [
        (1, 0, 0.7), (1, 1, 0.9), (2, 0, 0.81), (2, 1, 0.81), (4, 0, 0.99), (4, 1, None),
    ]]  # fmt: skip
    first, second, last = plan.over_seeds(rows, ["beta"], "auroc")
    assert (first["beta"], second["beta"], last["beta"]) == (2, 1, 4)
    assert second["mean"] == pytest.approx(0.8)
    assert second["std"] == pytest.approx(0.2 / math.sqrt(2))
    assert (second["worst"], second["seeds"], last["diverged"]) == (0.7, 2, 1)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"epochs": 3}, "made with epochs 2 and now it is 3; repeat its flags, or name a new folder"),
        ({"programs": PLAN["programs"][:1]}, "holds another sweep, made with other runs"),
    ],
)
def test_another_sweep_in_the_folder_is_refused(tmp_path, change, complaint):
    plan.claim(tmp_path / "sweep", PLAN)
    with pytest.raises(InputError, match=complaint):
        plan.claim(tmp_path / "sweep", {**PLAN, **change})


def test_a_folder_that_is_no_sweep_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already and is no sweep"):
        plan.claim(tmp_path, PLAN)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_damaged_plan_is_said_to_be(tmp_path):
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(InputError, match=r"plan.json: not JSON"):
        plan.claim(tmp_path, PLAN)
