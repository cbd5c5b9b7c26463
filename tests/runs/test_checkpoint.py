"""Checkpoints come back bit for bit; damaged ones are refused in one line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae import ConvVAE, DenseVAE, Hyperparams, InputError, TrainConfig, TrainState, init
from jaxvae.runs import checkpoint

# Orbax leaves tasks behind that tell of the same damage once more.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONFIG = {
    "data": {"data": "phantom"},
    "images": {},
    "train": {},
    "hparams": {"log_scale": 0.0},
    "arithmetic": "corrected",
    "patience": None,
    "seed": 0,
    "epochs": 1,
}
DENSE, CONV = DenseVAE((8, 8, 1), 2, 8), ConvVAE((8, 8, 1), 2, (4, 8))


def at_step(model: DenseVAE | ConvVAE, step: int) -> TrainState:
    """A state whose leaves all differ from those of other steps."""
    rng = np.random.default_rng(step)
    state = jax.eval_shape(lambda: init(model, TrainConfig(), Hyperparams(), jax.random.key(0)))
    params, opt_state = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), (state.params, state.opt_state)
    )
    return TrainState(jnp.int32(step), params, opt_state, jax.random.key(step))


def assert_equal(one: TrainState, other: TrainState) -> None:
    for (path, a), (_, b) in zip(*map(jax.tree.leaves_with_path, (one, other)), strict=True):
        assert a.dtype == b.dtype, path
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b, err_msg=str(path))


def make_run(folder: Path, model: DenseVAE | ConvVAE, steps: tuple[int, ...] = (3,), best: int | None = None) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model": checkpoint.model_to_config(model)}))
    for step in steps:
        checkpoint.save(folder / "checkpoints" / "last", at_step(model, step))
    if best is not None:
        checkpoint.save(folder / "checkpoints" / "best", at_step(model, best), keep=1)
    return folder


@pytest.mark.parametrize("model", [DENSE, CONV], ids=["dense", "conv"])
def test_a_state_comes_back_bit_for_bit(tmp_path: Path, model) -> None:
    state = at_step(model, 7)
    checkpoint.save(tmp_path, state)
    assert_equal(checkpoint.restore(tmp_path, state), state)
    shapes = jax.eval_shape(lambda: init(model, TrainConfig(), Hyperparams(), jax.random.key(1)))
    assert_equal(checkpoint.restore(tmp_path, shapes), state)


def test_relative_folders_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = at_step(DENSE, 1)
    checkpoint.save("here", state)
    assert_equal(checkpoint.restore("here", state), state)


@pytest.mark.parametrize("name", ["Project [2024]", "a[", "a*", "a?b", "**", "back\\slash", "[*?]\\"])
def test_folders_with_special_characters_work(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "axb").mkdir()
    other, state = at_step(DENSE, 2), at_step(DENSE, 3)
    checkpoint.save(tmp_path / "axb" / "last", other)
    checkpoint.save(tmp_path / name / "last", state)
    assert_equal(checkpoint.restore(tmp_path / name / "last", state), state)
    assert_equal(checkpoint.restore(tmp_path / "axb" / "last", other), other)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["axb", name])
    (tmp_path / name).rename(tmp_path / "renamed")
    assert_equal(checkpoint.restore(tmp_path / "renamed" / "last", state), state)


def test_a_temporary_folder_with_special_characters_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "[tmp]").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "[tmp]"))
    state = at_step(DENSE, 1)
    checkpoint.save(tmp_path / "[1]", state)
    assert_equal(checkpoint.restore(tmp_path / "[1]", state), state)
    assert list((tmp_path / "[tmp]").iterdir()) == []


def unmerge(item: Path) -> None:
    """Remove the merged database, which Orbax did not write below folders with brackets."""
    (item / "manifest.ocdbt").unlink()
    shutil.rmtree(item / "d")


def test_an_unmerged_checkpoint_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run [1]", CONV)
    last = run / "checkpoints" / "last"
    unmerge(last / "3" / "default")
    assert_equal(checkpoint.restore(last, at_step(CONV, 4)), at_step(CONV, 3))
    assert (last / "3" / "default" / "manifest.ocdbt").exists()
    unmerge(last / "3" / "default")
    jax.tree.map(np.testing.assert_array_equal, checkpoint.load(run).params, at_step(CONV, 3).params)


def test_a_save_that_reads_back_differently_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restore = checkpoint.restore

    def lossy(directory: Path, like: TrainState) -> TrainState:
        state = restore(directory, like)
        return dataclasses.replace(state, params=jax.tree.map(lambda leaf: leaf.at[0].add(1e-3), state.params))

    monkeypatch.setattr(checkpoint, "restore", lossy)
    with pytest.raises(InputError, match=r"last/2: differs from what was written; check the disk"):
        checkpoint.save(tmp_path / "last", at_step(DENSE, 2))


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorStore reports a full disk as RESOURCE_EXHAUSTED, as XLA reports lack of memory."""
    full = "RESOURCE_EXHAUSTED: Failed writing: No space left on device [os_error_code='28']"

    def save(*_: object, **__: object) -> None:
        raise ValueError(full)

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", save)
    with pytest.raises(
        InputError, match=r"last/1: cannot be written \(No space left on device\); free some space"
    ) as no:
        checkpoint.save(tmp_path / "last", at_step(DENSE, 1))
    assert "memory" not in str(no.value)


