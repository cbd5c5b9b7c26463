"""A small folder of images, a trained run, and a check of error messages, shared by the tests of all commands."""

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
    """A run, trained, evaluated and reported; not to be changed."""
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
    """Runs a command that must fail as agreed: exit code 2, one line on stderr, nothing on stdout. The line."""

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
