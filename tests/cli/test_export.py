"""`jaxvae export`: the command and the lines that it refuses with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from jaxvae.cli import main


def test_an_export_can_be_checked(evaluated: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "OUT"
    assert main(["export", str(evaluated), str(out), "--maps", "rec_error", "--batch-size", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{out}: 5 outputs agree with the sample on cpu")
    assert said[1] == f"check it anywhere with `python {out / 'check.py'}`"
    done = subprocess.run([sys.executable, out / "check.py"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    weights = out / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    done = subprocess.run([sys.executable, out / "check.py"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "weights.safetensors: was changed since the export" in done.stderr


def test_bad_input_is_one_line(refused, evaluated: Path, tmp_path: Path) -> None:
    out = tmp_path / "OUT"
    assert "--maps knn_latent: has its own program" in refused("export", evaluated, out, "--maps", "knn_latent")
    assert "choose from" in refused("export", evaluated, out, "--maps", "nothing")
    assert "holds a name twice" in refused("export", evaluated, out, "--maps", "combi", "combi")
    assert "--batch-size 0: must be above 0" in refused("export", evaluated, out, "--batch-size", "0")
    assert "no such folder" in refused("export", tmp_path / "none", out)
    assert "is not a run" in refused("export", tmp_path, out)
    assert "OUT is missing" in refused("export", evaluated)
    assert "exists and is not an export; name a new folder" in refused("export", evaluated, evaluated)
    assert not out.exists()
