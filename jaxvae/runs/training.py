"""Training a run in equal chunks, so that it can be stopped and continued.

Each chunk is one call of `jaxvae.fit`. Between chunks come the validation, the checkpoint, early stopping, the progress
bar and the answer to signals. A continued run reads metrics.jsonl for all that its checkpoint lacks.
"""

import dataclasses
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvae import files
from jaxvae.augment import Augmentation
from jaxvae.data import kinds
from jaxvae.data.dataset import Splits
from jaxvae.data.normalization import as_float
from jaxvae.errors import InputError, counted, refuse_below_zero
from jaxvae.models.model import Model
from jaxvae.objectives.elbo import negative_elbo
from jaxvae.progress import Bar
from jaxvae.runs import capacity, checkpoint, signals, trained_on
from jaxvae.runs import settings as run_settings
from jaxvae.runs.config import (
    Config,
    make_config,
    model_from_config,
    objective_of,
    steps_per_epoch,
    terms_of,
    total_steps,
)
from jaxvae.runs.run import Run, claim, load
from jaxvae.runs.settings import Settings
from jaxvae.scores.batches import score_batches
from jaxvae.train import Augment, Hyperparams, Objective, TrainConfig, TrainState, fit, init, run_key
from jaxvae.types import Array, Key, Params, StepMetrics

Record = dict[str, Any]

# The types of what a line of metrics.jsonl has to hold.
LOGGED = {"step": int} | dict.fromkeys(("seconds", "loss", "nll", "kl", "validation_elbo?"), int | float)
QUIET_SECONDS = 60.0  # Between two lines of progress if stderr is not a terminal, which shows a bar.
LONGEST_CHUNK = 500  # Steps per program; signals are answered and the bar moves between programs.
LARGE = 512 * 512  # Pixels of an image that is usually resized.
VALIDATION_BATCH = 256  # Images at a time.
FEW_STEPS = 1000  # Fewer get a warning: the demo takes about 2,000, the paper's FashionMNIST 10,000.
AUGMENTATIONS: dict[str, Augment | None] = {"none": None, "paper": Augmentation()}


class Ending(NamedTuple):
    """How training ended."""

    finished: bool  # False if the same command can continue it
    words: str


def train_run(
    run_dir: str | os.PathLike[str],
    source: kinds.Source,
    settings: Settings,
    *,
    checkpoint_seconds: float = 30.0,
    stop: Sequence[int] = (),
    finished: Callable[[Run, Splits], None] = lambda run, splits: None,
    say: Callable[[str], None] = lambda line: None,
) -> Ending:
    """Train a run from images and settings, or continue it: `jaxvae train`.

    Args:
      run_dir: the folder of the run, made if missing.
      settings: all settings but the images; a run that is continued may only be given more epochs or steps.
      checkpoint_seconds: the least time between two checkpoints; one is always written at the end.
      stop: as of `train`.
      finished: called with the run and its images once training has ended, such as
        `evaluation.thresholds.write_healthy_stats`, which keeps what scoring needs if the images are gone later.
      say: called with each line for the user.

    Raises:
      InputError: settings or images are wrong, the folder holds something else, or the loss became NaN or infinite.
    """
    run_dir = Path(run_dir)
    refuse_below_zero("checkpoint_seconds", checkpoint_seconds)
    run_settings.check(settings, source)
    splits = kinds.open_training(source)
    config = make_config(source, splits, settings)
    _refuse_too_large(config)
    claim(run_dir, config)
    with files.locked(run_dir):
        for line in (*_announced(run_dir, source, config), *(f"  {notice}" for notice in splits.notices)):
            say(line)
        kinds.record_left_out(run_dir, splits)
        ending = train(run_dir, config, splits, checkpoint_seconds=checkpoint_seconds, stop=stop)
        if ending.finished:
            run = load(run_dir)
            trained_on.write(run, splits)
            finished(run, splits)
    return ending


def _announced(run_dir: Path, source: kinds.Source, config: Config) -> list[str]:
    """What is going to be trained, with a warning if it is little; or the step at which training continues."""
    steps, epoch = total_steps(config), steps_per_epoch(config)
    if (done := checkpoint.latest_step(run_dir / "checkpoints" / "last")) is not None:
        return [f"{run_dir}: is at step {done} of {steps}"]
    height, width, channels = config["images"]["shape"]
    images = f"{config['images']['train']} healthy images of {source.data}"
    size = f"{width}x{height} pixels with {counted(channels, 'channel')}"
    epochs = counted(config["epochs"], "epoch") if config["epochs"] else f"{steps / epoch:.3g} epochs"
    few = f"  only {counted(steps, 'step')}: expect an undertrained model; give `steps` {FEW_STEPS} or more"
    line = f"{run_dir}: {images}, {size}, {epochs}, {counted(steps, 'step')}"
    return [line, few] if steps < FEW_STEPS else [line]


