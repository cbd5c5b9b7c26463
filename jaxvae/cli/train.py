"""`jaxvae train`: train a run on healthy images, or continue it."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxvae.cli import flags
from jaxvae.cli.complaints import with_flags
from jaxvae.cli.flags import Settings, Source, flag
from jaxvae.data import kinds
from jaxvae.errors import InputError, command
from jaxvae.models import NETWORKS
from jaxvae.runs import settings, signals

if TYPE_CHECKING:
    from jaxvae.data.dataset import Splits
    from jaxvae.runs.run import Run


@dataclass(frozen=True)
class Train:
    """Train a model on healthy images.

    The same command on the same folder continues a run that was stopped.
    """

    run: flags.Run
    """the run folder: made if missing, continued if it holds a run made with the same flags"""
    source: Source = field(default_factory=Source)
    settings: Settings = field(default_factory=Settings)
    checkpoint_seconds: float = 30.0
    """least time between two checkpoints; one is always written at the end"""
    config: Annotated[Path | None, flags.optional("RUN/config.json", "none")] = None
    """repeat another run: all its settings, except those given as flags"""

    def execute(self) -> bool:
        """Train. Returns False if a signal stopped it before the end."""
        settings.check(self.settings, self.source)
        # SIGTERM has the same effect from here on, whether training has begun or not.
        with signals.noted(signal.SIGTERM) as stop:
            from jaxvae.runs import config, training

            ending = training.train_run(
                self.run,
                self.source,
                self.settings,
                checkpoint_seconds=self.checkpoint_seconds,
                stop=stop,
                finished=self._keep_thresholds,
                say=lambda line: print(with_flags(line, vars(self.settings)), flush=True),
            )
        score = command("score", self.run, "FOLDER")
        next_step = f"look for anomalies with {score}"
        if not ending.finished:
            next_step = "the same command continues it"
        elif config.read_config(self.run)["images"]["test"]:
            next_step = f"see how good it is with {command('evaluate', self.run)}, or score other images with {score}"
        print(f"{self.run}: {ending.words}; {next_step}")
        return ending.finished

    def _keep_thresholds(self, run: Run, splits: Splits) -> None:
        from jaxvae.evaluation import thresholds

        try:
            thresholds.write_healthy_stats(run, splits)
        except InputError as error:
            print(f"  no thresholds of healthy images, so masks need --threshold: {error}")


def repeated(words: Sequence[str]) -> Train | None:
    """The settings of the run that `--config` names; None without that flag.

    They are the defaults of the other flags. Settings of the run that do not go with the other flags are left out.
    """
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    typed = {flag: value for flag, value in pairwise(words) if flag.startswith("--")}
    if "--config" not in typed:
        return None
    from jaxvae.runs import config

    path = Path(typed["--config"])
    source, of_run = config.settings_of(config.read_config(path.parent if path.name == "config.json" else path))
    fitting = (name for network in NETWORKS.values() for name in network.settings)
    dropped = {
        "--epochs": ("steps",),
        "--steps": ("epochs",),
        "--model": (*fitting, "latent_size", "learning_rate", "arithmetic"),
        "--schedule": ("decay_epochs", "decay_rate"),
    }
    if typed.get("--model") == of_run.model:
        del dropped["--model"]
    left_out = {name for flag in typed for name in dropped.get(flag, ())}
    if "--data" in typed:
        source = replace(source, data=typed["--data"])
        left_out |= {name for one in kinds.KINDS for name in one.settings} - {*kinds.kind_of(source).settings}
    images, kept = ({name: it for name, it in vars(of).items() if name not in left_out} for of in (source, of_run))
    return Train(tyro.MISSING, Source(**images), Settings(**kept), config=path)


def as_command(source: kinds.Source, given: settings.Settings) -> str:
    """The command that trains a run: the flags that are not at their defaults.

    >>> as_command(kinds.Source(data="a b", size=(64,)), settings.Settings(features=(8, 16), beta=0.5))
    "jaxvae train RUN --data 'a b' --size 64 --features 8 16 --beta 0.5"
    """
    words = ["jaxvae", "train", "RUN"]
    for record, default in ((source, kinds.Source()), (given, settings.Settings())):
        for name, value in vars(record).items():
            if value != getattr(default, name):
                words += [flag(name), *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)