def test_a_failing_disk_is_not_reported_as_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, at_step(DENSE, 1))

    def restore(*_: object, **__: object) -> None:
        raise ValueError("PERMISSION_DENIED: Error opening: Permission denied [os_error_code='13']")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.restore", restore)
    with pytest.raises(InputError, match=r"1: cannot be read \(Permission denied\); make it readable and try again"):
        checkpoint.restore(tmp_path, at_step(DENSE, 1))


def test_the_newest_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    states = {step: at_step(DENSE, step) for step in (2, 4, 10)}
    for state in states.values():
        checkpoint.save(tmp_path, state)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "4"]
    assert checkpoint.latest_step(tmp_path) == 10
    assert_equal(checkpoint.restore(tmp_path, states[2]), states[10])


def test_a_step_is_saved_once(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, at_step(DENSE, 3))
    with pytest.raises(InputError, match="holds a checkpoint of step 3 already; save into another folder"):
        checkpoint.save(tmp_path, at_step(DENSE, 3))


@pytest.mark.parametrize(("steps", "keep"), [((100, 200, 50), 2), ((100,), 0)])
def test_a_state_older_than_the_last_is_not_saved(tmp_path: Path, steps, keep) -> None:
    for step in steps[:-1]:
        checkpoint.save(tmp_path, at_step(DENSE, step))
    there = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(InputError, match=r"holds a checkpoint of step 200, and this one is of step 50|keep=0"):
        checkpoint.save(tmp_path, at_step(DENSE, steps[-1]), keep=keep)
    assert sorted(path.name for path in tmp_path.iterdir()) == there


def test_the_address_of_a_bucket_is_refused() -> None:
    with pytest.raises(InputError, match="gs://bucket/run: is not a folder of this machine; mount it"):
        checkpoint.save("gs://bucket/run", at_step(DENSE, 1))


def test_a_population_comes_back(tmp_path: Path) -> None:
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(at_step(DENSE, 5) for _ in range(3)))
    checkpoint.save(tmp_path, states)
    assert checkpoint.latest_step(tmp_path) == 5
    assert_equal(checkpoint.restore(tmp_path, jax.eval_shape(lambda: states)), states)


def test_an_interrupted_save_is_ignored_and_removed(tmp_path: Path) -> None:
    state = at_step(DENSE, 4)
    checkpoint.save(tmp_path, state)
    torn = tmp_path / "6.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "4", torn)
    (torn / "_CHECKPOINT_METADATA").unlink()
    assert checkpoint.latest_step(tmp_path) == 4
    assert_equal(checkpoint.restore(tmp_path, state), state)
    checkpoint.save(tmp_path, at_step(DENSE, 6))
    assert checkpoint.latest_step(tmp_path) == 6
    assert not torn.exists()


