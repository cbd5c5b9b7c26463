"""The command: the whole way from images to a report, and one line for anything a user can get wrong."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
import pytest
import tifffile
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

import jaxvae
from folders import healthy, with_squares, write_benchmark, write_png
from jaxvae import files
from jaxvae.cli import COMMANDS, STOPPED, main
from jaxvae.cli.complaints import did_you_mean
from jaxvae.cli.evaluate import Evaluate
from jaxvae.cli.report import Report
from jaxvae.cli.score import MapName, Score
from jaxvae.cli.source import open_own
from jaxvae.cli.train import Train
from jaxvae.data.fashion_mnist.hold_out import SHA256 as FASHION_MNIST_FILES
from jaxvae.data.preparation import on_grid
from jaxvae.evaluation.image_metrics import BASELINES
from jaxvae.runs import capacity, checkpoint
from jaxvae.scores.gradients import BATCH, MAPS
from jaxvae.sweeps import program

SMALL = ["--features", "4", "8", "--latent-size", "4", "--batch-size", "4", "--epochs", "2"]
SIDE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmark(tmp_path_factory.mktemp("data") / "blobs", train=12, test=4, size=SIDE)


@pytest.fixture(scope="module")
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


def leftovers(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.name.endswith(".part") or path.name.startswith(".")]


def read_lines(path: Path) -> list[dict]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {path}")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


# Reading the flags

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


def test_help_needs_neither_jax_nor_a_second() -> None:
    # Without coverage's tracer, which would add half as much again to what is timed.
    untraced = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", HELP, *COMMANDS], check=True, env=untraced)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Time on the processor, so that a busy machine does not count, and of all commands in one.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_line_and_a_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    train = [sys.executable, "-m", "jaxvae", "train", str(tmp_path / "run"), "--size", "16", "--epochs", "1"]
    environment = {**os.environ, "JAX_PLATFORMS": "abacus"}
    done = subprocess.run(train, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("jaxvae: JAX_PLATFORMS=abacus: JAX finds no such device here; install JAX for it")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"), [(KeyboardInterrupt, 130, "jaxvae: interrupted\n"), (BrokenPipeError, 1, "")]
)
def test_who_interrupts_or_stops_listening_sees_no_traceback(error, code: int, line: str) -> None:
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
        ("train r --model gan", "--model gan: choose from auto, dense, conv; see `jaxvae train --help`"),
        ("score r --threshold high", "--threshold high: must be a number; see `jaxvae score --help`"),
        ("score r f --format bmp", "--format bmp: choose from npy, tiff; see `jaxvae score --help`"),
    ],
)
def test_what_cannot_be_read_is_named_as_typed(
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
        ("train r --beta -1", "--beta -1.0: must not be below 0"),
        ("train r --log-scale inf", "--log-scale inf: must be a finite number"),
        ("train r --features", "--features without a number: give numbers above 0"),
        ("train r --features 4 0", "--features 4 0: give numbers above 0"),
        ("train r --seed -1", "--seed -1: must lie in 0..4294967295"),
        ("train r --hepl", "--hepl: no such flag; did you mean --help"),
        ("sweep s --seed 0 --seed 1", "--seed: is given 2 times; give it once, with all its values"),
        ("train", "RUN is missing"),
        ("train r --size 32,32", "--size 32,32: must be one or two whole numbers, with a space between"),
        ("train r --latent-size 100000000000", "--latent-size, --features, --hidden-size: the model needs .* GB"),
        ("train r --data fashion_mnist", "fashion_mnist: no such folder; did you mean fashion_mnist:DIR"),
        ("evaluate size=0", "size=0: no such folder; make one with `jaxvae train size=0 --data ...`"),
        ("prepare d --out o --percentiles 5", "--percentiles 5: must be two numbers, with a space between"),
        ("prepare fashion_mnist:d --size 32", "--size 32: only goes with a folder of volumes"),
        ("score r --maps combi combi", "--maps: combi combi holds a name twice; give each once"),
        ("sweep s --learning-rate 0", "--learning-rate 0.0: must be above 0"),
        ("sweep s --seed", "--seed without a value: give at least one"),
        ("sweep s --latent-size", "--latent-size without a value: give at least one"),
        ("sweep s --learning-rate", "--learning-rate without a value: give at least one"),
        ("sweep s --width", "--width without a value: give at least one"),
        ("sweep s --beta 1 1", "--beta: 1.0 1.0 holds a value twice; give each once"),
        ("train r --split-seed -1", "--split-seed -1: must not be below 0"),
        ("train r --validation 1", "--validation 1.0: must be a fraction, at least 0 and below 1"),
        ("train r --patience 3 --validation 0", "--patience needs a validation set; set --validation"),
        ("train r --schedule cosine --warmup-epochs 25", "--warmup-epochs 25.0: must be below --epochs 25"),
        ("train r --arithmetic released --size 16 --features 4", "--arithmetic released: .* add --model dense"),
        ("train r --size 0", "--size 0: a slice needs 16 pixels or more"),
        ("train r --hold-out 3", "--hold-out 3: only goes with --data fashion_mnist:DIR"),
        ("train r --channels 1", "--channels 1: only goes with a folder"),
        ("train r --data fashion_mnist:d", "--hold-out is missing"),
        ("train r --data fashion_mnist:d --hold-out 12", "--hold-out 12: pass the class"),
        ("train r --data fashion_mnist:d --hold-out 1 --scaling 0", "--scaling 0: pass a whole number"),
        ("train r --data fashion_mnist:d --hold-out 1 --size 32", "--size 32: FashionMNIST is 28x28"),
        ("train r --data nowhere", "nowhere: no such folder"),
        ("evaluate nowhere", "nowhere: no such folder; make one with `jaxvae train nowhere --data ...`"),
        ("report nowhere", "nowhere: no such folder"),
        ("score nowhere", "nowhere: no such folder"),
        ("evaluate r --resamples -1", "--resamples -1: must not be below 0"),
        ("report r --cases 0", "--cases 0: must be above 0"),
        ("score r --batch-size 0", "--batch-size 0: must be above 0"),
        ("score r f --threshold nan", "--threshold nan: must be a finite number"),
        ("score r --threshold 1", "--threshold: only goes with a folder"),
        ("score r --format tiff", "--format: only goes with a folder"),
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


def test_a_suggestion_is_made_only_where_something_is_alike() -> None:
    assert did_you_mean("trian", COMMANDS) == "; did you mean train?"
    assert did_you_mean("sing", COMMANDS) == ""


def test_the_maps_and_the_batch_of_the_command_are_those_of_the_library() -> None:
    assert set(get_args(MapName)) == set(MAPS)
    assert Score.__dataclass_fields__["batch_size"].default == BATCH


# From images to a report


def test_a_run_holds_what_was_asked_for(evaluated: Path) -> None:
    names = {path.name for path in evaluated.iterdir()}
    files = {"config.json", "metrics.jsonl", "evaluation.json", "thresholds.json", "trained_on.jsonl"}
    assert names == {*files, "checkpoints", "scores", "report"}
    config = json.loads((evaluated / "config.json").read_text())
    assert config["model"] == {
        "name": "ConvVAE",
        "image_shape": [SIDE, SIDE, 1],
        "latent_size": 4,
        "features": [4, 8],
        "dtype": "float32",
    }
    assert len(config["images"].pop("learnt_from")) == 64
    assert len(config["images"].pop("contents")) == 3
    assert config["images"] == {"shape": [SIDE, SIDE, 1], "train": 11, "validation": 1, "test": 8}
    assert config["augment"] == "none"
    assert len(read_lines(evaluated / "metrics.jsonl")) == config["epochs"] == 2
    assert leftovers(evaluated) == []


def test_augmentation_is_a_flag_and_stays_with_the_run(tmp_path: Path, folder: Path, refused) -> None:
    command = ["train", tmp_path / "run", "--data", folder, *SMALL, "--epochs", "1"]
    assert main([*map(str, command), "--augment", "paper"]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["augment"] == "paper"
    assert "run: was made with augment paper and now it is none" in refused(*command)


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ("pixels", [{"score": "combi"}]),
        ("pixels", [{"auroc": 0.5}]),
        ("pixels", 3),
        ("samples", [{"score": "elbo", "auroc": "high", "average_precision": 0.5}]),
        ("images", {"test": 8}),
        ("volumes", [{"rows": [{"score": "combi"}]}]),
    ],
)
def test_a_table_that_is_damaged_inside_is_one_line(run: Path, refused, table: str, value: object) -> None:
    path = run / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {table: value}))
    assert "evaluation.json: its tables are damaged" in refused("report", run)


def test_the_evaluation_equals_scikit_learn_on_what_was_written(evaluated: Path, folder: Path) -> None:
    evaluation = json.loads((evaluated / "evaluation.json").read_text())
    records = read_lines(evaluated / "scores" / "samples.jsonl")
    labels = np.array([record["anomalous"] for record in records])
    masks = np.zeros((8, SIDE, SIDE), bool)
    images = np.zeros((8, SIDE, SIDE))
    for i, record in enumerate(records):
        path = Path(record["name"])
        images[i] = np.asarray(Image.open(folder / path)) / 255
        if record["anomalous"]:
            masks[i] = np.asarray(Image.open(folder / "ground_truth" / "bad" / f"{path.stem}_mask.png")) > 0
    assert labels.sum() == 4
    assert masks.any(axis=(1, 2)).tolist() == labels.tolist()
    assert [row["score"] for row in evaluation["pixels"]] == [*BASELINES, *MAPS]
    for row in evaluation["pixels"]:
        if row["score"] == "equalised_brightness":
            continue
        found = (
            images if row["score"] == "brightness" else np.load(evaluated / "scores" / f"{row['score']}.npy")[..., 0]
        )
        assert found.shape == masks.shape
        scores, truth = found.ravel(), masks.ravel()
        precision, recall, _ = precision_recall_curve(truth, scores)
        assert row["auroc"][0] == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
        assert row["average_precision"][0] == pytest.approx(average_precision_score(truth, scores), abs=1e-9)
        dice = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        assert row["best_dice"][0] == pytest.approx(dice.max(), abs=1e-9)
    # Of pixels all within the image, the mean of the ranks is one for all images and says nothing.
    assert [row["score"] for row in evaluation["samples"]] == ["brightness", "elbo", "kl", "nll"]
    for row in evaluation["samples"][1:]:
        scores = np.array([record[row["score"]] for record in records])
        assert row["auroc"][0] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
        assert row["average_precision"][0] == pytest.approx(average_precision_score(labels, scores), abs=1e-9)


def test_thresholds_are_those_of_healthy_validation_images(evaluated: Path) -> None:
    thresholds = json.loads((evaluated / "evaluation.json").read_text())["thresholds"]
    assert set(thresholds) == set(MAPS)
    run = jaxvae.load(evaluated)
    validation = open_own(evaluated, run.config).validation
    (scored,) = jaxvae.score_batches(run.model, run.params, validation.images, maps=list(thresholds))
    for name, values in thresholds.items():
        for rate, threshold in values.items():
            highest = np.sort(scored.maps[name].ravel())[::-1]
            allowed = int(float(rate) * highest.size)
            assert highest[allowed] < threshold <= highest[allowed - 1], (name, rate)


def test_the_report_is_a_page_with_everything(evaluated: Path) -> None:
    report = evaluated / "report"
    drawn = {f"{kind}_{what}" for kind in ("curves", "histograms") for what in ("pixels", "images")}
    drawn |= {"panels", "training"}
    pictures = {f"{name}.{ending}" for name in drawn for ending in ("png", "svg")}
    assert {path.name for path in report.iterdir()} == {
        *pictures,
        "index.html",
        "results.md",
        "results.json",
    }
    for name in drawn:
        with Image.open(report / f"{name}.png") as image:
            image.verify()
    page = (report / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 6
    rows = json.loads((report / "results.json").read_text())["rows"]
    evaluation = json.loads((evaluated / "evaluation.json").read_text())
    assert [(row["level"], row["score"]) for row in rows] == [
        (level, row["score"]) for level in ("pixels", "samples") for row in evaluation[level]
    ]
    assert "| Combi " in (report / "results.md").read_text()


def test_the_same_commands_again_change_nothing(evaluated: Path, folder: Path, capsys) -> None:
    before = {path: path.read_bytes() for path in evaluated.rglob("*") if path.is_file()}
    assert main(["train", str(evaluated), "--data", str(folder), *SMALL]) == 0
    assert main(["evaluate", str(evaluated), "--resamples", "20"]) == 0
    out = capsys.readouterr().out
    assert "nothing is left to do; see how good it is with `jaxvae evaluate" in out
    assert "Combi" in out
    assert {path: path.read_bytes() for path in evaluated.rglob("*") if path.is_file()} == before


def test_labels_without_masks_give_the_table_of_images(folder: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(folder, tmp_path / "data", ignore=shutil.ignore_patterns("ground_truth"))
    run = tmp_path / "run"
    assert main(["train", str(run), "--data", str(tmp_path / "data"), *SMALL]) == 0
    assert main(["evaluate", str(run), "--resamples", "0"]) == 0
    assert main(["report", str(run)]) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["pixels"] == []
    assert set(evaluation["thresholds"]) == set(MAPS)
    assert "Pixels" not in capsys.readouterr().out
    assert not (run / "report" / "panels.png").exists()


def test_a_run_is_judged_by_another_folder(run: Path, tmp_path: Path, refused) -> None:
    other = write_benchmark(tmp_path / "other")
    assert main(["evaluate", str(run), str(other), "--resamples", "0"]) == 0
    assert main(["report", str(run), str(other)]) == 0
    found = run / "on" / "other"
    evaluation = json.loads((found / "evaluation.json").read_text())
    assert (evaluation["judged"], evaluation["images"]["test"]) == (str(other), 8)
    (combi,) = (row for row in evaluation["pixels"] if row["score"] == "combi")
    masks = np.array([np.asarray(Image.open(path)) > 0 for path in sorted(other.glob("ground_truth/bad/*.png"))])
    names = [record["name"] for record in read_lines(found / "scores" / "samples.jsonl")]
    labels = np.zeros((8, SIDE, SIDE, 1), bool)
    labels[[i for i, name in enumerate(names) if "/bad/" in name]] = masks[..., None]
    scores = np.load(found / "scores" / "combi.npy")
    assert combi["auroc"] == pytest.approx(roc_auc_score(labels.ravel(), scores.ravel()))
    assert (found / "report" / "index.html").is_file()
    # Nothing that was learnt from is judged, by whatever name.
    linked = tmp_path / "linked"
    (linked / "train" / "good").mkdir(parents=True)
    (linked / "test").mkdir()
    learnt = Path(json.loads((run / "config.json").read_text())["data"]["data"]) / "train" / "good"
    (linked / "test" / "good").symlink_to(learnt)
    assert "which the run was trained on; name another folder" in refused("evaluate", run, linked)
    assert "has no labels; arrange it as test/KIND" in refused("evaluate", run, learnt)


@pytest.mark.parametrize("finished", [True, False])
def test_the_demo_ends_where_its_training_was_stopped(monkeypatch: pytest.MonkeyPatch, finished: bool) -> None:
    done: list[Any] = []
    for command in (Train, Evaluate, Report):
        monkeypatch.setattr(command, "execute", lambda self: done.append(self) or finished)
    assert main(["demo", "here", "--epochs", "3"]) == (0 if finished else STOPPED)
    assert [type(command) for command in done] == ([Train, Evaluate, Report] if finished else [Train])
    assert {command.run for command in done} == {Path("here")}
    assert done[0].recipe.epochs == 3


# Scores of any images


def test_a_folder_is_scored_image_by_image(run: Path, folder: Path) -> None:
    assert main(["score", str(run), str(folder / "test")]) == 0
    out = run / "scores" / "test"
    records = read_lines(out / "samples.jsonl")
    assert [record["name"] for record in records] == [f"{kind}/00{i}.png" for kind in ("bad", "good") for i in range(4)]
    threshold = json.loads((run / "evaluation.json").read_text())["thresholds"]["combi"]["0.01"]
    for record in records:
        stem = out / Path(record["name"]).with_suffix("")
        assert set(record) == {"name", "elbo", "kl", "nll", "source"}
        for name in ("rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi"):
            values = np.load(f"{stem}_{name}.npy")
            assert (values.shape, values.dtype) == ((SIDE, SIDE), np.float32)
        overlay = np.asarray(Image.open(f"{stem}_overlay.png"))
        assert overlay.shape == (SIDE, SIDE, 3)
        mask = np.asarray(Image.open(f"{stem}_mask.png"))
        np.testing.assert_array_equal(mask, np.where(np.load(f"{stem}_combi.npy") >= threshold, 255, 0))
    assert len(list(out.rglob("*.*"))) == 8 * 7 + 2
    assert leftovers(run) == []


def test_maps_of_another_folder_of_the_same_name_are_kept(run: Path, folder: Path, tmp_path: Path, refused) -> None:
    other = tmp_path / "other" / "test"
    shutil.copytree(folder / "test" / "good", other)
    assert main(["score", str(run), str(folder / "test"), "--maps", "combi"]) == 0
    before = (run / "scores" / "test" / "samples.jsonl").read_bytes()
    assert f"holds maps made with folder {folder / 'test'}, now {other}; name another --out" in refused(
        "score", run, other
    )
    config = json.loads((run / "config.json").read_text())
    again = shutil.copytree(run, tmp_path / "again")
    (again / "config.json").write_text(json.dumps({**config, "seed": config["seed"] + 1}))
    complaint = refused("score", again, folder / "test", "--out", run / "scores" / "test")
    assert f"holds maps made with seed {config['seed']}, now {config['seed'] + 1}; name another --out" in complaint
    assert (run / "scores" / "test" / "samples.jsonl").read_bytes() == before
    assert main(["score", str(run), str(other), "--out", str(tmp_path / "out"), "--maps", "combi"]) == 0


def test_a_score_depends_on_its_image_only(run: Path, folder: Path, tmp_path: Path) -> None:
    image = folder / "test" / "bad" / "002.png"
    many, few, one = tmp_path / "many", tmp_path / "few", tmp_path / "one"
    assert main(["score", str(run), str(folder / "test"), "--out", str(many)]) == 0
    assert main(["score", str(run), str(folder / "test"), "--out", str(few), "--batch-size", "3"]) == 0
    assert main(["score", str(run), str(image), "--out", str(one)]) == 0
    expected = next(record for record in read_lines(many / "samples.jsonl") if record["name"] == "bad/002.png")
    for out, stem in ((few, few / "bad" / "002"), (one, one / "002")):
        record = next(record for record in read_lines(out / "samples.jsonl") if record["name"].endswith("002.png"))
        assert [record[k] for k in ("elbo", "kl", "nll")] == pytest.approx(
            [expected[k] for k in ("elbo", "kl", "nll")], rel=1e-5
        )
        for name in ("rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi"):
            wanted = np.load(many / "bad" / f"002_{name}.npy")
            np.testing.assert_allclose(np.load(f"{stem}_{name}.npy"), wanted, rtol=1e-5, atol=1e-6 * wanted.max())


def test_one_image_some_maps_tiff_and_a_threshold(run: Path, folder: Path, capsys) -> None:
    image = folder / "test" / "bad" / "000.png"
    flags = ["--maps", "rec_error", "combi_sum", "--format", "tiff", "--threshold", "0.5"]
    assert main(["score", str(run), str(image), *flags]) == 0
    out = run / "scores" / "000"
    assert capsys.readouterr().out.startswith(f"{out}: 1 image scored (rec_error, combi_sum)")
    names = sorted(path.name for path in out.iterdir())
    maps = ["000_combi_sum.tiff", "000_mask.png", "000_overlay.png", "000_rec_error.tiff"]
    assert names == [*maps, "images.json", "samples.jsonl"]
    error = tifffile.imread(out / "000_rec_error.tiff")
    assert error.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(Image.open(out / "000_mask.png")) == 255, error >= 0.5)
    assert json.loads((out / "samples.jsonl").read_text())["name"] == "000.png"


def test_before_it_is_evaluated_a_run_has_the_threshold_of_its_validation(run: Path, folder: Path) -> None:
    score = ["score", str(run), str(folder / "test" / "bad"), "--maps", "combi"]
    assert main([*score, "--out", str(run / "after")]) == 0
    (run / "evaluation.json").unlink()
    (run / "thresholds.json").unlink()
    for _ in range(2):
        assert main([*score, "--out", str(run / "before")]) == 0
        (run / "thresholds.json").write_text("{damaged")
    assert main([*score, "--out", str(run / "before")]) == 0
    masks = sorted((run / "after").glob("*_mask.png"))
    assert [path.read_bytes() for path in masks] == [(run / "before" / path.name).read_bytes() for path in masks]
    assert len(masks) == 4


def test_without_the_images_it_learnt_from_a_run_has_no_masks(run: Path, folder: Path, tmp_path: Path, capsys) -> None:
    (run / "thresholds.json").unlink()
    config = json.loads((run / "config.json").read_text())
    config["data"]["data"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(config))
    assert main(["score", str(run), str(folder / "test" / "bad")]) == 0
    assert f"no threshold, and so no masks: {tmp_path / 'gone'}: no such folder" in capsys.readouterr().out
    assert len(list((run / "scores" / "bad").glob("*_overlay.png"))) == 4
    assert not list((run / "scores" / "bad").glob("*_mask.png"))


def test_without_a_folder_the_test_images_are_scored(run: Path, evaluated: Path) -> None:
    shutil.rmtree(run / "scores")
    assert main(["score", str(run), "--maps", "combi"]) == 0
    names = sorted(path.name for path in (run / "scores").iterdir())
    assert names == ["combi.npy", "reconstructions.npy", "samples.jsonl"]
    for name in ("combi.npy", "reconstructions.npy"):
        wanted = np.load(evaluated / "scores" / name)
        np.testing.assert_allclose(np.load(run / "scores" / name), wanted, rtol=1e-4, atol=1e-6 * wanted.max())


def test_preparation_is_done_again(folder: Path, tmp_path: Path) -> None:
    """A run on 16 x 16 takes images of 32 x 32, and a prepared image scores like its original."""
    run, prepared = tmp_path / "run", tmp_path / "prepared.npy"
    flags = ["--size", "16", "--normalise", "zscore", "--model", "dense", "--hidden-size", "8", "--epochs", "1"]
    assert main(["train", str(run), "--data", str(folder), *flags]) == 0
    image = folder / "test" / "bad" / "001.png"
    assert main(["score", str(run), str(image)]) == 0
    pixels = np.asarray(Image.open(image), np.float64).reshape(16, 2, 16, 2).mean(axis=(1, 3)) / 255
    pixels = (pixels - pixels.mean()) / pixels.std()
    np.save(prepared, pixels.astype(np.float32))
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"size": None, "normalise": "none"}
    (run / "config.json").write_text(json.dumps(config))
    assert main(["score", str(run), str(prepared)]) == 0
    expected = np.load(run / "scores" / "001" / "001_combi.npy")
    found = np.load(run / "scores" / "prepared" / "prepared_combi.npy")
    np.testing.assert_allclose(on_grid(found[..., None], (32, 32))[..., 0], expected, rtol=1e-3, atol=1e-4)


# Bad images


def without_images(folder: Path) -> str:
    for path in (folder / "train" / "good").iterdir():
        path.unlink()
    return r"no image to train on"


def of_mixed_sizes(folder: Path) -> str:
    write_png(folder / "train" / "good" / "001.png", np.zeros((24, 40), np.uint8))
    return r"train/good/001.png: 40x24 pixels, but .*000.png has 32x32 pixels; pass --size N"


def of_mixed_channels(folder: Path) -> str:
    write_png(folder / "test" / "good" / "001.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    return r"test/good/001.png: 3 channels, but .*000.png has 1; pass --channels"


def with_a_mask_of_another_size(folder: Path) -> str:
    write_png(folder / "ground_truth" / "bad" / "001_mask.png", np.zeros((16, 16), np.uint8))
    return r"ground_truth/bad/001_mask.png: 16x16 pixels, but its image .*test/bad/001.png has 32x32"


def without_a_mask(folder: Path) -> str:
    (folder / "ground_truth" / "bad" / "001_mask.png").unlink()
    return r"test/bad/001.png: its mask .*001_mask.\* is missing"


def cut_short(folder: Path) -> str:
    path = folder / "train" / "good" / "002.png"
    path.write_bytes(path.read_bytes()[:150])
    return r"train/good/002.png: cannot be read, damaged or cut short\?"


def empty(folder: Path) -> str:
    (folder / "train" / "good" / "002.png").write_bytes(b"")
    return r"train/good/002.png: is empty"


def with_nan(folder: Path) -> str:
    for path in folder.rglob("*.png"):
        if path.parts[-3] != "ground_truth":
            image = np.asarray(Image.open(path), np.float32) / 255
            image[3, 4] = np.nan if path.stem == "001" else image[3, 4]
            np.save(path.with_suffix(".npy"), image)
            path.unlink()
    return r"train/good/001.npy: 1 of its values are NaN"


def of_no_multiple(folder: Path) -> str:
    for path in folder.rglob("*.png"):
        write_png(path, np.asarray(Image.open(path))[:30])
    return (
        "--features 4 8: 2 halvings need sides that 4 divides, and the images are 30 high and 32 wide; "
        "add --size 32, or give at most 1"
    )


def of_one_image(folder: Path) -> str:
    for path in sorted((folder / "train" / "good").iterdir())[1:]:
        path.unlink()
    return r"--validation 0.1: .* has too few images or cases to set so many aside; pass 0"


DAMAGES = [
    without_images,
    of_mixed_sizes,
    of_mixed_channels,
    with_a_mask_of_another_size,
    without_a_mask,
    cut_short,
    empty,
    with_nan,
    of_no_multiple,
    of_one_image,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_bad_folder_is_refused_and_no_run_is_left(refused, tmp_path: Path, damage: Callable[[Path], str]) -> None:
    message = damage(write_benchmark(tmp_path / "data", train=3, test=2, size=SIDE))
    line = refused("train", tmp_path / "run", "--data", tmp_path / "data", *SMALL)
    assert re.search(message, line)
    assert not (tmp_path / "run").exists()
    assert leftovers(tmp_path) == []


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: shutil.rmtree(d), "fashion: no such directory; .*jaxvae prepare fashion_mnist:"),
        (lambda d: (d / "t10k-labels-idx1-ubyte.gz").unlink(), "fashion: no t10k-labels-idx1-ubyte.gz there"),
        (lambda d: (d / "train-images-idx3-ubyte.gz").write_bytes(b""), "train-images-idx3-ubyte.gz: is empty"),
        (
            lambda d: os.truncate(d / "train-images-idx3-ubyte.gz", 60),
            "train-images-idx3-ubyte.gz: cannot be read .*get it anew",
        ),
        (
            lambda d: (d / "train-images-idx3-ubyte.gz").write_bytes(bytes([0, 0, 8, 3, *[0, 0, 0, 9] * 3, 7, 7])),
            "train-images-idx3-ubyte.gz: 2 bytes of data where its header .* asks for 729; truncated",
        ),
        (lambda d: None, r"train-images-idx3-ubyte.gz: not the official file \(its SHA-256 differs\)"),
    ],
    ids=["no folder", "a file missing", "empty", "gzip cut short", "cut short", "another checksum"],
)
def test_bad_idx_files_are_refused_and_no_run_is_left(refused, tmp_path: Path, damage, message: str) -> None:
    data = tmp_path / "fashion"
    data.mkdir()
    for part in ("train", "t10k"):
        write_idx(data / f"{part}-images-idx3-ubyte.gz", healthy(4, size=28))
        write_idx(data / f"{part}-labels-idx1-ubyte.gz", np.arange(4, dtype=np.uint8))
    damage(data)
    line = refused("train", tmp_path / "run", "--data", f"fashion_mnist:{data}", "--hold-out", "2")
    assert re.search(message, line)
    assert not (tmp_path / "run").exists()


def test_what_is_there_is_not_fetched_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in FASHION_MNIST_FILES:
        (tmp_path / name).touch()
    assert main(["prepare", f"fashion_mnist:{tmp_path}"]) == 0
    expected = (
        f"{tmp_path}: FashionMNIST is there; next: `jaxvae train RUN --data fashion_mnist:{tmp_path} --hold-out 8`"
    )
    assert capsys.readouterr().out.strip() == expected


# Bad runs


def test_a_data_set_that_is_misspelled_is_guessed(refused, tmp_path: Path) -> None:
    for typed, meant in {"fashion_mnsit:d": "fashion_mnist:d", "phantoms": "phantom"}.items():
        line = refused("train", tmp_path / "run", "--data", typed)
        assert line == f"jaxvae: {typed}: no such folder; did you mean {meant}?"


def test_the_home_folder_is_written_as_a_tilde(refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for typed in (["--data=~/none"], ["--data", "~/none"], ["--data=fashion_mnist:~/none", "--hold-out=1"]):
        assert refused("train", "run", *typed).startswith(f"jaxvae: {tmp_path}/none: no such")
    for command in ("evaluate", "report", "score"):
        assert refused(command, "~/none").startswith(f"jaxvae: {tmp_path}/none: no such folder")
    assert f"{tmp_path}/none: no such" in refused("prepare", "~/none", "--out=~/out")
    # Names that only begin or end with it are names of files.
    assert refused("evaluate", "a~/b").startswith("jaxvae: a~/b: no such folder")
    assert list(tmp_path.iterdir()) == []


def test_a_run_below_a_folder_with_any_name_goes_on(run: Path, folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / "Project [2024]" / "a*b?" / "back\\slash"
    odd.parent.mkdir(parents=True)
    run.rename(odd)
    assert main(["train", str(odd), "--data", str(folder), *SMALL[:-1], "3"]) == 0
    assert checkpoint.latest_step(odd / "checkpoints" / "last") == 6
    assert main(["score", str(odd), "--out", str(odd / "scores"), "--maps", "rec_error"]) == 0
    assert main(["evaluate", str(odd), "--resamples", "0"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["Project [2024]"]


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


def test_a_place_that_is_taken_is_left_alone(refused, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "main.tex").write_text("mine")
    for name in ("file", "thesis"):
        line = refused("train", tmp_path / name, "--data", folder, *SMALL)
        assert line.endswith(f"{name}: is there already and is no run (no config.json); name a new folder")
        assert "is no run" in refused("evaluate", tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["main.tex"]
    line = refused("train", tmp_path / "file" / "run", "--data", folder, *SMALL)
    assert "file/run/config.json: cannot be written" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_place_that_is_read_only_is_named(refused, run: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    assert "closed/run/config.json: cannot be written" in refused(
        "train", tmp_path / "closed" / "run", "--data", folder, *SMALL
    )
    assert "cannot be written" in refused("score", run, folder / "test", "--out", tmp_path / "closed" / "out")


def test_another_configuration_is_refused_by_the_value(refused, run: Path, folder: Path) -> None:
    before = (run / "config.json").read_bytes()
    line = refused("train", run, "--data", folder, *SMALL, "--beta", 2)
    assert "run: was made with hparams.beta 1.0 and now it is 2.0; repeat" in line
    assert "data.split_seed 0 and now it is 1" in refused("train", run, "--data", folder, *SMALL, "--split-seed", 1)
    assert "--epochs 1: " in refused("train", run, "--data", folder, *SMALL, "--epochs", 1)
    assert (run / "config.json").read_bytes() == before


def test_a_run_without_its_checkpoint_is_named(refused, run: Path, folder: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    for arguments in (["evaluate", run], ["score", run, folder / "test"], ["report", run]):
        assert refused(*arguments).endswith("run: has no checkpoint yet; train it with the command that began it")


def test_a_checkpoint_of_another_model_is_named(refused, run: Path, folder: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["model"]["latent_size"] = 7
    (run / "config.json").write_text(json.dumps(config))
    for arguments in (["evaluate", run], ["score", run, folder / "test"]):
        assert re.search("last/4: a checkpoint of another model, it has .* is wanted", refused(*arguments))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"data": {"data": "x"}}'])
def test_a_damaged_config_is_named(refused, run: Path, folder: Path, content: str) -> None:
    (run / "config.json").write_text(content)
    for arguments in (
        ["evaluate", run],
        ["score", run],
        ["report", run],
        ["train", run, "--data", folder, *SMALL],
    ):
        assert re.search(r"run/config.json: (not JSON|lacks )", refused(*arguments))


@pytest.mark.parametrize("change", [{"channels": "missing"}, {"colour": True}])
def test_a_config_of_another_version_is_named(refused, run: Path, change: dict) -> None:
    config = json.loads((run / "config.json").read_text())
    config["data"] |= change
    if change.get("channels"):
        del config["data"]["channels"]
    (run / "config.json").write_text(json.dumps(config))
    for command in ("evaluate", "score", "report"):
        assert "config.json: its data are not as this version writes them" in refused(command, run)


def test_commands_before_their_time_name_the_one_to_run(refused, folder: Path, run: Path) -> None:
    (run / "evaluation.json").unlink()
    assert refused("report", run).endswith(f"run: not evaluated yet; run `jaxvae evaluate {run}` first")
    shutil.rmtree(run / "checkpoints")
    assert "run: has no checkpoint yet" in refused("evaluate", run)


def test_an_evaluation_of_former_weights_is_not_drawn(refused, run: Path, folder: Path) -> None:
    assert main(["train", str(run), "--data", str(folder), *SMALL, "--epochs", "3"]) == 0
    assert re.search("run: evaluated at step 4 and is at step 6 now; run `jaxvae evaluate", refused("report", run))
    # The threshold of the masks is measured anew.
    assert main(["score", str(run), str(folder / "test"), "--maps", "combi"]) == 0
    assert json.loads((run / "thresholds.json").read_text())["step"] == 6


def test_data_that_changed_are_noticed(refused, run: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "data")
    config = json.loads((run / "config.json").read_text())
    config["data"]["data"] = str(tmp_path / "data")
    (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "data" / "test" / "good" / "003.png").unlink()
    assert "data: test images or masks have changed since they were evaluated; run `jaxvae evaluate" in refused(
        "report", run
    )
    shutil.rmtree(tmp_path / "data")
    assert "data: no such folder" in refused("evaluate", run)


def test_a_run_that_is_being_trained_is_left_to_it(refused, run: Path, folder: Path) -> None:
    with files.locked(run):
        assert "run: another process is at work there" in refused("train", run, "--data", folder, *SMALL, "--epochs", 3)
    assert main(["train", str(run), "--data", str(folder), *SMALL, "--epochs", "3"]) == 0


def test_a_run_of_a_sweep_whose_scores_are_no_numbers_has_diverged_alone(
    monkeypatch, tmp_path: Path, folder: Path
) -> None:
    score_many = program.score_many

    def with_infinity(*arguments: Any, **knobs: Any) -> Any:
        return jax.tree.map(lambda values: values.at[1].set(np.inf), score_many(*arguments, **knobs))

    monkeypatch.setattr(program, "score_many", with_infinity)
    small = ["--features", "4", "8", "--latent-size", "4", "--batch-size", "4", "--epochs", "1"]
    assert main(["sweep", str(tmp_path / "sweep"), "--data", str(folder), *small]) == 0
    rows = read_lines(tmp_path / "sweep" / "table.jsonl")
    assert [row["diverged"] for row in rows] == [False, True, False]
    assert ["image_auroc/elbo" in row for row in rows] == [True, False, True]


def test_who_was_learnt_from_is_never_judged(refused, tmp_path: Path) -> None:
    """Cases are split anew by whoever opens them, so one more case would move others across."""
    data, run = tmp_path / "data", tmp_path / "run"

    def add_case(number: int) -> None:
        images = healthy(4, seed=number)
        sick, masks = with_squares(images[2:], seed=number)
        for i, image in enumerate([*images[:2], *sick]):
            write_png(data / f"case{number}" / f"{i}.png", image)
            write_png(data / f"case{number}" / f"{i}_mask.png", masks[i - 2] if i > 1 else np.zeros_like(image))

    for number in range(6):
        add_case(number)
    train = ["train", str(run), "--data", str(data), *SMALL]
    assert main(train) == 0
    assert main(["evaluate", str(run), "--resamples", "0"]) == 0
    add_case(6)
    for command in (["evaluate", run], ["report", run], ["score", run]):
        assert "data: holds other images than when the run was trained" in refused(*command)
    assert "run: was made from other images than there are now in" in refused(*train)
    assert "data.split_seed 0 and now it is 1" in refused(*train, "--split-seed", 1)
    shutil.rmtree(data / "case6")
    assert main(train) == main(["report", str(run)]) == 0


def test_a_sweep_goes_on_with_the_images_it_began_with(refused, tmp_path: Path, folder: Path) -> None:
    data = shutil.copytree(folder, tmp_path / "data")
    command = ["sweep", tmp_path / "sweep", "--data", data, "--seed", "0", *SMALL[:3], *SMALL[5:]]
    assert main(list(map(str, command))) == 0
    (data / "train" / "good" / "000.png").unlink()
    assert "sweep: holds another sweep, made with images" in refused(*command)


def test_a_flat_folder_has_nothing_to_evaluate(refused, tmp_path: Path, folder: Path, capsys) -> None:
    run = tmp_path / "run"
    assert main(["train", str(run), "--data", str(folder / "train" / "good"), *SMALL]) == 0
    assert capsys.readouterr().out.endswith(f"look for anomalies with `jaxvae score {run} FOLDER`\n")
    assert "run: its data have no test images; name others that have labels" in refused("evaluate", run)
    assert "run: its data have no test images; name a folder" in refused("score", run)
    assert main(["score", str(run), str(folder / "test")]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning-rate", "1e30"], r"at step 2; .*--learning-rate"),
        (["--log-scale", "-60"], r"at step 1, before anything was learnt; .*--log-scale"),
    ],
)
def test_a_loss_that_is_no_number_is_told_by_its_step(tmp_path: Path, folder: Path, capsys, flags, message) -> None:
    assert main(["train", str(tmp_path / "run"), "--data", str(folder), *SMALL, *flags]) == 2
    out, err = capsys.readouterr()
    assert re.fullmatch(rf"jaxvae: .*run: \w+ became (nan|inf) {message}.*\n", err)
    assert "11 healthy images" in out
    assert "only 4 steps: expect an undertrained model. --epochs 500 gives 1000 steps" in out


# Bad images to score


def test_images_that_do_not_fit_are_refused_and_nothing_is_written(refused, run: Path, tmp_path: Path) -> None:
    before = sorted(run.rglob("*"))
    write_png(tmp_path / "small" / "a.png", np.zeros((16, 16), np.uint8))
    write_png(tmp_path / "colour" / "a.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    write_png(tmp_path / "twins" / "a.png", np.zeros((SIDE, SIDE), np.uint8))
    np.save(tmp_path / "twins" / "a.npy", np.zeros((SIDE, SIDE), np.float32))
    (tmp_path / "none").mkdir()
    write_png(tmp_path / "damaged" / "a.png", np.zeros((SIDE, SIDE), np.uint8)).write_bytes(b"\x89PNG\r\n")
    for name, message in {
        "small": "small/a.png: the images are 16x16 with 1 channel once prepared, and the run was trained on 32x32",
        "colour": "colour/a.png: the images are 32x32 with 3 channels once prepared",
        "twins": "a.png: its maps would have the same names as those of a.npy; rename one",
        "none": "none: no PNG, JPEG, BMP, WebP, TIFF or npy image in it",
        "damaged": "damaged/a.png: cannot be read",
        "nowhere": "nowhere: no such folder",
    }.items():
        assert re.search(message, refused("score", run, tmp_path / name))
    assert sorted(run.rglob("*")) == before


def test_results_are_not_written_among_the_images(refused, run: Path, folder: Path, tmp_path: Path) -> None:
    data = shutil.copytree(folder / "test", tmp_path / "data")
    assert "out: lies within" in refused("score", run, data, "--out", tmp_path / "data" / "out")
    assert "lies within" in refused("score", run, run)
    assert f"--out {run}: is the run itself" in refused("score", run, data, "--out", run)
    (tmp_path / "file").touch()
    assert re.search("file.*: cannot be written", refused("score", run, folder / "test", "--out", tmp_path / "file"))


@pytest.mark.slow
def test_fashion_mnist_from_files_to_report(data: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    flags = f"--data fashion_mnist:{data / 'fashion-mnist'} --hold-out 8 --epochs 1 --validation 0.01".split()
    assert main(["train", str(run), *flags]) == 0
    assert main(["evaluate", str(run), "--resamples", "0"]) == 0
    assert main(["report", str(run)]) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["images"] == {"test": 10000, "anomalous": 1000, "groups": 10000}
    assert {row["score"] for row in evaluation["samples"]} == {*BASELINES, "elbo", "kl", "nll"}
    assert (run / "report" / "index.html").exists()
    assert "Images: 1000 of 10000 anomalous" in capsys.readouterr().out


def test_images_need_not_be_square(tmp_path: Path, folder: Path, refused) -> None:
    run = tmp_path / "run"
    train = ["train", str(run), "--data", str(folder), *SMALL, "--size", "16", "24"]
    assert main(train) == main(train) == main(["evaluate", str(run), "--resamples", "0"]) == 0
    assert json.loads((run / "config.json").read_text())["model"]["image_shape"] == [16, 24, 1]
    assert np.load(run / "scores" / "combi.npy").shape == (8, 16, 24, 1)
    assert main(["score", str(run), str(folder / "test" / "bad"), "--maps", "combi"]) == 0
    assert np.load(run / "scores" / "bad" / "000_combi.npy").shape == (SIDE, SIDE)
    for flags, message in {
        "--size 1 2 3": "--size 1 2 3: give one number, or height and width",
        "--size": "--size without a number: give one number, or height and width",
        "--size 16 44 --features 4 8 8": "and the images are 16 high and 44 wide; add --size 16 48",
    }.items():
        assert message in refused("train", tmp_path / "other", "--data", folder, *flags.split())
    assert "--size 64 32: phantoms are as wide as high" in refused("train", tmp_path / "other", "--size", "64", "32")


def test_a_sweep_from_flags_to_figures_and_what_was_lost_is_made_again(tmp_path: Path, folder: Path, capsys) -> None:
    sweep = tmp_path / "sweep"
    axes = ["--seed", "0", "1", "--beta", "0.5", "2", "--latent-size", "2", "4", "--together", "4"]
    shape = ["--data", str(folder), "--features", "4", "8", "--batch-size", "4", "--epochs", "1"]
    command = ["sweep", str(sweep), *shape, "--log-scale", "-0.7"]
    assert main([*command, *axes]) == 0
    out = capsys.readouterr().out
    assert f"{sweep}: 8 runs in 2 programs; 1 MB at once\n" in out
    assert "pixel_average_precision/elbo_grad over the seeds, best first" in out
    (best,) = re.findall(r"the best as a run of its own: jaxvae train RUN (.*)", out)
    tables = {name: (sweep / name).read_bytes() for name in ("table.jsonl", "table.csv")}
    rows = [json.loads(line) for line in tables["table.jsonl"].splitlines()]
    assert [(row["seed"], row["beta"], row["latent_size"]) for row in rows] == [
        (seed, beta, size) for seed in (0, 1) for beta in (0.5, 2.0) for size in (2, 4)
    ]
    assert not any(row["diverged"] for row in rows)
    means = {
        (row["beta"], row["latent_size"]): row["pixel_average_precision/elbo_grad"] / 2
        + rows[i + 4]["pixel_average_precision/elbo_grad"] / 2
        for i, row in enumerate(rows[:4])
    }
    beta, size = max(means, key=means.__getitem__)
    for flag in (f"--data {folder}", f"--latent-size {size}", f"--beta {beta}"):
        assert flag in best
    assert {path.name for path in sweep.glob("*.png")} == {
        "bars_beta.png",
        "bars_latent_size.png",
        "heat_beta_latent_size.png",
    }
    # A row is what `train` and `evaluate` give for its settings.
    run = tmp_path / "run"
    settings = ["--seed", "1", "--beta", "2", "--latent-size", "4", *command[2:]]
    assert main(["train", str(run), *settings]) == 0
    assert main(["evaluate", str(run), "--resamples", "0"]) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    for row in evaluation["samples"]:
        if row["score"] in ("elbo", "kl", "nll"):
            assert rows[-1][f"image_auroc/{row['score']}"] == pytest.approx(row["auroc"], abs=1e-3)
    for row in evaluation["pixels"]:
        if row["score"] in ("elbo_grad", "combi_nll"):  # These two depend on log_scale.
            got = rows[-1][f"pixel_average_precision/{row['score']}"]
            assert got == pytest.approx(row["average_precision"], rel=1e-3)
    # A killed sweep lacks parts; it makes them again, and nothing else.
    (sweep / "parts" / "0001.jsonl").unlink()
    (sweep / "table.jsonl").unlink()
    kept = (sweep / "parts" / "0000.jsonl").stat().st_mtime_ns
    assert main([*command, *axes]) == 0
    assert re.search(r"8 runs in 2 programs, 4 of them done; 1 MB at once, about \d\.\d min", capsys.readouterr().out)
    assert (sweep / "parts" / "0000.jsonl").stat().st_mtime_ns == kept
    assert {name: (sweep / name).read_bytes() for name in tables} == tables


@pytest.mark.slow
def test_a_sweep_over_shapes_is_a_program_each(tmp_path: Path, folder: Path) -> None:
    sweep, run = tmp_path / "sweep", tmp_path / "run"
    common = ["--data", str(folder), "--batch-size", "4", "--epochs", "2", "--latent-size", "2", "--augment", "paper"]
    common += ["--schedule", "cosine", "--warmup-epochs", "0.5", "--clip-norm", "50", "--learning-rate", "1e-2"]
    axes = ["--image-size", "8", "16", "--width", "1", "0.5", "--features", "4", "8", "--seed", "0"]
    assert main(["sweep", str(sweep), *common, *axes]) == 0
    rows = read_lines(sweep / "table.jsonl")
    assert [(row["image_size"], row["width"]) for row in rows] == [(8, 1), (8, 0.5), (16, 1), (16, 0.5)]
    assert (sweep / "heat_image_size_width.png").exists()
    # The last row is what `train` and `evaluate` give for that size and so many channels.
    assert main(["train", str(run), *common, "--size", "16", "--features", "2", "4"]) == 0
    assert main(["evaluate", str(run), "--resamples", "0"]) == 0
    for row in json.loads((run / "evaluation.json").read_text())["samples"]:
        if row["score"] in ("elbo", "kl", "nll"):
            assert rows[-1][f"image_auroc/{row['score']}"] == pytest.approx(row["auroc"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("together", ["1", "2", "3"])
def test_latents_of_all_sizes_however_many_go_together(tmp_path: Path, folder: Path, together: str) -> None:
    sweep = tmp_path / "sweep"
    axes = ["--latent-size", "4", "2", "--seed", "0", "1", "--together", together]
    shape = ["--features", "4", "8", "--batch-size", "4", "--epochs", "1"]
    assert main(["sweep", str(sweep), "--data", str(folder), *axes, *shape]) == 0
    rows = read_lines(sweep / "table.jsonl")
    assert [(row["seed"], row["latent_size"]) for row in rows] == [(0, 4), (0, 2), (1, 4), (1, 2)]
    assert not any(row["diverged"] for row in rows)


def test_a_sweep_without_a_test_is_ranked_by_its_validation(tmp_path: Path, capsys) -> None:
    plain, sweep = tmp_path / "plain", tmp_path / "sweep"
    for i in range(12):
        write_png(plain / f"{i}.png", np.full((SIDE, SIDE), 20 * i, np.uint8))
    axes = ["--learning-rate", "1e-5", "1e-2", "--seed", "0", "1", "--beta", "3"]
    shape = ["--features", "4", "8", "--batch-size", "4", "--epochs", "2", "--latent-size", "2"]
    assert main(["sweep", str(sweep), "--data", str(plain), "--validation", "0.3", *axes, *shape]) == 0
    printed = capsys.readouterr().out
    assert "validation_elbo over the seeds, best first" in printed
    rows = read_lines(sweep / "table.jsonl")
    means = {
        rate: np.mean([row["validation_elbo"] for row in rows if row["learning_rate"] == rate]) for rate in (1e-5, 1e-2)
    }
    best = max(means, key=means.__getitem__)
    assert float(printed.partition("best first")[2].splitlines()[3].split()[0].strip("*")) == best
    assert not any(name.startswith(("image_", "pixel_")) for row in rows for name in row)
    # It is the ELBO itself, whatever beta a run was trained with.
    run, single = tmp_path / "run", ["--learning-rate", "1e-2", "--seed", "1", "--beta", "3"]
    assert main(["train", str(run), "--data", str(plain), "--validation", "0.3", *single, *shape]) == 0
    opened = checkpoint.load(run)
    samples = jaxvae.sample_scores(opened.model, opened.params, open_own(run, opened.config).validation.images)
    assert rows[-1]["validation_elbo"] == pytest.approx(-float(samples.elbo.mean()), rel=1e-4)


def test_a_sweep_of_colour_images_judges_their_pixels(tmp_path: Path) -> None:
    folder, sweep = tmp_path / "colour", tmp_path / "sweep"
    rng = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE, 1), np.uint8)
    mask[4:8, 4:8] = 255
    for i in range(8):
        image = rng.integers(0, 200, (SIDE, SIDE, 3), np.uint8)
        write_png(folder / "train" / "good" / f"{i}.png", image)
        write_png(folder / "test" / ("bad" if i % 2 else "good") / f"{i}.png", np.maximum(image, mask))
        if i % 2:
            write_png(folder / "ground_truth" / "bad" / f"{i}_mask.png", mask[..., 0])
    shape = ["--features", "4", "8", "--batch-size", "4", "--epochs", "1", "--latent-size", "2", "--seed", "0"]
    assert main(["sweep", str(sweep), "--data", str(folder), *shape]) == 0
    [row] = read_lines(sweep / "table.jsonl")
    assert 0 <= row["pixel_auroc/combi"] <= 1


@pytest.mark.parametrize(("share", "way_out"), [(0.5, r"give --together [23]$"), (0.01, "make the model smaller$")])
def test_a_sweep_that_does_not_fit_says_what_would(share, way_out, folder, tmp_path, refused, monkeypatch) -> None:
    model = jaxvae.ConvVAE((SIDE, SIDE, 1), 64, (4, 8))
    images = 12 * SIDE * SIDE * 4
    needed = capacity.population_bytes(model, 6, together=1, batch_size=12, judged=8, image_bytes=images)
    monkeypatch.setattr(capacity, "free_bytes", lambda: int(share * needed))
    command = ["sweep", str(tmp_path / "sweep"), "--data", str(folder), "--features", "4", "8", "--latent-size", "64"]
    assert re.search(way_out, refused(*command, "--seed", *range(6)))
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--seed"], "--seed without a value: give at least one"),
        (["--beta", "-1"], "--beta -1.0: give a number of at least 0"),
        (["--seed", "4294967296"], "--seed 4294967296: give a whole number below 2^32"),
        (["--latent-size", "0"], "--latent-size 0: must be above 0"),
        (["--learnig-rate", "1"], "--learnig-rate: no such flag; did you mean --learning-rate?"),
        (["--held-out-class", "3"], "--held-out-class: only goes with --data fashion_mnist:DIR"),
        (["--epochs", "0"], "--epochs 0: must be above 0"),
        (["--beta", "1", "1"], "--beta: 1.0 1.0 holds a value twice; give each once"),
        (["--held-out-class", "11", "--data", "fashion_mnist:x"], "--held-out-class 11: must lie in 0..9"),
        (["--input-scaling", "2"], "--input-scaling: only goes with --data fashion_mnist:DIR"),
        (["--image-size", "32", "--data", "fashion_mnist:x"], "--image-size: FashionMNIST is 28x28"),
        (["--image-size", "8", "--size", "16"], "--size and --image-size say the same; leave one out"),
        (["--image-size", "8", "6"], "--features 4 8: 2 halvings need sides that 4 divides"),
        (["--width", "0"], "--width 0.0: must be above 0"),
        (["--width", "1", "1"], "--width: 1.0 1.0 holds a value twice; give each once"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_is_written(flags, complaint, folder, tmp_path, refused):
    command = ["sweep", str(tmp_path / "sweep"), "--data", str(folder), "--features", "4", "8"]
    assert complaint in refused(*command, *flags)
    assert not (tmp_path / "sweep").exists()
