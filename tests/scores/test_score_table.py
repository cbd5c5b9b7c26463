"""The table of scores fits the records, the baselines and the figures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from jaxvae.evaluation import image_metrics
from jaxvae.scores import BASELINES, IMAGE_SCORES, METHODS, PIXEL_SCORES, SCORES
from jaxvae.types import PixelScores, SampleScores


def test_every_computed_score_is_in_the_table() -> None:
    assert list(IMAGE_SCORES) == list(SampleScores._fields)
    assert set(PixelScores._fields) == {name for name, score in PIXEL_SCORES.items() if score.combination is None}
    assert {score.gradient for score in PIXEL_SCORES.values()} <= {None, *PixelScores._fields}
    assert list(BASELINES) == list(image_metrics.baseline_maps(np.zeros((1, 4, 4, 1), np.float32)))


def test_no_two_scores_share_a_name_or_a_label() -> None:
    of_methods = [score.name for method in METHODS.values() for score in method.scores]
    assert list(SCORES) == [*PIXEL_SCORES, *IMAGE_SCORES, *BASELINES, *of_methods]
    assert len({score.label for score in SCORES.values()}) == len(SCORES)
    assert all(score.formula for score in SCORES.values())


def test_reading_the_table_does_not_import_jax() -> None:
    code = "import sys, jaxvae.scores; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_documents_have_the_formulas_of_the_table() -> None:
    root, found = Path(__file__).parents[2], {}
    for document in ("README.md", "experiments/README.md"):
        rows = re.findall(
            r"^\| `(\w+)`[^|]* \| (?:pixel|image) \| (.*?)(?<!\\) \|(?: [^|]* \|)*$",
            (root / document).read_text(),
            re.MULTILINE,
        )
        found |= {name: formula.replace("\\|", "|") for name, formula in rows}
    expected = {name: score.formula for name, score in SCORES.items() if name not in BASELINES}
    assert found == {name: formula for name, formula in expected.items() if name not in ("combi_smoothed", "combi_sum")}
