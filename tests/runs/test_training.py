"""A run that was stopped or killed continues to bit for bit the same weights."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from folders import healthy, write_benchmark
from jaxvae import ConvVAE, Hyperparams, InputError, TrainConfig, TrainState, init, parity
from jaxvae.augment import Augmentation
from jaxvae.cli import STOPPED, main
from jaxvae.data.dataset import Dataset, Splits, take
from jaxvae.objectives.autoencoder import autoencoder_terms
from jaxvae.objectives.elbo import elbo_terms
from jaxvae.runs import checkpoint, training
from jaxvae.runs.config import model_from_config, model_to_config, read_config
from jaxvae.runs.run import claim, load
from jaxvae.scores.gradients import sample_scores

MODEL = ConvVAE((16, 16, 1), 3, (4, 8))
CONFIG = {
    "jaxvae": "0",
    "data": {"data": "healthy blobs"},
    "images": {"train": 10},
    "model": model_to_config(MODEL),
    "train": {"batch_size": 4},
    "hparams": {"learning_rate": 1e-3, "beta": 1.0, "log_scale": 0.0},
    "arithmetic": "corrected",
    "patience": None,
    "seed": 0,
    "epochs": 6,
}
CONFIG["train"] |= {"clip_norm": None, "schedule": "constant", "warmup_steps": 0, "decay_steps": 1, "decay_rate": 0.1}


class After(list):
    """A list that is empty when first looked at, and filled after `looks` looks: a signal at a chosen moment."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def __bool__(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.fixture(scope="module")
def splits() -> Splits:
    """10 images to train on and 3 to validate on, 16 x 16."""
    names = tuple(map(str, range(13)))
    images = healthy(13, size=16)[..., None]
    everything = Dataset(images, np.zeros(13, bool), None, names, names, ("good",) * 13)
    nothing = take(everything, np.arange(0))
    return Splits(take(everything, np.arange(10)), take(everything, np.arange(10, 13)), nothing)


def train(
    run: Path, splits: Splits, stop: list[int] | None = None, seconds: float = 30.0, **changes
) -> training.Ending:
    config = {**CONFIG, **changes}
    claim(run, config)
    return training.train(run, config, splits, checkpoint_seconds=seconds, stop=() if stop is None else stop)


def last_state(run: Path) -> TrainState:
    """The last checkpoint of a run, from its folder alone."""
    config = read_config(run)
    model = model_from_config(config["model"])
    like = init(model, TrainConfig(**config["train"]), Hyperparams(**config["hparams"]), jax.random.key(0))
    return checkpoint.restore(run / "checkpoints" / "last", like)


def assert_same(run: Path, other: Path) -> None:
    """Compare all leaves of the last and the best checkpoints, and all records but their seconds."""
    for (path, a), (_, b) in zip(*map(jax.tree.leaves_with_path, map(last_state, (run, other))), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b, err_msg=str(path))
    one, two = map(load, (run, other))
    assert one.step == two.step
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    assert records(run) == records(other)


def records(run: Path) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


