"""The experiment that compares all methods: its cells, tables and figure."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import jaxvae
from experiments import method_tables, methods, record
from jaxvae.data import kinds
from jaxvae.errors import InputError
from jaxvae.runs import settings
from jaxvae.scores import METHODS

ROOT = Path(__file__).parents[1]
LABELS = {name: (variant.label, variant.test) for name, variant in methods.VARIANTS.items()}


def row(**entries) -> dict:
    times = {"training": 2.0, "fitting": 0.0, "milliseconds": 1.5}
    of_row = {"task": "phantom", "test": "phantom", "level": "pixels", "variant": "vae", "method": "maps", "seed": 0}
    of_row |= {"score": "rec_error", "test_file": "tests/a.py", "images": 9, "seconds": 1.0}
    return of_row | dict.fromkeys(methods.METRICS) | times | entries


def test_every_row_names_a_file_of_tests() -> None:
    named = {*methods.TESTS.values(), *(variant.test for variant in methods.VARIANTS.values() if not variant.run)}
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_method_has_a_row() -> None:
    assert {name for variant in methods.VARIANTS.values() for name in variant.methods} == {
        "baselines",
        "maps",
        *METHODS,
    }


@pytest.mark.parametrize("name", methods.VARIANTS)
def test_the_settings_of_every_variant_go_together(name: str, tmp_path: Path) -> None:
    variant = methods.VARIANTS[name]
    for source in (jaxvae.Source("phantom"), jaxvae.Source(f"{kinds.PREFIX}{tmp_path}", hold_out=0)):
        if not variant.only or source.data.startswith(kinds.PREFIX):
            settings.check(jaxvae.Settings(steps=1, **variant.settings), source)


def test_rows_are_averaged_over_seeds_and_intervals_too() -> None:
    rows = [row(average_precision=[0.2, 0.1, 0.3]), row(seed=1, average_precision=[0.4, 0.3, 0.7], auroc=0.5)]
    (found,) = method_tables.summarize(rows, LABELS)
    np.testing.assert_allclose(found["average_precision"], (0.3, 0.2, 0.5))
    assert (found["auroc"], found["best_dice"], found["runs"]) == (0.5, None, 2)
    assert found["test_file"] == "tests/a.py, tests/objectives/test_elbo.py"


def test_tables_are_ordered_and_the_figure_is_written(tmp_path: Path) -> None:
    rows = [
        row(average_precision=0.2),
        row(score="kl_grad", average_precision=[0.4, 0.3, 0.5]),
        row(score="elbo", level="images", average_precision=0.9),
        row(test="FashionMNIST", level="images", variant="no_model", score="atlas", average_precision=0.6),
    ]
    summary = method_tables.summarize(rows, LABELS)
    text = method_tables.markdown(summary)
    first = text.split("\n\n")[1]
    assert [line.split("|")[2].strip() for line in first.splitlines()[2:]] == ["KL-Grad", "Rec-Error", "Atlas z"]
    assert "**phantom, images.**" in text
    method_tables.figure(tmp_path / "figure.png", summary)
    assert (tmp_path / "figure.png").stat().st_size > 5_000


def test_finished_cells_are_kept_and_only_missing_ones_computed(tmp_path: Path, monkeypatch) -> None:
    computed = []

    def compute(config: methods.Config, cell: methods.Cell) -> list[dict]:
        computed.append(cell.name)
        return [row(average_precision=0.5)]

    monkeypatch.setattr(methods, "compute", compute)
    config = methods.Config(data=tmp_path, work=tmp_path, only=("phantom",))
    assert len(methods.finished(config)) == len(computed) == len(set(computed))
    first = computed.copy()
    computed.clear()
    (tmp_path / "cells" / f"{first[3]}.json").unlink()
    methods.finished(config)
    assert computed == [first[3]]
    # Other settings give other results.
    assert methods.finished(dataclasses.replace(config, steps=2, train=False)) == []


def test_a_quick_trial_does_not_replace_the_results(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    with pytest.raises(InputError, match="--quick: would replace the results"):
        methods.main(methods.Config(quick=True, out=tmp_path))
