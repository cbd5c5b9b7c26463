"""Fixtures for the tests of all commands: a folder of images, a trained run, and a check of error messages."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from folders import write_benchmark
from jaxvae.cli import main
from small_runs import SIDE, SMALL


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmark(tmp_path_factory.mktemp("data") / "blobs", train=12, test=4, size=SIDE)


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A run that was trained, evaluated and reported. Tests must not change it."""
    run = tmp_path_factory.mktemp("runs") / "evaluated"
    assert main(["train", str(run), "--data", str(folder), *SMALL]) == 0
    assert main(["evaluate", str(run), "--resamples", "20"]) == 0
    assert main(["report", str(run)]) == 0
    return run


@pytest.fixture
def run(tmp_path: Path, evaluated: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail with exit code 2 and one line on stderr. Returns the line."""

    def refused(*arguments: object) -> str:
        capsys.readouterr()
        code = main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        assert err.startswith("jaxvae: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err.strip()

    return refused