# One process


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, splits: Splits) -> Path:
    """A run without interruption: 6 epochs of 2 steps."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert train(run, splits) == training.Ending(True, "trained for 12 steps")
    return run


def test_training_writes_one_record_per_epoch(whole: Path, splits: Splits) -> None:
    assert [record["step"] for record in records(whole)] == [2, 4, 6, 8, 10, 12]
    assert int(last_state(whole).step) == 12
    params = last_state(whole).params
    elbo = training.validation_elbo(MODEL, params, splits.validation.images, Hyperparams(**CONFIG["hparams"]))
    assert records(whole)[-1]["validation_elbo"] == elbo
    assert not list(whole.rglob("*.part"))


def test_the_validation_elbo_equals_sample_scores(whole: Path, splits: Splits) -> None:
    run = load(whole)
    scores = sample_scores(run.model, run.params, splits.validation.images, log_scale=-1.0)
    elbo = training.validation_elbo(MODEL, run.params, splits.validation.images, Hyperparams(beta=3.0, log_scale=-1.0))
    assert elbo == pytest.approx(-float(np.mean(3 * scores.kl + scores.nll)), rel=1e-6)


@pytest.mark.parametrize("looks", [0, 1, 4])
def test_a_stopped_run_continues_to_the_same_weights(tmp_path: Path, whole: Path, splits: Splits, looks: int) -> None:
    ending = train(tmp_path / "run", splits, stop=After(looks))
    assert ending == training.Ending(False, f"stopped by a signal at step {2 * looks} of 12")
    assert checkpoint.latest_step(tmp_path / "run" / "checkpoints" / "last") == 2 * looks
    assert train(tmp_path / "run", splits).finished
    assert_same(tmp_path / "run", whole)


def test_checkpoints_after_every_chunk_change_nothing(tmp_path: Path, whole: Path, splits: Splits) -> None:
    train(tmp_path / "run", splits, seconds=0.0)
    assert_same(tmp_path / "run", whole)
    kept = (tmp_path / "run" / "checkpoints" / "last").iterdir()
    assert sorted(int(path.name) for path in kept) == [10, 12]


def test_records_after_the_checkpoint_are_cut_off(tmp_path: Path, whole: Path, splits: Splits) -> None:
    run = tmp_path / "run"
    train(run, splits, stop=After(2))
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 6, "loss": 1.0, "nll": 1.0, "kl": 0.0, "seconds": 1.0}\n{"step": 8, "lo')
    train(run, splits)
    assert_same(run, whole)


@pytest.mark.parametrize("line", ["{", "[]", "{}", "\\xff"])
def test_a_damaged_record_is_named(tmp_path: Path, splits: Splits, line: str) -> None:
    train(tmp_path / "run", splits, stop=After(1))
    log = tmp_path / "run" / "metrics.jsonl"
    log.write_text(f"{line}\n{log.read_text()}")
    with pytest.raises(InputError, match=r"run/metrics.jsonl, line 1: (not JSON|lacks step)") as caught:
        train(tmp_path / "run", splits)
    assert "\n" not in str(caught.value)


def test_raising_the_epochs_continues(tmp_path: Path, whole: Path, splits: Splits) -> None:
    train(tmp_path / "run", splits, epochs=2)
    assert train(tmp_path / "run", splits, epochs=6).finished
    (tmp_path / "run" / "config.json").write_text(json.dumps(CONFIG))
    assert_same(tmp_path / "run", whole)


def test_steps_need_not_be_whole_epochs(tmp_path: Path, whole: Path, splits: Splits) -> None:
    shorter = {"epochs": None, "steps": 5}
    assert train(tmp_path / "run", splits, **shorter) == training.Ending(True, "trained for 5 steps")
    assert [record["step"] for record in records(tmp_path / "run")] == [2, 4, 5]
    # Validated at the end of epochs only, so that a longer training is validated at the same steps.
    assert "validation_elbo" not in records(tmp_path / "run")[-1]
    assert records(tmp_path / "run")[:2] == records(whole)[:2]
    with pytest.raises(InputError, match=r"steps=4: .*run was made for 5; give as many or more"):
        train(tmp_path / "run", splits, epochs=None, steps=4)
    with pytest.raises(InputError, match=r"epochs=2: .*run was made for 5 steps"):
        train(tmp_path / "run", splits, epochs=2, steps=None)
    assert train(tmp_path / "run", splits, epochs=None, steps=12).finished
    one, two = last_state(tmp_path / "run").params, last_state(whole).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, two)


def test_a_finished_run_is_left_as_it_is(whole: Path, splits: Splits) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    assert train(whole, splits) == training.Ending(True, "trained for 12 steps, nothing is left to do")
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_long_epochs_are_cut_into_equal_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LONGEST_CHUNK", 10)
    for epoch in (1, 7, 10, 11, 25, 101):
        step, chunks = 0, []
        while step < 2 * epoch:
            chunks.append(training.steps_to_go(step, epoch))
            step += chunks[-1]
        assert max(chunks) <= 10
        assert len(set(chunks)) <= 2
        assert step == 2 * epoch
        assert sum(chunks[: len(chunks) // 2]) == epoch


def test_patience_counts_epochs_not_chunks(
    tmp_path: Path, whole: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LONGEST_CHUNK", 1)
    train(tmp_path / "run", splits, patience=100)
    found = records(tmp_path / "run")
    assert [record["step"] for record in found] == list(range(1, 13))
    assert [record["step"] for record in found if "validation_elbo" in record] == [2, 4, 6, 8, 10, 12]
    expected = [record["validation_elbo"] for record in records(whole)]
    assert [record["validation_elbo"] for record in found[1::2]] == pytest.approx(expected, rel=1e-6)


RESTLESS = {"hparams": {**CONFIG["hparams"], "learning_rate": 0.03}, "patience": 2, "epochs": 60}


@pytest.fixture(scope="module")
def stopped_early(tmp_path_factory: pytest.TempPathFactory, splits: Splits) -> Path:
    run = tmp_path_factory.mktemp("runs") / "patient"
    assert train(run, splits, **RESTLESS).finished
    return run


def test_early_stopping_keeps_the_best(stopped_early: Path, splits: Splits) -> None:
    found = records(stopped_early)
    best = max(found, key=lambda record: record["validation_elbo"])
    assert found[-1]["step"] == best["step"] + 2 * RESTLESS["patience"] < 120
    run = load(stopped_early)
    assert run.step == best["step"] < int(last_state(stopped_early).step) == found[-1]["step"]
    elbo = training.validation_elbo(run.model, run.params, splits.validation.images, Hyperparams(log_scale=0.0))
    assert elbo == pytest.approx(best["validation_elbo"], rel=1e-6)
    ending = train(stopped_early, splits, **RESTLESS)
    assert ending.finished
    assert ending.words.startswith(f"stopped at step {found[-1]['step']}, after 2 epochs without a better")


@pytest.mark.parametrize("before_the_end", [1, 3])
def test_a_resumed_run_remembers_the_best(
    tmp_path: Path, splits: Splits, stopped_early: Path, before_the_end: int
) -> None:
    looks = len(records(stopped_early)) - before_the_end
    assert not train(tmp_path / "run", splits, stop=After(looks), **RESTLESS).finished
    train(tmp_path / "run", splits, **RESTLESS)
    assert_same(tmp_path / "run", stopped_early)


def test_a_kill_between_saving_best_and_last_is_recovered(
    tmp_path: Path, splits: Splits, stopped_early: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint.save

    def killed(directory: Path, state: TrainState, **knobs: int) -> None:
        if directory.name == "last" and int(state.step) >= 6:
            raise KeyboardInterrupt
        save(directory, state, **knobs)

    monkeypatch.setattr(checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", splits, seconds=0.0, **RESTLESS)
    monkeypatch.undo()
    best, last = (checkpoint.latest_step(tmp_path / "run" / "checkpoints" / name) for name in ("best", "last"))
    assert best is not None
    assert last is not None
    train(tmp_path / "run", splits, **RESTLESS)
    assert_same(tmp_path / "run", stopped_early)


@pytest.mark.parametrize("validation", [True, False])
def test_a_nan_loss_ends_the_run(tmp_path: Path, splits: Splits, validation: bool) -> None:
    splits = splits if validation else Splits(splits.train, take(splits.train, np.arange(0)), splits.test)
    hparams = {**CONFIG["hparams"], "learning_rate": 1e30}
    with pytest.raises(InputError, match=r"run: \w+ became (nan|inf) at step 2; .*`learning_rate`"):
        train(tmp_path / "run", splits, hparams=hparams)
    assert checkpoint.latest_step(tmp_path / "run" / "checkpoints" / "last") is None
    assert records(tmp_path / "run") == []


def test_the_last_good_checkpoint_stays(
    tmp_path: Path, whole: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "run", splits, stop=After(3))
    fit = training.fit

    def spoilt(*arguments, **knobs):
        state, metrics = fit(*arguments, **knobs)
        return state, metrics._replace(loss=metrics.loss.at[1].set(jnp.nan))

    monkeypatch.setattr(training, "fit", spoilt)
    with pytest.raises(InputError, match=r"loss became nan at step 8 \(the checkpoint of step 6 is kept\)"):
        train(tmp_path / "run", splits)
    assert [record["step"] for record in records(tmp_path / "run")] == [2, 4, 6]
    monkeypatch.undo()
    train(tmp_path / "run", splits)
    assert_same(tmp_path / "run", whole)


def test_the_arithmetic_selects_the_objective(tmp_path: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    objectives = []

    def fit(*_, objective, **__):
        objectives.append(objective)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", fit)
    for arithmetic in ("corrected", "released"):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / arithmetic, splits, arithmetic=arithmetic)
    assert objectives == [elbo_terms, parity.dense_elbo_terms]


def test_the_config_selects_the_augmentation(tmp_path: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    augmentations = []

    def fit(*_, augment, **__):
        augmentations.append(augment)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", fit)
    for name, changes in (("older", {}), ("none", {"augment": "none"}), ("paper", {"augment": "paper"})):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / name, splits, **changes)
    assert augmentations == [None, None, Augmentation()]


def test_an_augmented_run_continues_to_the_same_weights(tmp_path: Path, splits: Splits) -> None:
    assert train(tmp_path / "whole", splits, augment="paper").finished
    assert not train(tmp_path / "run", splits, stop=After(2), augment="paper").finished
    assert train(tmp_path / "run", splits, augment="paper").finished
    assert_same(tmp_path / "run", tmp_path / "whole")


# Several processes

EPOCHS = 600


def command(run: Path, folder: Path) -> list[str]:
    flags = "--model dense --hidden-size 8 --latent-size 4 --batch-size 4 --patience 1000 --checkpoint-seconds 0.4"
    return ["train", str(run), "--data", str(folder), "--epochs", str(EPOCHS), *flags.split()]


def process(run: Path, folder: Path, until: int | None = None, number: int = 0) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process that gets a signal once the run has `until` records."""
    log = run / "metrics.jsonl"
    before = log.stat().st_ino if log.exists() else None
    started = [sys.executable, "-m", "jaxvae", *command(run, folder)]
    with subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while until is not None and process.poll() is None:
            # A continued process starts with a new file, cut off at its checkpoint.
            if log.exists() and log.stat().st_ino != before and log.read_text().count("\n") >= until:
                process.send_signal(number)
                break
            time.sleep(0.002)
        out, err = process.communicate(timeout=100)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmark(tmp_path_factory.mktemp("data"), train=9, test=1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert main(command(run, folder)) == 0
    return run


@pytest.mark.slow
def test_a_run_continues_after_sigkill_and_sigterm(tmp_path: Path, folder: Path, undisturbed: Path) -> None:
    """SIGKILL twice, each time after a record; tests/cli/test_kill_and_resume.py kills at any moment."""
    run = tmp_path / "run"
    printed = ""
    for moment in sorted(random.Random(0).sample(range(1, EPOCHS // 3), 2)):
        code, out, err = process(run, folder, moment, signal.SIGKILL)
        assert (code, err) == (-signal.SIGKILL, "")
        printed += out
    what = f"{run}: 8 healthy images of {folder}, 32x32 pixels with 1 channel"
    assert printed.startswith(f"{what}, {EPOCHS} epochs, {2 * EPOCHS} steps\n")
    code, out, err = process(run, folder, EPOCHS // 2, signal.SIGTERM)
    step = records(run)[-1]["step"]
    assert (code, err) == (STOPPED, "")
    words = f"{run}: stopped by a signal at step {step} of {2 * EPOCHS}; the same command continues it\n"
    assert out.endswith(words)
    assert EPOCHS <= step < 2 * EPOCHS
    assert checkpoint.latest_step(run / "checkpoints" / "last") == step
    code, out, err = process(run, folder)
    assert (code, err) == (0, "")
    assert f"{run}: trained for {2 * EPOCHS} steps, the best is that of step " in out
    assert_same(run, undisturbed)


def test_without_a_terminal_progress_is_printed_every_minute(
    tmp_path: Path, splits: Splits, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(training, "QUIET_SECONDS", 0.0)
    train(tmp_path / "run", splits, epochs=2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(rf"{tmp_path / 'run'}: step \d+ of \d+, loss [\d.]+.*", lines[0])


def test_a_best_state_after_the_last_checkpoint_is_removed(tmp_path: Path, splits: Splits, stopped_early: Path) -> None:
    """The run was killed after saving such a state, and again while removing it."""
    assert not train(tmp_path / "run", splits, stop=After(2), **RESTLESS).finished
    best = tmp_path / "run" / "checkpoints" / "best"
    (best / "1000").mkdir(parents=True)
    (best / ".removed-900").mkdir()
    train(tmp_path / "run", splits, **RESTLESS)
    assert not list(best.glob(".removed-*"))
    assert_same(tmp_path / "run", stopped_early)


def test_validation_by_an_objective_is_compiled_once(compilations: list[str]) -> None:
    images = np.random.default_rng(0).random((6, 16, 16, 1)).astype(np.float32)
    params = init(MODEL, TrainConfig(), Hyperparams(), jax.random.key(0)).params
    compilations.clear()
    found = []
    for factor in (1, 2):
        changed = jax.tree.map(lambda leaf, factor=factor: factor * leaf, params)
        found.append(training.validation_elbo(MODEL, changed, images, Hyperparams(), objective=autoencoder_terms))
        nll = autoencoder_terms(MODEL, changed, jnp.asarray(images)).nll
        assert found[-1] == pytest.approx(-float(nll.sum()) / 6, rel=1e-5)
    assert found[0] != found[1]
    assert compilations.count("jit(_summed_loss)") == 1
