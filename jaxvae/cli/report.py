"""`jaxvae report`: figures, tables and a page from an evaluated run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxvae.cli import flags
from jaxvae.cli.source import open_other, open_own
from jaxvae.errors import InputError

if TYPE_CHECKING:
    from jaxvae.checkpoint import Run

# Those of the viewer of volumes, of which each adds a megabyte or so to the page.
SHOWN = ("combi", "kl_grad", "elbo_grad", "rec_error")


@dataclass(frozen=True)
class Report:
    """Draw an evaluated run: figures, tables, and one page with all of them."""

    run: flags.Run
    """the run folder, after `jaxvae evaluate`"""
    other: Annotated[Path | None, tyro.conf.Positional, flags.optional("[OTHER]", "the run's own test")] = None
    """what else it was evaluated on"""
    cases: int = 2
    """images of a kind in the panels: so many of the best, the median and the worst; volumes, in all"""

    def execute(self) -> None:
        flags.refuse_unless_positive("cases", self.cases)
        from jaxvae import checkpoint, results, volume_tables
        from jaxvae.evaluation import BASELINES
        from jaxvae.report import evaluation_page

        if self.other is not None and not self.other.exists():
            raise InputError(f"{self.other}: no such folder")
        evaluation = results.read_evaluation(self.run, self.other)
        config = checkpoint.read_config(self.run)
        place = results.place(self.run, self.other)
        splits, section = open_own(config), ""
        test = splits.test
        if config.get("volumes") is None:
            test = test if self.other is None else open_other(config, self.other, splits)
        else:
            run = checkpoint.load(self.run)
            volume_tables.own_volumes(run)
            test = test if self.other is None else volume_tables.other_volumes(run, self.other)
            judged = self.other or Path(config["data"]["data"])
            section = volume_viewer(run, judged, set(test.groups), evaluation, self.cases)
        maps = [row["score"] for row in evaluation["pixels"] if row["score"] not in BASELINES]
        scored = results.read_scores(place, test, maps)
        evaluation_page.write(
            place / "report",
            test,
            scored,
            evaluation,
            config,
            cases=self.cases,
            records=_records(self.run / "metrics.jsonl"),
            viewer_section=section,
        )
        print(f"{place / 'report' / 'index.html'} shows everything; its figures and tables lie beside it")


def _records(path: Path) -> list[dict[str, Any]]:
    """What was logged while the run was trained."""
    from jaxvae import files

    try:
        return files.read_lines(path)
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); restore it, or remove it and go without its figure") from error


def volume_viewer(run: Run, directory: Path, patients: set[str], evaluation: dict[str, Any], count: int) -> str:
    """The viewer of up to `count` volumes that have lesions, those with the most of them."""
    from jaxvae.data import cache
    from jaxvae.data.scans import Rejected
    from jaxvae.report.viewer import Shown, viewer
    from jaxvae.volume_scores import score_scans

    opened = cache.open_cache(directory)
    sick = [record for record in opened.volumes if record["patient"] in patients and any(record["lesion_voxels"])]
    sick.sort(key=lambda record: -sum(record["lesion_voxels"]))
    thresholds = evaluation["volumes"][0]["thresholds"]
    shown = []
    for record in sick[:count]:
        cache.refuse_changed(directory, record)
    for result in score_scans(run, [cache.scan_of(record) for record in sick[:count]], maps=SHOWN, keep_voxels=True):
        if isinstance(result, Rejected):
            raise InputError(result.reason)
        shown.append(
            Shown(
                name=result.scan.name,
                image=result.cut.volume.voxels,
                maps={name: result.volume(name) for name in SHOWN},
                mask=result.cut.lesion,
                thresholds={name: thresholds[name]["0.01"] for name in SHOWN if name in thresholds},
                spacing=result.cut.volume.spacing,
                facts={"Patient": result.scan.patient},
                affine=result.cut.volume.affine,
            )
        )
    return viewer(shown) if shown else ""
