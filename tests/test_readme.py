"""The examples, links and flags of the documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jaxvae.cli import main

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = (README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *ROOT.glob("*/README.md"))


def test_the_python_example_runs_as_written(capsys):
    [example] = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 15
    exec(compile(example, str(README), "exec"), {})
    assert re.fullmatch(r"AUROC 0\.\d\d, best Dice 0\.\d\d\n", capsys.readouterr().out)


def test_the_first_pages_stay_short():
    lines = README.read_text().splitlines()
    assert len(lines) <= 150
    assert lines.index("```python") < 60


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_it_names_exists(document):
    text = document.read_text()
    for path in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (document.parent / path).exists(), path
    for path in re.findall(r"`((?:scripts|tests|experiments|jaxvae)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("command", ["train", "score", "evaluate", "sweep", "report", "prepare", "export"])
def test_every_flag_it_names_exists(command, capsys):
    main([command, "--help"])
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    for document in DOCUMENTS:
        for line in re.findall(rf"jaxvae {command} ([^`&#\n]*)", document.read_text()):
            assert set(re.findall(r"--[a-z][a-z-]*", line)) <= known, line