@pytest.mark.parametrize("other", [DenseVAE((8, 8, 1), 3, 8), CONV], ids=["another size", "another kind"])
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, other) -> None:
    run = make_run(tmp_path / "run", DENSE)
    with pytest.raises(InputError, match=r"last/3: .*another model") as caught:
        checkpoint.restore(run / "checkpoints" / "last", at_step(other, 3))
    assert "\n" not in str(caught.value)
    (run / "config.json").write_text(json.dumps({**CONFIG, "model": checkpoint.model_to_config(other)}))
    with pytest.raises(InputError, match=r"last/3: .*another model"):
        checkpoint.load(run)


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", DENSE)
    for path in (run / "checkpoints" / "last" / "3").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(InputError, match=r"last/3: cannot be read, damaged") as caught:
        checkpoint.load(run)
    assert "\n" not in str(caught.value)


def test_restoring_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no checkpoint"):
        checkpoint.restore(tmp_path / "nowhere", at_step(DENSE, 1))
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("model", [DENSE, CONV, CONV.clone(dtype=jnp.bfloat16)], ids=["dense", "conv", "bfloat16"])
def test_a_run_is_opened_from_its_folder_alone(tmp_path: Path, model) -> None:
    run = checkpoint.load(make_run(tmp_path / "run", model, steps=(3, 5)))
    assert run.model == model
    assert run.step == 5
    jax.tree.map(np.testing.assert_array_equal, run.params, at_step(model, 5).params)
    assert run.config["arithmetic"] == "corrected"


def test_the_best_is_opened_before_the_last(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", DENSE, steps=(5,), best=3)
    run = checkpoint.load(folder)
    assert run.step == 3
    assert checkpoint.chosen(folder) == (folder / "checkpoints" / "best", 3)
    jax.tree.map(np.testing.assert_array_equal, run.params, at_step(DENSE, 3).params)


def test_an_empty_folder_of_the_best_does_not_hide_the_last(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", DENSE)
    (folder / "checkpoints" / "best" / "3.orbax-checkpoint-tmp").mkdir(parents=True)
    assert checkpoint.load(folder).step == 3


@pytest.mark.parametrize("model", [DENSE, CONV, CONV.clone(dtype=jnp.bfloat16)], ids=["dense", "conv", "bfloat16"])
def test_models_survive_json(model) -> None:
    config = checkpoint.model_to_config(model)
    assert json.loads(json.dumps(config)) == config
    assert checkpoint.model_from_config(config) == model
    assert hash(checkpoint.model_from_config(config)) == hash(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "GAN"}, "model 'GAN' is unknown"),
        ({"depth": 3}, "cannot make that ConvVAE"),
        ({"dtype": "float33"}, "cannot make that ConvVAE"),
    ],
)
def test_a_model_of_another_version_is_refused(change, message) -> None:
    with pytest.raises(InputError, match=message):
        checkpoint.model_from_config({**checkpoint.model_to_config(CONV), **change})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b'{"data": {', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "lacks data.data, .*epochs"),
        (json.dumps({**CONFIG, "model": None}).encode(), "lacks model.name,"),
        (json.dumps({**CONFIG, "model": {"name": "ConvVAE"}, "hparams": {}}).encode(), "lacks hparams.log_scale,"),
    ],
)
def test_a_damaged_config_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=f"config.json: {message}") as caught:
        checkpoint.read_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, found in (("nowhere", "no such folder"), (".", "is no run"), ("file", "is no run")):
        with pytest.raises(InputError, match=f"{found}.*jaxvae train"):
            checkpoint.load(tmp_path / name)


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", DENSE, steps=())
    with pytest.raises(InputError, match="run: has no checkpoint yet"):
        checkpoint.load(run)
    assert not (run / "checkpoints").exists()


def test_a_state_with_missing_parts_is_not_restored(tmp_path: Path) -> None:
    state = at_step(DENSE, 3)
    checkpoint.save(tmp_path, state)
    with pytest.raises(InputError, match=r"3: a checkpoint of another state, it has .* too; restore all of it"):
        checkpoint.restore(tmp_path, dataclasses.replace(state, opt_state=()))


def test_an_older_state_does_not_replace_several_checkpoints(tmp_path: Path) -> None:
    for step in (10, 11):
        checkpoint.save(tmp_path, at_step(DENSE, step))
    with pytest.raises(InputError, match="holds a checkpoint of step 11, and this one is of step 5"):
        checkpoint.save(tmp_path, at_step(DENSE, 5), keep=1)
    assert checkpoint.latest_step(tmp_path) == 11
