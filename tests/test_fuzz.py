"""Damaged files of every format are refused in one line or read correctly, by `scripts/fuzz.py`."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxvae.errors import InputError

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz.py"


def fuzz(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--seed", "0", "--keep", str(folder), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_few_hundred_damaged_files_have_no_fault(tmp_path):
    done = fuzz(tmp_path, "--inputs", "12", "--seconds", "300")
    assert done.returncode == 0, done.stdout + done.stderr
    inputs, refused, read, faults = map(int, re.findall(r"\d+", done.stdout.splitlines()[-1]))
    assert inputs == refused + read >= 300
    assert min(refused, read) > 50
    assert faults == 0


@pytest.mark.slow
def test_thousands_of_damaged_files_have_no_fault(tmp_path):
    done = fuzz(tmp_path, "--seconds", "60", "--first", "12")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("outcome", "read"),
    [
        ("read", lambda folder: (folder / "a.txt").read_bytes()[:1]),
        ("refused", lambda folder: _raise(InputError("a.txt: damaged"))),
        ("KeyError", lambda folder: _raise(KeyError("a"))),
        ("AssertionError", lambda folder: _raise(AssertionError())),
        ("other values", lambda folder: (folder / "a.txt").read_bytes()),
    ],
)
def test_the_outcome_of_a_damaged_file_is_named(tmp_path, monkeypatch, outcome, read):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    fuzz, formats = importlib.import_module("fuzz"), importlib.import_module("fuzz_formats")
    good = {"a.txt": b"a" * 100}
    monkeypatch.setattr(fuzz, "_good", lambda form, folder: b"a" * (100 if outcome == "other values" else 1))
    form = formats.Format(good, {".txt": []}, read)
    monkeypatch.setattr(formats, "damaged", lambda draw, form: ({"a.txt": b"a" * 99}, "cut", True))
    assert fuzz._try(form, "text", 0, 0, tmp_path / "input", [])[0] == outcome


def _raise(error: Exception) -> None:
    raise error
