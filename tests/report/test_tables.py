"""Tables as Markdown, text, HTML and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from html_elements import Elements

from jaxvae.errors import InputError
from jaxvae.report import tables

ROWS = [
    {"score": "Combi", "auroc": (0.8123, 0.79, 0.834), "n": 12, "seconds": 1.5, "ok": True},
    {"score": "a|b\nc", "auroc": 0.6, "n": 7, "seconds": np.float32(0.25), "rate": 2e-5},
    {"score": "<none>", "auroc": float("nan"), "n": np.int64(9), "seconds": 0.2501, "rate": None},
]
COLUMNS = {"score": "Score", "auroc": "AUROC", "n": "n", "seconds": "s", "rate": "Rate", "ok": "OK"}


def test_markdown_by_hand() -> None:
    expected = """\
| Score  |                   AUROC |   n |         s |  Rate | OK  |
| :----- | ----------------------: | --: | --------: | ----: | :-- |
| Combi  | **0.812** (0.790-0.834) |  12 |     1.500 |     – | yes |
| a\\|b c |                   0.600 |   7 | **0.250** | 2e-05 | –   |
| <none> |                       – |   9 | **0.250** |     – | –   |"""
    assert tables.markdown(ROWS, COLUMNS, best={"auroc": max, "seconds": min}) == expected


def test_text_by_hand() -> None:
    expected = """\
score                  auroc   n
------  --------------------  --
Combi   0.812* (0.790-0.834)  12
a|b c                 0.600    7
<none>                    –    9"""
    rows = [{**row, "score": row["score"].replace("\n", " ")} for row in ROWS]
    assert tables.text(rows, ["score", "auroc", "n"]) == expected


@pytest.mark.parametrize("values", [[0.5], [0.5, None], [0.5, 0.50001], [3, 7], ["a", "b"], [None, None]])
def test_nothing_is_best_without_a_difference(values: list) -> None:
    assert "**" not in tables.markdown([{"x": value} for value in values], ["x"])


def test_whole_numbers_are_compared_on_request() -> None:
    assert "**7**" in tables.markdown([{"x": 3}, {"x": 7}], ["x"], best={"x": max})


def test_interval_ends_have_the_digits_of_their_value() -> None:
    rows = [{"a": (0.019, 0.000478, 0.101)}, {"a": (1e-4, 5e-5, 2e-3)}, {"a": (0.0, 0.0, 1e-4)}]
    shown = tables.markdown(rows, ["a"], best={})
    assert "0.019 (0.000-0.101)" in shown
    assert "0.0001 (5e-05 to 0.002)" in shown
    assert "0.000 (0.000-0.0001)" in shown


def test_negative_intervals_are_written_with_to() -> None:
    assert "-1.000 (-1.500 to -0.500)" in tables.text([{"x": (-1.0, -1.5, -0.5)}], ["x"])


def test_a_table_without_rows_has_its_header() -> None:
    assert tables.markdown([], ["score"]).splitlines() == ["| score |", "| :---- |"]
    assert tables.text([], ["score"]).splitlines() == ["score", "-----"]


def test_html_tables_have_scoped_headers() -> None:
    element = tables.html(ROWS, COLUMNS, caption="Pixels & images")
    elements = Elements(element)
    scopes = [attributes["scope"] for attributes in elements.all("th")]
    assert scopes == ["col"] * 6 + ["row"] * 3
    assert len(elements.all("td")) == 5 * 3
    assert "<caption>Pixels &amp; images</caption>" in element
    noted = tables.html(ROWS, COLUMNS, caption="Pixels; a < b; c")
    assert "<caption>Pixels <small>a &lt; b; c</small></caption>" in noted
    assert "&lt;none&gt;" in element
    assert "<strong>0.812</strong> (0.790-0.834)" in element


def test_json_keeps_every_number(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    rows = [{"auroc": 0.1 + 0.2, "n": np.int64(3), "interval": (0.5, np.float64(0.25), 1.0), "none": None}]
    tables.write_json(path, rows, {"data": Path("a/b"), "edges": np.arange(3), "name": "é"})
    assert json.loads(path.read_text("utf-8")) == {
        "context": {"data": "a/b", "edges": [0, 1, 2], "name": "é"},
        "rows": [{"auroc": 0.1 + 0.2, "n": 3, "interval": [0.5, 0.25, 1.0], "none": None}],
    }


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), np.array([1, np.nan]), {1, 2}, object()])
def test_json_errors_name_the_value(tmp_path: Path, value: object) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(InputError, match=r"results.json: rows\[1\].auroc(\[1\])? is"):
        tables.write_json(path, [{"auroc": 1.0}, {"auroc": value}], {})
    assert not path.exists()
