"""`jaxvae report`: figures, tables and a page from an evaluated run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxvae.cli import flags
from jaxvae.errors import InputError, refuse_unless_positive


@dataclass(frozen=True)
class Report:
    """Draw an evaluated run: figures, tables, and one page with all of them."""

    run: flags.Run
    """the run folder, after `jaxvae evaluate`"""
    other: Annotated[Path | None, tyro.conf.Positional, flags.optional("[OTHER]", "the run's own test images")] = None
    """the other images that it was evaluated on"""
    cases: int = 2
    """images per kind in the panels, for each of best, median and worst; number of scans in the viewer"""
    out: Annotated[Path | None, flags.optional("PATH", "RUN, or RUN/on/NAME for a folder NAME")] = None
    """where to write report/; the results are read there too if `evaluate` wrote them there"""

    def execute(self) -> None:
        refuse_unless_positive("cases", self.cases)
        if (self.run / "table.jsonl").is_file():
            problem = "is a sweep; its tables are table.csv and table.jsonl in that folder"
            raise InputError(f"{self.run}: {problem}, and its figures are the .png files beside them")
        from jaxvae.report.run_report import write_report
        from jaxvae.runs.run import load

        page = write_report(load(self.run), self.other, self.out, cases=self.cases, say=print)
        print(f"{page} shows everything; its figures and tables are in the same folder")
