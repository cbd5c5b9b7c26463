"""`jaxvae train`: the run folder it writes, and one line for each bad image, folder or value."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import jaxvae
from folders import healthy, write_benchmark, write_png
from jaxvae import files
from jaxvae.cli import main
from jaxvae.runs import checkpoint
from small_runs import SIDE, SMALL, leftovers, read_lines


def test_train_writes_the_config_and_all_files(evaluated: Path) -> None:
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
        "dropout": 0.0,
        "decoder_scale": "fixed",
    }
    assert len(config["images"].pop("image_names")) == 64
    assert len(config["images"].pop("contents")) == 3
    assert config["images"] == {"shape": [SIDE, SIDE, 1], "train": 11, "validation": 1, "test": 8}
    assert config["augment"] == "none"
    assert len(read_lines(evaluated / "metrics.jsonl")) == config["epochs"] == 2
    assert leftovers(evaluated) == []


def test_a_run_keeps_its_augmentation(tmp_path: Path, folder: Path, refused) -> None:
    command = ["train", tmp_path / "run", "--data", folder, *SMALL, "--epochs", "1"]
    assert main([*map(str, command), "--augment", "paper"]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["augment"] == "paper"
    assert 'run: was made with augment "paper", now "none"' in refused(*command)


def test_a_config_repeats_its_run(evaluated: Path, tmp_path: Path, refused, capsys) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    assert main(["train", str(again), "--config", str(evaluated / "config.json")]) == 0
    assert json.loads((again / "config.json").read_text()) == json.loads((evaluated / "config.json").read_text())
    one, two = jaxvae.load(again), jaxvae.load(evaluated)
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    assert main(["train", str(other), f"--config={evaluated}", "--steps", "3", "--model", "dense", "--beta", "2"]) == 0
    assert "3 steps" in capsys.readouterr().out
    assert jaxvae.load(other).config["train"]["batch_size"] == 4
    same, model = tmp_path / "same", json.loads((evaluated / "config.json").read_text())["model"]
    assert main(["train", str(same), f"--config={evaluated}", "--steps", "3", "--model", "conv"]) == 0
    assert jaxvae.load(same).config["model"] == model
    config = json.loads((other / "config.json").read_text())
    assert (config["model"]["name"], config["epochs"], config["steps"]) == ("DenseVAE", None, 3)
    assert (config["hparams"]["beta"], config["train"]["batch_size"]) == (2, 4)
    phantoms = ["--config", str(evaluated), "--data", "phantom", "--size", "16", "--epochs", "1"]
    assert main(["train", str(tmp_path / "phantoms"), *phantoms, "--features", "4"]) == 0
    assert "RUN is missing" in refused("train", "--config", evaluated)
    assert "nowhere: no such folder" in refused("train", other, "--config", tmp_path / "nowhere")
    assert "--steps 3: --epochs 4 is given too" in refused("train", other, "--steps", "3", "--epochs", "4")


def test_python_trains_what_the_command_trains(evaluated: Path, folder: Path, tmp_path: Path) -> None:
    settings = jaxvae.Settings(features=(4, 8), latent_size=4, batch_size=4, epochs=2)
    lines: list[str] = []
    ending = jaxvae.train_run(tmp_path / "run", jaxvae.Source(str(folder)), settings, say=lines.append)
    assert ending.finished
    assert "give `steps` 1000 or more" in lines[1]
    for name in ("config.json", "trained_on.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (evaluated / name).read_bytes()
    jax.tree.map(np.testing.assert_array_equal, jaxvae.load(tmp_path / "run").params, jaxvae.load(evaluated).params)


def no_images(folder: Path) -> str:
    for path in (folder / "train" / "good").iterdir():
        path.unlink()
    return r"no image to train on"


def mixed_sizes(folder: Path) -> str:
    write_png(folder / "train" / "good" / "001.png", np.zeros((24, 40), np.uint8))
    return r"train/good/001.png: 40x24 pixels, but .*000.png has 32x32 pixels; pass --size to resize"


def mixed_channels(folder: Path) -> str:
    write_png(folder / "test" / "good" / "001.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    return r"test/good/001.png: 3 channels, but .*000.png has 1; pass as --channels"


def mask_of_another_size(folder: Path) -> str:
    write_png(folder / "ground_truth" / "bad" / "001_mask.png", np.zeros((16, 16), np.uint8))
    return r"ground_truth/bad/001_mask.png: 16x16 pixels, but its image .*test/bad/001.png has 32x32"


def missing_mask(folder: Path) -> str:
    (folder / "ground_truth" / "bad" / "001_mask.png").unlink()
    return r"test/bad/001.png: its mask .*001_mask.\* is missing"


def truncated_file(folder: Path) -> str:
    path = folder / "train" / "good" / "002.png"
    path.write_bytes(path.read_bytes()[:150])
    return r"train/good/002.png: cannot be read \(.*; it may be damaged"


def empty_file(folder: Path) -> str:
    (folder / "train" / "good" / "002.png").write_bytes(b"")
    return r"train/good/002.png: is empty"


def nan_value(folder: Path) -> str:
    for path in folder.rglob("*.png"):
        if path.parts[-3] != "ground_truth":
            image = np.asarray(Image.open(path), np.float32) / 255
            image[3, 4] = np.nan if path.stem == "001" else image[3, 4]
            np.save(path.with_suffix(".npy"), image)
            path.unlink()
    return r"train/good/001.npy: 1 of its values are NaN"


def odd_height(folder: Path) -> str:
    for path in folder.rglob("*.png"):
        write_png(path, np.asarray(Image.open(path))[:30])
    return (
        "--features 4 8: 2 halvings need sides that 4 divides, and the images are 30 high and 32 wide; "
        "add --size 32, or give at most 1"
    )


def one_image(folder: Path) -> str:
    for path in sorted((folder / "train" / "good").iterdir())[1:]:
        path.unlink()
    return r"--validation 0.1: .* has too few images or cases for it; pass 0"


DAMAGES = [
    no_images,
    mixed_sizes,
    mixed_channels,
    mask_of_another_size,
    missing_mask,
    truncated_file,
    empty_file,
    nan_value,
    odd_height,
    one_image,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_bad_images_are_refused_and_nothing_is_written(refused, tmp_path: Path, damage: Callable[[Path], str]) -> None:
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
            "train-images-idx3-ubyte.gz: cannot be read .*get it again",
        ),
        (
            lambda d: (d / "train-images-idx3-ubyte.gz").write_bytes(bytes([0, 0, 8, 3, *[0, 0, 0, 9] * 3, 7, 7])),
            "train-images-idx3-ubyte.gz: 2 bytes of data where its header .* needs 729",
        ),
        (lambda d: None, r"train-images-idx3-ubyte.gz: not the official file \(its SHA-256 differs\)"),
    ],
    ids=["no folder", "a file missing", "empty", "gzip cut short", "cut short", "another checksum"],
)
def test_bad_idx_files_are_refused_and_nothing_is_written(refused, tmp_path: Path, damage, message: str) -> None:
    data = tmp_path / "fashion"
    data.mkdir()
    for part in ("train", "t10k"):
        write_idx(data / f"{part}-images-idx3-ubyte.gz", healthy(4, size=28))
        write_idx(data / f"{part}-labels-idx1-ubyte.gz", np.arange(4, dtype=np.uint8))
    damage(data)
    line = refused("train", tmp_path / "run", "--data", f"fashion_mnist:{data}", "--hold-out", "2")
    assert re.search(message, line)
    assert not (tmp_path / "run").exists()


def test_a_misspelled_data_set_gets_a_suggestion(refused, tmp_path: Path) -> None:
    for typed, meant in {"fashion_mnsit:d": "fashion_mnist:d", "phantoms": "phantom"}.items():
        line = refused("train", tmp_path / "run", "--data", typed)
        assert line == f"jaxvae: {typed}: no such folder; did you mean {meant}?"


def test_folders_may_have_any_name(run: Path, folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / "Project [2024]" / "a*b?" / "back\\slash"
    odd.parent.mkdir(parents=True)
    run.rename(odd)
    assert main(["train", str(odd), "--data", str(folder), *SMALL[:-1], "3"]) == 0
    assert checkpoint.latest_step(odd / "checkpoints" / "last") == 6
    assert main(["score", str(odd), "--out", str(odd / "scores"), "--maps", "rec_error"]) == 0
    assert main(["evaluate", str(odd), "--resamples", "0"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["Project [2024]"]


def test_a_folder_with_other_files_is_refused(refused, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "main.tex").write_text("mine")
    for name in ("file", "thesis"):
        line = refused("train", tmp_path / name, "--data", folder, *SMALL)
        assert line.endswith(f"{name}: exists and is not a run (no config.json in it); name a new folder")
        assert "is not a run" in refused("evaluate", tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["main.tex"]
    line = refused("train", tmp_path / "file" / "run", "--data", folder, *SMALL)
    assert "file/run/config.json: cannot be written" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_folder_is_named(refused, run: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    assert "closed/run/config.json: cannot be written" in refused(
        "train", tmp_path / "closed" / "run", "--data", folder, *SMALL
    )
    assert "cannot be written" in refused("score", run, folder / "test", "--out", tmp_path / "closed" / "out")


def test_another_configuration_is_refused_with_its_values(refused, run: Path, folder: Path) -> None:
    before = (run / "config.json").read_bytes()
    line = refused("train", run, "--data", folder, *SMALL, "--beta", 2)
    assert "run: was made with hparams.beta 1.0, now 2.0; use those settings again" in line
    assert "data.split_seed 0, now 1" in refused("train", run, "--data", folder, *SMALL, "--split-seed", 1)
    assert "--epochs 1: " in refused("train", run, "--data", folder, *SMALL, "--epochs", 1)
    assert (run / "config.json").read_bytes() == before


def test_two_processes_cannot_train_one_run(refused, run: Path, folder: Path) -> None:
    with files.locked(run):
        assert "run: another process is at work there" in refused("train", run, "--data", folder, *SMALL, "--epochs", 3)
    assert main(["train", str(run), "--data", str(folder), *SMALL, "--epochs", "3"]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning-rate", "1e30"], r"at step 2; .*--learning-rate"),
        (["--log-scale", "-60"], r"at step 1, before the first update; .*--log-scale"),
    ],
)
def test_a_nan_loss_is_reported_with_its_step(tmp_path: Path, folder: Path, capsys, flags, message) -> None:
    assert main(["train", str(tmp_path / "run"), "--data", str(folder), *SMALL, *flags]) == 2
    out, err = capsys.readouterr()
    assert re.fullmatch(rf"jaxvae: .*run: \w+ became (nan|inf) {message}.*\n", err)
    assert "11 healthy images" in out
    assert "only 4 steps: expect an undertrained model; give --steps 1000 or more" in out


def test_images_may_be_rectangular(tmp_path: Path, folder: Path, refused) -> None:
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
