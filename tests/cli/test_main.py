"""The `jaxvae` command: help, version, typing errors and exit codes."""

from __future__ import annotations

import io
import os
import re
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import jaxvae
from jaxvae.cli import COMMANDS, main
from jaxvae.errors import did_you_mean
from small_runs import SMALL

HELP = """
import contextlib, io, sys
from jaxvae.cli import main
for arguments in ([], ["--help"], ["--version"], *([name, "--help"] for name in sys.argv[1:])):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(arguments) == 0, arguments
    assert out.getvalue() and "None" not in out.getvalue(), arguments
heavy = {"jax", "flax", "optax", "orbax", "matplotlib", "scipy", "tensorflow_datasets"} & sys.modules.keys()
assert not heavy, heavy
"""


def test_help_takes_under_a_second_without_jax() -> None:
    # Without coverage's tracer, which would add half of the time.
    untraced = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", HELP, *COMMANDS], check=True, env=untraced)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # CPU time of all commands in one process, so that other processes do not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_summary_and_a_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"  {command} ")]
    assert len(lines) == 1
    assert len(lines[0]) < 90
    assert main([command, "--help"]) == 0
    assert f"usage: jaxvae {command}" in capsys.readouterr().out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert main(["train", "--version"]) == 0
    assert capsys.readouterr().out == f"jaxvae {jaxvae.__version__}\n" * 2


def test_python_m_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "jaxvae", "sing"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "jaxvae: sing: no such command; see `jaxvae --help`\n"


