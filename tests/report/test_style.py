"""Style: lines of scores, sheets, and files of figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jaxvae.errors import InputError
from jaxvae.report import style


def test_all_lines_of_a_figure_differ() -> None:
    pixel_scores = ["rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi", "brightness", "equalised_brightness"]
    for names in (pixel_scores, ["kl", "nll", "elbo", "mine"], [*pixel_scores, "mine", "yours"], [*"abcdefghijklmn"]):
        assert len(set(style.lines(names).values())) == len(names)


def test_the_line_of_a_listed_score_never_changes() -> None:
    assert style.lines(["combi"])["combi"] == style.lines(["a", "b", "combi", "kl_grad"])["combi"]


@pytest.mark.parametrize("length", [5, 6, 11, 12, 30])
def test_shortened_text_fits_and_keeps_both_ends(length: int) -> None:
    text = "test/00031.png"
    short = style.shorten(text, length)
    assert len(short) == min(length, len(text))
    assert text.startswith(short.split("…")[0])
    assert text.endswith(short.split("…")[-1])


def test_drawing_does_not_change_matplotlib(tmp_path: Path) -> None:
    """Importing the report imports no matplotlib; drawing needs no pyplot, warns not, and changes no global setting."""
    code = """
import sys
from jaxvae.report import operating_curves, page, panels, score_histograms, style, tables
assert "matplotlib" not in sys.modules, "matplotlib is imported with the report"
import matplotlib
import numpy as np
before = matplotlib.rcParams.copy()
image, rates = np.eye(8)[None, ..., None], np.array([0.0, 1.0])
panels.figure("panels.png", image, image, {"combi": image}, image > 0, ["$a_b"])
operating_curves.figure("curves.png", {"combi": (rates, rates)}, {"combi": (rates, rates)}, 0.5)
score_histograms.figure("histograms.png", {"combi": (image, image)})
assert matplotlib.rcParams.copy() == before, "a global setting has changed"
assert "matplotlib.pyplot" not in sys.modules, "pyplot is imported"
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["curves.png", "histograms.png", "panels.png"]


@pytest.mark.parametrize("name", ["figure.pdf", "figure.jpeg"])
def test_other_endings_raise_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: figures are written as .png or .svg"):
        style.save(style.sheet(10, 10), tmp_path / name)


def test_without_an_ending_both_kinds_are_written(tmp_path: Path) -> None:
    style.save(style.sheet(10, 10), tmp_path / "figure")
    assert {path.name for path in tmp_path.iterdir()} == {"figure.png", "figure.svg"}
    assert b"dc:date" not in (tmp_path / "figure.svg").read_bytes()


def test_a_sheet_too_large_to_open_raises_an_error() -> None:
    with pytest.raises(InputError, match="image viewers cannot open it"):
        style.sheet(1500, 70_000)
