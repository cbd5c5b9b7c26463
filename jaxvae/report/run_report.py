"""The report of an evaluated run: figures, tables, and one page with all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxvae import files
from jaxvae.data.volumes import cache
from jaxvae.data.volumes.cache import Cache
from jaxvae.data.volumes.scans import Rejected
from jaxvae.errors import InputError
from jaxvae.evaluation import results
from jaxvae.evaluation.evaluate import load_labelled
from jaxvae.report import evaluation_page, evaluation_tables
from jaxvae.report.page import Section
from jaxvae.report.viewer import Shown, viewer
from jaxvae.runs import run_images, training
from jaxvae.runs.run import Run
from jaxvae.scores import known_maps
from jaxvae.scoring import score_files
from jaxvae.scoring.volume_scores import score_scans

SHOWN = ("elbo_grad", "combi", "kl_grad", "rec_error")  # in the viewer of volumes; each adds about a megabyte


def write_report(
    run: Run,
    other: Path | None = None,
    out: Path | None = None,
    *,
    cases: int = 2,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Draw an evaluated run into the folder `report`: what `jaxvae report` does.

    Args:
      other: the folder of other images that the run was evaluated on; None stands for its own test images.
      out: the folder for `report`, and of the evaluation if it was written there; None stands for the run, or for
        RUN/on/NAME if there is `other`.
      cases: in the panels, images each of the best, the median and the worst; in the viewer, volumes in all.
      say: called with each line for the user.

    Returns:
      The page.

    Raises:
      InputError: the run is not evaluated, the evaluation is damaged, or its images have changed.
    """
    if other is not None and not other.exists():
        raise InputError(f"{other}: no such folder")
    source = out if out and (out / results.FILE).is_file() else None
    again = results.evaluate_command(run, other, source)
    run, other = run_images.at_hand(run, other)
    evaluation = evaluation_tables.checked(results.read_evaluation(run, other, source), again)
    images = load_labelled(run, other, lambda: run_images.open_own(run), say)
    fingerprint = images.fingerprint
    results.refuse_other_images(evaluation, fingerprint, images.place, again)
    folder = results.claim_results_folder(run, other, out, fingerprint)
    patients = set(images.dataset.groups)
    section = images.volumes and _volume_viewer(run, images.volumes, patients, evaluation, cases, say)
    rows = (*evaluation["pixels"], *evaluation["samples"])
    maps = [name for name in dict.fromkeys(row["score"] for row in rows) if name in known_maps()]
    scores = score_files.read(results.results_folder(run, other, source) / "scores", images.dataset, maps, again=again)
    way_out = "restore it, or remove it and go without its figure"
    records = files.read_lines(run.run_dir / "metrics.jsonl", training.LOGGED, way_out=way_out)
    evaluation_page.write(folder / "report", images.dataset, scores, evaluation, run.config, cases, records, section)
    return folder / "report" / "index.html"


def _volume_viewer(
    run: Run, volumes: Cache, patients: set[str], evaluation: dict[str, Any], count: int, say: Callable[[str], None]
) -> Section | None:
    """The viewer of up to `count` volumes, those with the largest lesions; None without their scans."""
    if missing := cache.missing_files(volumes, patients):
        say(f"{volumes.directory}: {missing}; the page is without its viewer of volumes")
        return None
    sick = [record for record in volumes.volumes if record["patient"] in patients and any(record["lesion_voxels"])]
    sick.sort(key=lambda record: -sum(record["lesion_voxels"]))
    for record in sick[:count]:
        cache.refuse_changed(volumes.directory, record)
    thresholds = {name: at["0.01"] for name, at in evaluation["volumes"][0]["thresholds"].items() if name in SHOWN}
    shown = []
    names = [name for name in SHOWN if name in run.maps]
    for result in score_scans(run, [cache.scan_of(record) for record in sick[:count]], maps=names, keep_voxels=True):
        if isinstance(result, Rejected):
            raise InputError(result.reason)
        volume, lesion, facts = result.cut.volume, result.cut.lesion, {"Patient": result.scan.patient}
        maps = {name: result.map(name) for name in names}
        shown.append(
            Shown(result.scan.name, volume.voxels, maps, lesion, thresholds, volume.spacing, facts, volume.affine)
        )
    return viewer(shown) if shown else None