def test_a_missing_device_is_one_line(tmp_path: Path) -> None:
    train = [sys.executable, "-m", "jaxvae", "train", str(tmp_path / "run"), "--size", "16", "--epochs", "1"]
    environment = {**os.environ, "JAX_PLATFORMS": "abacus"}
    done = subprocess.run(train, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("jaxvae: JAX_PLATFORMS=abacus: JAX finds no such device here; install JAX for it")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"), [(KeyboardInterrupt, 130, "jaxvae: interrupted\n"), (BrokenPipeError, 1, "")]
)
def test_interrupts_and_closed_pipes_print_no_traceback(error, code: int, line: str) -> None:
    program = (
        "import sys; from jaxvae import cli\n"
        f"class Command:\n    def execute(self): raise {error.__name__}\n"
        "cli._parse = lambda *_: Command(); sys.exit(cli.main(['train']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, line)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("trian r", "trian: no such command; did you mean train? see `jaxvae --help`"),
        ("train", "RUN is missing; see `jaxvae train --help`"),
        ("train r --epoch 3", "--epoch: no such flag; did you mean --epochs? see `jaxvae train --help`"),
        ("train r --batchsize=3", "--batchsize: no such flag; did you mean --batch-size? see `jaxvae train --help`"),
        ("train r -epochs 3", "-epochs: no such flag; did you mean --epochs? see `jaxvae train --help`"),
        ("train r --zzz", "--zzz: no such flag; see `jaxvae train --help`"),
        ("train r s", "s: one argument too many; see `jaxvae train --help`"),
        ("train r --epochs three", "--epochs three: must be a whole number; see `jaxvae train --help`"),
        ("train r --epochs=2.5", "--epochs 2.5: must be a whole number; see `jaxvae train --help`"),
        ("train r --latent-size big", "--latent-size big: must be a whole number; see `jaxvae train --help`"),
        ("train r --beta one", "--beta one: must be a number; see `jaxvae train --help`"),
        (
            "train r --features 4 x",
            "--features 4 x: must be whole numbers, with spaces between; see `jaxvae train --help`",
        ),
        (
            "train r --channels red",
            "--channels red: must be whole numbers, with spaces between; see `jaxvae train --help`",
        ),
        ("train r --epochs", "--epochs: its value is missing; see `jaxvae train --help`"),
        (
            "train r --model gan",
            "--model gan: choose from auto, dense, conv, spatial, two_stage, unet; see `jaxvae train --help`",
        ),
        ("score r --threshold high", "--threshold high: must be a number; see `jaxvae score --help`"),
        ("score r f --format bmp", "--format bmp: choose from npy, tiff; see `jaxvae score --help`"),
    ],
)
def test_unreadable_flags_are_named_as_typed(
    refused, monkeypatch: pytest.MonkeyPatch, arguments: str, line: str
) -> None:
    for encoding in ("utf-8", "ascii"):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        assert refused(*arguments.split()) == f"jaxvae: {line}"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("train r --epochs 0", "--epochs 0: must be above 0"),
        ("train r --learning-rate nan", "--learning-rate nan: must be a finite number above 0"),
        ("train r --beta -1", "--beta -1.0: must be at least 0"),
        ("train r --log-scale inf", "--log-scale inf: must be a finite number"),
        ("train r --features", "--features without a number: give numbers above 0"),
        ("train r --features 4 0", "--features 4 0: give numbers above 0"),
        ("train r --seed -1", "--seed -1: must be in 0..4294967295"),
        ("train r --hepl", "--hepl: no such flag; did you mean --help"),
        ("sweep s --seed 0 --seed 1", "--seed: is given 2 times; give it once, with all its values"),
        ("train", "RUN is missing"),
        ("train r --size 32,32", "--size 32,32: must be one or two whole numbers, with a space between"),
        ("train r --latent-size 100000000000", "--latent-size, --features, --hidden-size: the model needs .* GB"),
        ("train r --data fashion_mnist", "fashion_mnist: no such folder; did you mean fashion_mnist:DIR"),
        ("evaluate size=0", "size=0: no such folder; make one with `jaxvae train size=0`"),
        ("prepare d --out o --percentiles 5", "--percentiles 5: must be two numbers, with a space between"),
        ("prepare fashion_mnist:d --size 32", "--size 32: only goes with a folder of volumes"),
        ("score r --maps combi combi", "--maps: combi combi holds a name twice; give each once"),
        ("sweep s --learning-rate 0", "--learning-rate 0.0: must be above 0"),
        ("sweep s --seed", "--seed without a number: give at least one"),
        ("sweep s --latent-size", "--latent-size without a number: give at least one"),
        ("sweep s --learning-rate", "--learning-rate without a number: give at least one"),
        ("sweep s --width", "--width without a number: give at least one"),
        ("sweep s --beta 1 1", "--beta 1.0 1.0: a value is there twice; give each once"),
        ("train r --split-seed -1", "--split-seed -1: must be at least 0"),
        ("train r --validation 1", "--validation 1.0: must be a fraction, at least 0 and below 1"),
        ("train r --patience 3 --validation 0", "--patience needs a validation set; set --validation"),
        ("train r --schedule cosine --warmup-epochs 25", "--warmup-epochs 25.0: must be below --epochs 25"),
        ("train r --arithmetic released --size 16 --features 4", "--arithmetic released: only goes with --model dense"),
        ("train r --size 0", "--size 0: must be 16 pixels or more"),
        ("train r --hold-out 3", "--hold-out 3: only goes with --data fashion_mnist:DIR"),
        ("train r --channels 1", "--channels 1: only goes with a folder"),
        ("train r --data fashion_mnist:d", "--hold-out is missing"),
        ("train r --data fashion_mnist:d --hold-out 12", "--hold-out 12: pass the class"),
        ("train r --data fashion_mnist:d --hold-out 1 --scaling 0", "--scaling 0: must be a whole number"),
        ("train r --data fashion_mnist:d --hold-out 1 --size 32", "--size 32: FashionMNIST is 28x28"),
        ("train r --data nowhere", "nowhere: no such folder"),
        ("evaluate nowhere", "nowhere: no such folder; make one with `jaxvae train nowhere`"),
        ("report nowhere", "nowhere: no such folder"),
        ("score nowhere", "nowhere: no such folder"),
        ("evaluate r --resamples -1", "--resamples -1: must be at least 0"),
        ("report r --cases 0", "--cases 0: must be above 0"),
        ("score r --batch-size 0", "--batch-size 0: must be above 0"),
        ("score r f --threshold nan", "--threshold nan: must be a finite number"),
        ("score r --threshold 1", "--threshold 1.0: only goes with a folder of images"),
        ("score r --format tiff", "--format tiff: only goes with a folder of images"),
        ("score r --maps", "--maps without a name"),
        ("prepare mnist", "--out is missing: where to put the slices of the volumes in mnist"),
    ],
)
def test_values_out_of_range_are_named_as_typed(
    refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.match(f"jaxvae: ({line})", refused(*arguments.split()))
    assert list(tmp_path.iterdir()) == []


def test_only_similar_words_are_suggested() -> None:
    assert did_you_mean("trian", COMMANDS) == "; did you mean train?"
    assert did_you_mean("sing", COMMANDS) == ""


def test_a_tilde_is_the_home_folder(refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for typed in (["--data=~/none"], ["--data", "~/none"], ["--data=fashion_mnist:~/none", "--hold-out=1"]):
        assert refused("train", "run", *typed).startswith(f"jaxvae: {tmp_path}/none: no such")
    for command in ("evaluate", "report", "score"):
        assert refused(command, "~/none").startswith(f"jaxvae: {tmp_path}/none: no such folder")
    assert f"{tmp_path}/none: no such" in refused("prepare", "~/none", "--out=~/out")
    # A tilde within a name is part of the name.
    assert refused("evaluate", "a~/b").startswith("jaxvae: a~/b: no such folder")
    assert list(tmp_path.iterdir()) == []


def test_commands_run_outside_the_main_thread(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(1) as pool:
        code = pool.submit(main, ["train", str(run), "--data", str(folder), *SMALL]).result()
    assert code == 0
    assert "nothing is left to do" in capsys.readouterr().out


def test_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "jaxvae", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == (
        "jaxvae: the output: cannot be written (No space left on device); free some space, or name another place\n"
    )
