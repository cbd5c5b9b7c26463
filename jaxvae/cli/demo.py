"""`jaxvae demo`: train, evaluate and report on synthetic images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxvae.cli.evaluate import Evaluate
from jaxvae.cli.flags import Settings
from jaxvae.cli.report import Report
from jaxvae.cli.train import Train


@dataclass(frozen=True)
class Demo:
    """Train, evaluate and report on synthetic brain slices, in minutes."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = Path("demo")
    """the run folder"""
    epochs: int = 40
    """passes through 2,000 slices; more is better and slower"""

    def execute(self) -> bool:
        settings = Settings(epochs=self.epochs, schedule="cosine", learning_rate=1e-3, latent_size=128, log_scale=-2.0)
        finished = Train(run=self.run, settings=settings).execute()
        if finished:
            Evaluate(run=self.run).execute()
            Report(run=self.run).execute()
        return finished
