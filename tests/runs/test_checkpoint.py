"""Checkpoints come back bit for bit; damaged ones are refused in one line."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxvae import ConvVAE, DenseVAE, Hyperparams, InputError, TrainConfig, TrainState, init
from jaxvae.runs import checkpoint
from states import assert_equal_states, at_step

# Orbax leaves tasks behind that report the same damage again.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

DENSE, CONV = DenseVAE((8, 8, 1), 2, 8), ConvVAE((8, 8, 1), 2, (4, 8))


@pytest.mark.parametrize("model", [DENSE, CONV], ids=["dense", "conv"])
def test_a_state_comes_back_bit_for_bit(tmp_path: Path, model) -> None:
    state = at_step(model, 7)
    checkpoint.save(tmp_path, state)
    assert_equal_states(checkpoint.restore(tmp_path, state), state)
    shapes = jax.eval_shape(lambda: init(model, TrainConfig(), Hyperparams(), jax.random.key(1)))
    assert_equal_states(checkpoint.restore(tmp_path, shapes), state)


def test_relative_folders_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = at_step(DENSE, 1)
    checkpoint.save("here", state)
    assert_equal_states(checkpoint.restore("here", state), state)


@pytest.mark.parametrize("name", ["Project [2024]", "a[", "a*", "a?b", "**", "back\\slash", "[*?]\\"])
def test_folders_with_special_characters_work(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "axb").mkdir()
    other, state = at_step(DENSE, 2), at_step(DENSE, 3)
    checkpoint.save(tmp_path / "axb" / "last", other)
    checkpoint.save(tmp_path / name / "last", state)
    assert_equal_states(checkpoint.restore(tmp_path / name / "last", state), state)
    assert_equal_states(checkpoint.restore(tmp_path / "axb" / "last", other), other)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["axb", name])
    (tmp_path / name).rename(tmp_path / "renamed")
    assert_equal_states(checkpoint.restore(tmp_path / "renamed" / "last", state), state)


def test_a_temporary_folder_with_special_characters_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "[tmp]").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "[tmp]"))
    state = at_step(DENSE, 1)
    checkpoint.save(tmp_path / "[1]", state)
    assert_equal_states(checkpoint.restore(tmp_path / "[1]", state), state)
    assert list((tmp_path / "[tmp]").iterdir()) == []


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
    assert_equal_states(checkpoint.restore(tmp_path, states[2]), states[10])


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
    assert_equal_states(checkpoint.restore(tmp_path, jax.eval_shape(lambda: states)), states)


def test_an_interrupted_save_is_ignored_and_removed(tmp_path: Path) -> None:
    state = at_step(DENSE, 4)
    checkpoint.save(tmp_path, state)
    torn = tmp_path / "6.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "4", torn)
    (torn / "_CHECKPOINT_METADATA").unlink()
    assert checkpoint.latest_step(tmp_path) == 4
    assert_equal_states(checkpoint.restore(tmp_path, state), state)
    checkpoint.save(tmp_path, at_step(DENSE, 6))
    assert checkpoint.latest_step(tmp_path) == 6
    assert not torn.exists()


def test_restoring_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no checkpoint"):
        checkpoint.restore(tmp_path / "nowhere", at_step(DENSE, 1))
    assert not (tmp_path / "nowhere").exists()


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
