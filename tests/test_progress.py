"""Progress bars are silent without a terminal and make no semaphore."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxvae
from jaxvae.progress import Bar


def test_a_bar_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(Bar(range(3), "count")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


SPAWNED = """
import multiprocessing
multiprocessing.set_start_method("spawn")
from multiprocessing import resource_tracker
from jaxvae.progress import Bar
list(Bar(range(3), "count", disable=False))
with Bar(total=2, disable=False) as bar:
    Bar.write("a line")
    bar.update(2)
assert resource_tracker._resource_tracker._pid is None
"""


def test_a_bar_makes_no_semaphore() -> None:
    """A killed process would leave a semaphore, and Python would warn on stderr."""
    done = subprocess.run([sys.executable, "-c", SPAWNED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "a line\n"), done.stderr


def test_only_progress_imports_tqdm() -> None:
    package = Path(jaxvae.__file__).parent
    users = [path.name for path in package.rglob("*.py") if re.search(r"(from|import) tqdm", path.read_text())]
    assert users == ["progress.py"]
