"""`jaxvae demo`: train, evaluate and report in turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jaxvae.cli import STOPPED, main
from jaxvae.cli.evaluate import Evaluate
from jaxvae.cli.report import Report
from jaxvae.cli.train import Train


@pytest.mark.parametrize("finished", [True, False])
def test_the_demo_stops_with_its_training(monkeypatch: pytest.MonkeyPatch, finished: bool) -> None:
    done: list[Any] = []
    for command in (Train, Evaluate, Report):
        monkeypatch.setattr(command, "execute", lambda self: done.append(self) or finished)
    assert main(["demo", "here", "--epochs", "3"]) == (0 if finished else STOPPED)
    assert [type(command) for command in done] == ([Train, Evaluate, Report] if finished else [Train])
    assert {command.run for command in done} == {Path("here")}
    assert done[0].settings.epochs == 3
