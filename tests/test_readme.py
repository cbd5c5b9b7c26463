"""What the README shows has to work as written."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_python_examples_run_as_written(capsys):
    first, second = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(first.strip().splitlines()) <= 25
    found: dict = {}
    exec(compile(second, str(README), "exec"), found)
    assert found["maps"].kl_grad.shape == (256, 28, 28, 1)
    assert found["metrics"].loss[-1] < found["metrics"].loss[0]
    exec(compile(first, str(README), "exec"), {})
    assert re.findall(r"^(\S+): AUROC 0\.\d\d, best Dice 0\.\d\d$", capsys.readouterr().out, re.M) == [
        "Combi",
        "ELBO-Grad",
    ]


def test_every_file_it_names_is_there():
    text = README.read_text()
    for name in re.findall(r"\]\(([^)#:]+)\)|`((?:scripts|tests)/[\w./]+)`", text):
        path = name[0] or name[1]
        assert (README.parent / path).exists(), path
