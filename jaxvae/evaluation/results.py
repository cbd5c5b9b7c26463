"""Where the results of an evaluated run are, and evaluation.json in that folder.

evaluation.json    the tables, the thresholds, and which run and images they belong to
scores/            the scores of the test images (`jaxvae.scoring.score_files`)
measures/          only while volumes are evaluated: the measures of the finished ones, to resume from
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxvae import files
from jaxvae.data.dataset import Fingerprint, same_fingerprint
from jaxvae.errors import ArgumentError, InputError, command
from jaxvae.runs.run import Run, refuse_among_images

FILE = "evaluation.json"
# The keys that evaluation.json must have. Earlier versions did not write the precision.
EVALUATION = {"step": int} | dict.fromkeys(("data", "images", "pixels", "samples", "thresholds"), object)
EVALUATION |= {"precision?": dict}
# The folder of the test images, None for the run's own. Earlier versions wrote the second key.
TESTED_ON = ("tested_on", "judged")


def results_folder(run: Run, other: Path | None = None, out: Path | None = None) -> Path:
    """The folder of a run's results: `out`, RUN/on/NAME, or the run itself."""
    return out or (run.run_dir / "on" / other.resolve().name if other else run.run_dir)


def claim_results_folder(run: Run, other: Path | None, out: Path | None, images: Fingerprint | None = None) -> Path:
    """Claim the folder for the results of a test; other results are refused.

    Args:
      other: the images, if they are not the run's own.
      out: the folder, if it is outside the run.
      images: the fingerprint of the test images, which recognises them after they have moved.
    Raises:
      InputError: the folder holds results of other images or of another run, or it is another run, or it lies among
        the run's own images.
    """
    folder = results_folder(run, other, out)
    if out is not None and out.resolve() != run.run_dir.resolve():
        if (out / "config.json").is_file():
            raise ArgumentError("out", out, "is another run; name another folder")
        refuse_among_images(run, out)
    try:
        stored = files.read_json(folder / FILE)
        moved = same_fingerprint(stored.get("contents"), images)
    except InputError:
        return folder  # There is no evaluation, or it is damaged.
    found, wanted = _tested_on(stored), None if other is None else str(other.resolve())
    if found != wanted and not moved and (other is not None or out is not None):
        raise InputError(f"{folder}: holds the results on {found}; remove it, or give {other or out} another name")
    if out is not None and stored.get("run") not in (None, str(run.run_dir.resolve())):
        raise InputError(f"{folder}: holds the results of {stored['run']}; choose another `out`")
    return folder


def refuse_other_images(evaluation: dict[str, Any], now: Fingerprint, where: str, again: str) -> None:
    """Raise InputError if images or masks changed since their evaluation.

    Args:
      now: the fingerprint of the current test images; evaluations of earlier versions have none to compare with.
      where: their folder.
      again: the command that evaluates them.
    """
    if same_fingerprint(evaluation.get("contents"), now) is False:
        raise InputError(f"{where}: test images or masks have changed since they were evaluated; run {again} again")


def read_evaluation(run: Run, other: Path | None = None, out: Path | None = None) -> dict[str, Any]:
    """Read evaluation.json of a run, on its own or on other test images.

    Raises:
      InputError: the run was not evaluated since it was last trained, or the file is damaged.
    """
    path = results_folder(run, other, out) / FILE
    again = f"run {evaluate_command(run, other, out)}"
    if not path.is_file():
        raise InputError(f"{run.run_dir}: not evaluated yet; {again} first")
    evaluation = files.read_json(path, EVALUATION, way_out=f"{again} again")
    found = _tested_on(evaluation)
    # Newer files hold a fingerprint, which `refuse_other_images` compares even if the images have moved.
    if "contents" not in evaluation and other is not None and found != str(other.resolve()):
        raise InputError(f"{path}: holds the results on {found}; {again} again")
    if evaluation["step"] != run.step:
        found = f"evaluated at step {evaluation['step']} and is at step {run.step} now"
        raise InputError(f"{run.run_dir}: {found}; {again} again")
    return evaluation


def evaluate_command(run: Run, other: Path | None = None, out: Path | None = None) -> str:
    """The command that writes an evaluation."""
    return command("evaluate", run.run_dir, *filter(None, [other]), out=out)


def evaluations(run: Run) -> Iterator[dict[str, Any]]:
    """Every evaluation of a run's checkpoint: its own test images first."""
    for path in (run.run_dir / FILE, *sorted(run.run_dir.glob(f"on/*/{FILE}"))):
        try:
            stored = files.read_json(path, dict.fromkeys((f"{key}?" for key in TESTED_ON), str | None))
            other = _tested_on(stored)
            yield read_evaluation(run, None if other is None else Path(other))
        except (OSError, ValueError):
            continue  # Missing, damaged (such as an impossible path), or of another checkpoint.


def _tested_on(evaluation: dict[str, Any]) -> str | None:
    return next((evaluation[key] for key in TESTED_ON if key in evaluation), None)
