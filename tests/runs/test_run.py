"""The folder of a run: claimed once, opened alone, and left alone if it is something else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae import ConvVAE, DenseVAE, InputError, files
from jaxvae.runs import checkpoint
from jaxvae.runs.config import model_to_config, read_config
from jaxvae.runs.run import chosen, claim, load
from states import assert_equal_states, at_step

# Orbax leaves tasks behind that report the same damage again.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

DENSE, CONV = DenseVAE((8, 8, 1), 2, 8), ConvVAE((8, 8, 1), 2, (4, 8))
CONFIG = {
    "jaxvae": "0",
    "data": {"data": "healthy blobs"},
    "images": {"train": 10},
    "model": model_to_config(CONV),
    "train": {"batch_size": 4, "schedule": "constant"},
    "hparams": {"learning_rate": 1e-3, "beta": 1.0, "log_scale": 0.0},
    "arithmetic": "corrected",
    "patience": None,
    "seed": 0,
    "epochs": 6,
}


def make_run(folder: Path, model: DenseVAE | ConvVAE, steps: tuple[int, ...] = (3,), best: int | None = None) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model": model_to_config(model)}))
    for step in steps:
        checkpoint.save(folder / "checkpoints" / "last", at_step(model, step))
    if best is not None:
        checkpoint.save(folder / "checkpoints" / "best", at_step(model, best), keep=1)
    return folder


def unmerge(item: Path) -> None:
    """Remove the merged database, which Orbax did not write below folders with brackets."""
    (item / "manifest.ocdbt").unlink()
    shutil.rmtree(item / "d")


def test_a_new_folder_is_claimed_once_and_again(tmp_path: Path) -> None:
    claim(tmp_path / "new" / "run", CONFIG)
    assert json.loads((tmp_path / "new" / "run" / "config.json").read_text()) == CONFIG
    claim(tmp_path / "new" / "run", {**CONFIG, "jaxvae": "a later version"})
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").touch()
    claim(tmp_path / "empty", CONFIG)
    assert (tmp_path / "empty" / "config.json").exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_folders_with_other_files_are_left_alone(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "thesis"
    if kind == "folder":
        place.mkdir()
    mine = place if kind == "file" else place / "thesis.tex"
    mine.write_text("mine")
    with pytest.raises(InputError, match="thesis: exists and is not a run"):
        claim(place, CONFIG)
    assert mine.read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == sorted({place, mine})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hparams": {**CONFIG["hparams"], "beta": 2.0}}, "hparams.beta 1.0, now 2.0"),
        ({"seed": 1}, "seed 0, now 1"),
        ({"data": {"data": "others"}}, 'data.data "healthy blobs", now "others"'),
        ({"model": model_to_config(DENSE)}, 'model.name "ConvVAE", now "DenseVAE"'),
        ({"images": {"train": 11}}, "images.train 10, now 11"),
        ({"patience": 3}, "patience null, now 3"),
        # Fewer steps in as many epochs.
        ({"train": {**CONFIG["train"], "batch_size": 8}}, "train.batch_size 4, now 8"),
    ],
)
def test_another_configuration_is_refused_by_the_value(tmp_path: Path, change: dict, message: str) -> None:
    claim(tmp_path / "run", CONFIG)
    (tmp_path / "run" / "checkpoints" / "last" / "3").mkdir(parents=True)
    with pytest.raises(InputError, match=f"run: was made with {message}"):
        claim(tmp_path / "run", {**CONFIG, **change})
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == CONFIG


def test_a_run_without_a_checkpoint_is_made_again(tmp_path: Path) -> None:
    claim(tmp_path / "run", CONFIG)
    (tmp_path / "run" / "metrics.jsonl").write_text("{}\n")
    with files.locked(tmp_path / "run"), pytest.raises(InputError, match="another process is at work there"):
        claim(tmp_path / "run", {**CONFIG, "seed": 1})
    claim(tmp_path / "run", {**CONFIG, "seed": 1})
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_epochs_may_grow_unless_the_schedule_is_cosine(tmp_path: Path) -> None:
    claim(tmp_path / "run", CONFIG)
    for name in ("run", "cosine"):
        (tmp_path / name / "checkpoints" / "last" / "3").mkdir(parents=True)
    claim(tmp_path / "run", {**CONFIG, "epochs": 9})
    assert read_config(tmp_path / "run")["epochs"] == 9
    with pytest.raises(InputError, match=r"epochs=6: .*run was made for 9"):
        claim(tmp_path / "run", CONFIG)
    cosine = {**CONFIG, "train": {**CONFIG["train"], "schedule": "cosine"}}
    (tmp_path / "cosine" / "config.json").write_text(json.dumps(cosine))
    with pytest.raises(InputError, match="epochs=9: the cosine schedule"):
        claim(tmp_path / "cosine", {**cosine, "epochs": 9})


def test_a_config_without_augmentation_continues_without(tmp_path: Path) -> None:
    claim(tmp_path / "run", CONFIG)
    (tmp_path / "run" / "checkpoints" / "last" / "3").mkdir(parents=True)
    with pytest.raises(InputError, match='run: was made with augment "none", now "paper"'):
        claim(tmp_path / "run", {**CONFIG, "augment": "paper"})
    claim(tmp_path / "run", {**CONFIG, "augment": "none"})
    assert read_config(tmp_path / "run")["augment"] == "none"


def test_an_unmerged_checkpoint_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run [1]", CONV)
    last = run / "checkpoints" / "last"
    unmerge(last / "3" / "default")
    assert_equal_states(checkpoint.restore(last, at_step(CONV, 4)), at_step(CONV, 3))
    assert (last / "3" / "default" / "manifest.ocdbt").exists()
    unmerge(last / "3" / "default")
    jax.tree.map(np.testing.assert_array_equal, load(run).params, at_step(CONV, 3).params)


@pytest.mark.parametrize("other", [DenseVAE((8, 8, 1), 3, 8), CONV], ids=["another size", "another kind"])
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, other) -> None:
    run = make_run(tmp_path / "run", DENSE)
    with pytest.raises(InputError, match=r"last/3: .*another model") as caught:
        checkpoint.restore(run / "checkpoints" / "last", at_step(other, 3))
    assert "\n" not in str(caught.value)
    (run / "config.json").write_text(json.dumps({**CONFIG, "model": model_to_config(other)}))
    with pytest.raises(InputError, match=r"last/3: .*another model"):
        load(run)


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", DENSE)
    for path in (run / "checkpoints" / "last" / "3").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(InputError, match=r"last/3: cannot be read .*, probably damaged; remove it") as caught:
        load(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", [DENSE, CONV, CONV.clone(dtype=jnp.bfloat16)], ids=["dense", "conv", "bfloat16"])
def test_a_run_is_opened_from_its_folder_alone(tmp_path: Path, model) -> None:
    run = load(make_run(tmp_path / "run", model, steps=(3, 5)))
    assert run.model == model
    assert run.step == 5
    jax.tree.map(np.testing.assert_array_equal, run.params, at_step(model, 5).params)
    assert run.config["arithmetic"] == "corrected"


def test_the_best_is_opened_before_the_last(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", DENSE, steps=(5,), best=3)
    run = load(folder)
    assert run.step == 3
    assert chosen(folder) == (folder / "checkpoints" / "best", 3)
    jax.tree.map(np.testing.assert_array_equal, run.params, at_step(DENSE, 3).params)


def test_an_empty_best_folder_falls_back_to_last(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", DENSE)
    (folder / "checkpoints" / "best" / "3.orbax-checkpoint-tmp").mkdir(parents=True)
    assert load(folder).step == 3


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, found in (("nowhere", "no such folder"), (".", "is not a run"), ("file", "is not a run")):
        with pytest.raises(InputError, match=f"{found}.*jaxvae train"):
            load(tmp_path / name)


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", DENSE, steps=())
    with pytest.raises(InputError, match="run: has no checkpoint yet"):
        load(run)
    assert not (run / "checkpoints").exists()