def _refuse_too_large(config: Config) -> None:
    """Raise InputError if the model does not fit into memory, for which XLA would try for minutes."""
    # The parameters, Adam's two moments and the gradient.
    needed = 4 * capacity.parameter_bytes(model_from_config(config["model"]))
    if (free := capacity.free_bytes()) is not None and needed > free:
        height, width, _ = config["images"]["shape"]
        there = f"needs {needed / 1e9:.1f} GB for {width}x{height} pixels, and {free / 1e9:.1f} GB are free"
        way_out = "resize the images, as with `size` 64" if height * width > LARGE else "make it smaller"
        raise InputError(f"`latent_size`, `features`, `hidden_size`: the model {there}; {way_out}")


def train(run_dir: Path, config: Config, splits: Splits, *, checkpoint_seconds: float, stop: Sequence[int]) -> Ending:
    """Train a claimed run to its last step, from its last checkpoint.

    A run that was killed and continued has bit for bit the weights of one that was not. If `stop` gets an entry, or
    after Ctrl-C, the current chunk is finished and a checkpoint written.

    Args:
      checkpoint_seconds: the least time between two checkpoints; one is always written at the end.
      stop: a list that may get entries during training, such as that of `signals.noted`.

    Raises:
      InputError: the loss became NaN or infinite; the last good checkpoint is kept.
    """
    model, train_config, hparams, state = _as_it_was_left(run_dir, config)
    # Runs of versions without augmentation do not name it.
    augment = AUGMENTATIONS[config.get("augment", "none")]
    options: dict[str, Any] = {"objective": terms_of(config), "augment": augment}
    if not objective_of(config).kl:
        hparams = dataclasses.replace(hparams, beta=0.0)  # The KL of such a model means nothing.
    step, total, epoch, patience = int(state.step), total_steps(config), steps_per_epoch(config), config["patience"]
    records = _rewind(run_dir / "metrics.jsonl", step)
    if step >= total or _gave_up(records, patience):
        ending = _ending(step, total, records, patience)
        return ending._replace(words=f"{ending.words}, nothing is left to do")
    images = jnp.asarray(splits.train.images)
    best_state: TrainState | None = None
    saved = told = time.perf_counter()
    started = saved - (records[-1]["seconds"] if records else 0.0)
    with signals.noted(signal.SIGINT) as interrupted, Bar(total=total, initial=step, unit="step", desc="train") as bar:
        while step < total and not stop and not interrupted and not _gave_up(records, patience):
            steps = min(steps_to_go(step, epoch), total - step)
            state, metrics = fit(model, train_config, hparams, state, images, steps=steps, **options)
            record: Record = {"step": step + steps, **_means(run_dir, step, metrics)}
            step += steps
            if step % epoch == 0 and len(splits.validation):
                validation = splits.validation.images
                record["validation_elbo"] = validation_elbo(
                    model, state.params, validation, hparams, objective=validated_by(config)
                )
                _refuse_nan(run_dir, "validation ELBO", step, record["validation_elbo"])
            record["seconds"] = round(time.perf_counter() - started, 3)
            files.append_lines(run_dir / "metrics.jsonl", [record])
            records.append(record)
            if patience is not None and record is _best(records):
                best_state = jax.tree.map(jnp.copy, state)  # A copy, since the next chunk consumes the state.
            bar.update(steps)
            bar.set_postfix_str(_postfix(record))
            if bar.disable and time.perf_counter() - told > QUIET_SECONDS:
                print(f"{run_dir}: step {step} of {total}, {_postfix(record)}", file=sys.stderr, flush=True)
                told = time.perf_counter()
            if time.perf_counter() - saved > checkpoint_seconds:
                _save(run_dir, state, best_state)
                saved = time.perf_counter()
        _save(run_dir, state, best_state)
    return _ending(step, total, records, patience)


def _as_it_was_left(run: Path, config: Config) -> tuple[Model, TrainConfig, Hyperparams, TrainState]:
    """Model, settings and last state of a run; the initial state of a new run."""
    model = model_from_config(config["model"])
    train_config, hparams = TrainConfig(**config["train"]), Hyperparams(**config["hparams"])
    state = init(model, train_config, hparams, run_key(config["seed"]))
    last = run / "checkpoints" / "last"
    if checkpoint.latest_step(last) is not None:
        state = checkpoint.restore(last, state)
    # Steps after the last checkpoint are repeated. A best state of theirs would hide the one found again.
    checkpoint.remove_later(run / "checkpoints" / "best", int(state.step))
    return model, train_config, hparams, state


def _save(run: Path, state: TrainState, best_state: TrainState | None) -> None:
    """Save the last and the best state, unless they are saved already."""
    # The best first: if killed between the two, the run continues from the older `last` and finds the best again.
    for name, one, keep in (("best", best_state, 1), ("last", state, 2)):
        if one is not None and checkpoint.latest_step(run / "checkpoints" / name) != int(one.step):
            checkpoint.save(run / "checkpoints" / name, one, keep=keep)


