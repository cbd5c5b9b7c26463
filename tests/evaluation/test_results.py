"""evaluation.json is read for the current checkpoint only, and refused if it is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxvae import DenseVAE, InputError
from jaxvae.evaluation import results
from jaxvae.runs.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run at step 5, not evaluated."""
    return Run(DenseVAE((8, 8, 1), 2, 8), {}, 5, {"data": {"data": "phantom"}}, tmp_path)


def test_an_evaluation_of_another_step_is_refused(run: Run) -> None:
    path = run.run_dir / "evaluation.json"
    with pytest.raises(InputError, match=r"not evaluated yet; run `jaxvae evaluate .*` first"):
        results.read_evaluation(run)
    evaluation = {**dict.fromkeys(results.EVALUATION), "step": 5}
    path.write_text(json.dumps(evaluation))
    assert results.read_evaluation(run) == evaluation
    path.write_text(json.dumps({**evaluation, "step": 4}))
    with pytest.raises(InputError, match="evaluated at step 4 and is at step 5 now"):
        results.read_evaluation(run)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_a_damaged_evaluation_is_refused_in_one_line(run: Run, content: str) -> None:
    (run.run_dir / "evaluation.json").write_text(content)
    with pytest.raises(InputError, match=r"evaluation.json: (not JSON|lacks step).*jaxvae evaluate") as caught:
        results.read_evaluation(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["tested_on", "judged"])
def test_every_evaluation_of_a_run_is_found(run: Run, tmp_path: Path, key: str) -> None:
    other = tmp_path / "other"
    evaluation = dict.fromkeys(results.EVALUATION)
    for place, step, images in (("", 5, None), ("on/other", 5, str(other)), ("on/old", 4, str(tmp_path / "old"))):
        (run.run_dir / place).mkdir(parents=True, exist_ok=True)
        (run.run_dir / place / results.FILE).write_text(json.dumps({**evaluation, "step": step, key: images}))
    assert [found[key] for found in results.evaluations(run)] == [None, str(other)]
    assert results.read_evaluation(run, other)[key] == str(other)
    (run.run_dir / "on" / "other" / results.FILE).write_text(json.dumps({**evaluation, "step": 5, key: "elsewhere"}))
    with pytest.raises(InputError, match="holds the results on elsewhere"):
        results.read_evaluation(run, other)
