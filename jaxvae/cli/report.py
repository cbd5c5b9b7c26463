"""`jaxvae report`: figures, tables and a page from an evaluated run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxvae.cli import flags
from jaxvae.cli.source import at_hand, open_other, open_own
from jaxvae.errors import InputError

if TYPE_CHECKING:
    from jaxvae.data.volumes.cache import Cache
    from jaxvae.report.page import Section
    from jaxvae.runs.checkpoint import Run

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

    out: Annotated[Path | None, flags.optional("PATH", "RUN, or RUN/on/NAME for a folder NAME")] = None
    """where to write report/; the results are read there too if `evaluate` wrote them there"""

    def execute(self) -> None:
        flags.refuse_unless_positive("cases", self.cases)
        from jaxvae import files
        from jaxvae.data.volumes import cache
        from jaxvae.evaluation.image_metrics import BASELINES
        from jaxvae.report import evaluation_page, evaluation_tables
        from jaxvae.runs import checkpoint, training
        from jaxvae.scoring import results

        if self.other is not None and not self.other.exists():
            raise InputError(f"{self.other}: no such folder")
        run = checkpoint.load(self.run)
        config, other = at_hand(run.config, self.other)
        run = run._replace(config=config)
        there = self.out if self.out and (self.out / "evaluation.json").is_file() else None
        again = results.evaluate_command(self.run, self.other, there)
        evaluation = evaluation_tables.checked(results.read_evaluation(self.run, other, there), again)
        test = open_own(self.run, config).test if other is None else open_other(self.run, run, other)
        where = other or Path(config["data"]["data"])
        tested = cache.open_cache(where) if config.get("volumes") else None
        images = results.fingerprint_of(test, tested and tested.hash)
        results.refuse_other_images(evaluation, images, where, again)
        place = results.claim(self.run, other, self.out, config["data"]["data"], images)
        section = volume_viewer(run, tested, set(test.groups), evaluation, self.cases) if tested else None
        maps = [row["score"] for row in evaluation["pixels"] if row["score"] not in BASELINES]
        scored = results.read_scores(results.place(self.run, other, there), test, maps)
        evaluation_page.write(
            place / "report",
            test,
            scored,
            evaluation,
            config,
            cases=self.cases,
            records=files.read_lines(
                self.run / "metrics.jsonl",
                training.LOGGED,
                way_out="restore it, or remove it and go without its figure",
            ),
            viewer_section=section,
        )
        print(f"{place / 'report' / 'index.html'} shows everything; its figures and tables lie beside it")


def volume_viewer(
    run: Run, opened: Cache, patients: set[str], evaluation: dict[str, Any], count: int
) -> Section | None:
    """The viewer of up to `count` volumes that have lesions, those with the most of them; none without their scans."""
    from jaxvae.data.volumes import cache
    from jaxvae.data.volumes.scans import Rejected
    from jaxvae.report.viewer import Shown, viewer
    from jaxvae.scoring.volume_scores import score_scans

    if gone := cache.missing_files(opened, patients):
        there = f"{len(gone)} files of its scans are gone, such as {gone[0]}"
        print(f"{opened.directory}: {there}; the page is without its viewer of volumes")
        return None
    sick = [record for record in opened.volumes if record["patient"] in patients and any(record["lesion_voxels"])]
    sick.sort(key=lambda record: -sum(record["lesion_voxels"]))
    thresholds = evaluation["volumes"][0]["thresholds"]
    shown = []
    for record in sick[:count]:
        cache.refuse_changed(opened.directory, record)
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
    return viewer(shown) if shown else None