def validated_by(config: Config) -> Objective | None:
    """The objective of `validation_elbo`; None for the ELBO."""
    return None if objective_of(config).name == "vae" else terms_of(config)


def validation_elbo(
    model: Model,
    params: Params,
    images: np.ndarray,
    hparams: Hyperparams,
    *,
    objective: Objective | None = None,
    mesh: Mesh | None = None,
) -> float:
    """Mean -(beta KL + NLL) of images in nats; higher is better.

    Args:
      objective: computes the two terms, with a fixed key for its corruption and its draws; None: the ELBO at z = mean.
      mesh: as of `score_batches`.
    """
    if objective is not None:
        return _validation_by_objective(objective, model, params, images, hparams)
    settings = {"batch_size": VALIDATION_BATCH, "maps": (), "mesh": mesh}
    batches = score_batches(model, params, images, log_scale=float(hparams.log_scale), **settings)
    return -float(np.mean(np.concatenate([hparams.beta * batch.samples.kl + batch.samples.nll for batch in batches])))


def _validation_by_objective(
    objective: Objective, model: Model, params: Params, images: np.ndarray, hparams: Hyperparams
) -> float:
    """Mean -(beta KL + NLL) of images, as an objective computes them."""
    total = 0.0
    for start in range(0, len(images), VALIDATION_BATCH):
        batch = jnp.asarray(as_float(images[start : start + VALIDATION_BATCH]))
        key = jax.random.fold_in(run_key(0), start)
        total += float(_summed_loss(params, batch, key, hparams, objective=objective, model=model))
    return -total / len(images)


@partial(jax.jit, static_argnames=("objective", "model"))
def _summed_loss(
    params: Params, images: Array, key: Key, hparams: Hyperparams, *, objective: Objective, model: Model
) -> Array:
    """The sum of beta KL + NLL over images, []."""
    terms = objective(model, params, images, key, log_scale=hparams.log_scale)
    return jnp.sum(negative_elbo(terms, beta=hparams.beta))


def steps_to_go(step: int, epoch: int) -> int:
    """Steps of the next program: to the end of the epoch, or a part of a long epoch.

    The parts of an epoch have at most two lengths, which differ by a few steps, so few programs are compiled.
    """
    chunk = math.ceil(epoch / math.ceil(epoch / LONGEST_CHUNK))
    return min(chunk, epoch - step % epoch)


def _means(run: Path, step: int, metrics: StepMetrics) -> dict[str, float]:
    """The mean of each metric [S] by name, over the steps that follow `step`."""
    means = {}
    for name, array in metrics._asdict().items():
        values = np.asarray(array)
        bad = int(np.argmin(np.isfinite(values)))
        _refuse_nan(run, name, step + bad + 1, values[bad])
        means[name] = float(np.mean(values))
    return means


def _refuse_nan(run: Path, name: str, step: int, value: float) -> None:
    if math.isfinite(value):
        return
    kept = checkpoint.latest_step(run / "checkpoints" / "last")
    rest, place = ("", "") if kept is None else (f" (the checkpoint of step {kept} is kept)", ", in a new folder")
    way_out = "give a lower `learning_rate`, or `clip_norm`"
    if step == 1:
        rest, way_out = ", before the first update", "give a `log_scale` nearer to 0, or look at the images"
    raise InputError(f"{run}: {name} became {value} at step {step}{rest}; {way_out}{place}")


def _best(records: Sequence[Record]) -> Record | None:
    """The record with the best validation ELBO, the first of equals."""
    validated = (record for record in records if "validation_elbo" in record)
    return max(validated, key=lambda record: record["validation_elbo"], default=None)


def _gave_up(records: Sequence[Record], patience: int | None) -> bool:
    """Whether `patience` epochs have passed since the best one."""
    validated = [record for record in records if "validation_elbo" in record]
    best = _best(validated)
    return patience is not None and best is not None and len(validated) - 1 - validated.index(best) >= patience


def _ending(step: int, total: int, records: Sequence[Record], patience: int | None) -> Ending:
    if step < total and not _gave_up(records, patience):
        return Ending(False, f"stopped by a signal at step {step} of {total}")
    best = _best(records)
    kept = f", the best is that of step {best['step']}" if patience is not None and best is not None else ""
    if step < total:
        return Ending(True, f"stopped at step {step}, after {patience} epochs without a better validation ELBO{kept}")
    return Ending(True, f"trained for {step} steps{kept}")


def _rewind(path: Path, step: int) -> list[Record]:
    """Cut later records, and the half line of a killed process, off metrics.jsonl. Returns the records up to `step`."""
    way_out = "restore it, or remove it and lose its records"
    records = [record for record in files.read_lines(path, LOGGED, way_out=way_out) if record["step"] <= step]
    files.write_lines(path, records)
    return records


def _postfix(record: Record) -> str:
    validation = f", validation ELBO {record['validation_elbo']:.1f}" if "validation_elbo" in record else ""
    return f"loss {record['loss']:.1f}{validation}"
