"""A run in its folder: made, trained in equal chunks, stopped and continued.

Between two chunks live the checkpoint, the validation, early stopping, the progress bar and the answer to a signal; the
chunks themselves are `jaxvae.fit`. What a continued run needs beyond its checkpoint it reads from metrics.jsonl.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae import files, parity
from jaxvae.augment import Augmentation
from jaxvae.data.dataset import Fingerprint, Splits, same_fingerprint
from jaxvae.errors import ArgumentError, InputError
from jaxvae.models import Model
from jaxvae.objectives.elbo import elbo_terms
from jaxvae.progress import Bar
from jaxvae.runs import checkpoint, signals
from jaxvae.scores.batches import score_batches
from jaxvae.train import Augment, Hyperparams, Objective, TrainConfig, TrainState, fit, init, run_key
from jaxvae.types import Params, StepMetrics

Config = dict[str, Any]
Record = dict[str, Any]

# What config.json says of the images that is no flag: how many there are, and which.
IMAGES = ("images.train", "images.validation", "images.test", "images.learnt_from", "images.contents")
# What there must be in a line of metrics.jsonl.
LOGGED = {"step": int} | dict.fromkeys(("seconds", "loss", "nll", "kl", "validation_elbo?"), int | float)
QUIET_SECONDS = 60.0  # Between two lines of progress where stderr is no terminal, on which the bar shows.
LONGEST_CHUNK = 500  # Steps a program; signals are answered and the bar moves between programs.
OBJECTIVES: dict[str, Objective] = {"corrected": elbo_terms, "released": parity.dense_elbo_terms}
AUGMENTATIONS: dict[str, Augment | None] = {"none": None, "paper": Augmentation()}


class Ending(NamedTuple):
    """How training came to its end."""

    finished: bool  # False where the same command has something left to do
    words: str


def claim(run: Path, config: Config) -> None:
    """Writes config.json into a new folder, or holds the configuration against the one that is there.

    Of a run that is there only the number of epochs may change: upwards, where the learning rate does not depend on it.
    One that has no checkpoint yet has learnt nothing, and is made anew.

    Raises:
      InputError: the folder holds something else, or a run made with another configuration.
    """
    if not (run / "config.json").exists():
        try:
            os.fspath(run).encode()
        except UnicodeEncodeError:
            raise InputError(f"{run}: checkpoints need a name that is text; name another folder") from None
        if run.exists() and (not run.is_dir() or any(not path.name.startswith(".") for path in run.iterdir())):
            raise InputError(f"{run}: is there already and is no run (no config.json); name a new folder")
        files.write_json(run / "config.json", config)
        return
    there = checkpoint.read_config(run)
    if checkpoint.latest_step(run / "checkpoints" / "last") is None:
        with files.locked(run):
            for name in ("metrics.jsonl", "thresholds.json", "trained_on.jsonl"):
                (run / name).unlink(missing_ok=True)
            files.write_json(run / "config.json", config)
        return
    _refuse_epochs(run, there, config)
    before, now = {"augment": "none"} | files.flat(there), files.flat(config)
    same = same_images(there, config)
    # The flags of the images first, which change what follows from the images too. The place may change.
    of_data = [name for name in now if name.startswith("data.") and not (same and name == "data.data")]
    _refuse_changed(run, before, now, of_data)
    named = "images.learnt_from" in before
    if same is None and named:
        same = before["images.learnt_from"] == now["images.learnt_from"]
    if same is False:
        raise InputError(
            f"{run}: was made from other images than there are now in {now['data.data']}; "
            "bring those back to continue it, or name a new folder"
        )
    free = ("jaxvae", "epochs", *of_data, "data.data", "images.contents", *(IMAGES if named else ()))
    _refuse_changed(run, before, now, [name for name in now if name not in free])
    if there != config:
        files.write_json(run / "config.json", config)


def same_images(there: Config, here: Config) -> bool | None:
    """Whether two configurations are of the same training and validation images, wherever these lie.

    None if that is unknown: runs of earlier versions have a fingerprint of names only.
    """
    return same_fingerprint(fingerprint_of(there), fingerprint_of(here))


def fingerprint_of(config: Config) -> Fingerprint | None:
    """What tells the images of a run from others: the hash of its volumes, or `contents`; None in earlier versions."""
    volumes = config.get("volumes")
    return volumes.get("hash") if volumes else config.get("images", {}).get("contents")


def _refuse_changed(run: Path, before: Config, now: Config, names: Sequence[str]) -> None:
    for name in names:
        if before.get(name) != now[name]:
            raise InputError(
                f"{run}: was made with {name} {before.get(name)} and now it is {now[name]}; "
                "repeat the flags it was made with to continue it, or name a new folder"
            )


def _refuse_epochs(run: Path, there: Config, here: Config) -> None:
    before, now = there["epochs"], here["epochs"]
    if now < before:
        raise ArgumentError("epochs", now, f"{run} was made for {before}; give as many or more, or name a new folder")
    if now > before and here["train"]["schedule"] == "cosine":
        raise ArgumentError("epochs", now, f"the cosine schedule of {run} ended with epoch {before}; name a new folder")


def train(
    run: Path, config: Config, splits: Splits, *, checkpoint_seconds: float = 30.0, stop: Sequence[int] = ()
) -> Ending:
    """Trains a claimed run to its last epoch, from wherever it was left.

    A run that was killed and continued gives bit for bit the weights of one that was not. Once `stop` holds something,
    or after Ctrl-C, the current chunk is finished, a checkpoint written, and that is all.

    Args:
      checkpoint_seconds: at least so much time lies between two checkpoints; one is written at the end in any case.
      stop: a list that may fill while this goes on, such as that of `signals.noted`.
    Raises:
      InputError: the loss became NaN or infinite; the last good checkpoint is kept.
    """
    model, train_config, hparams, state = _as_it_was_left(run, config)
    objective, patience = OBJECTIVES[config["arithmetic"]], config["patience"]
    # Runs that were made before there was a choice do not say; they had none, and `claim` continues them as such.
    augment = AUGMENTATIONS[config.get("augment", "none")]
    step = int(state.step)
    records = _rewind(run / "metrics.jsonl", step)
    epoch = len(splits.train) // train_config.batch_size
    total = epoch * config["epochs"]
    if step >= total or _gave_up(records, patience):
        ending = _ending(step, total, records, patience)
        return ending._replace(words=f"{ending.words}, nothing is left to do")
    images = jnp.asarray(splits.train.images)
    best_state: TrainState | None = None
    saved = told = time.perf_counter()
    started = saved - (records[-1]["seconds"] if records else 0.0)
    with signals.noted(signal.SIGINT) as interrupted, Bar(total=total, initial=step, unit="step", desc="train") as bar:
        while step < total and not stop and not interrupted and not _gave_up(records, patience):
            steps = steps_to_go(step, epoch)
            state, metrics = fit(
                model, train_config, hparams, state, images, steps=steps, objective=objective, augment=augment
            )
            means = _means(run, step, metrics)
            step += steps
            record: Record = {"step": step, **means}
            if step % epoch == 0 and len(splits.validation):
                record["validation_elbo"] = validation_elbo(model, state.params, splits.validation.images, hparams)
                _refuse_nan(run, "validation ELBO", step, record["validation_elbo"])
            record["seconds"] = round(time.perf_counter() - started, 3)
            files.append_lines(run / "metrics.jsonl", [record])
            records.append(record)
            if patience is not None and record is _best(records):
                best_state = jax.tree.map(jnp.copy, state)  # A copy, since the next chunk consumes the state.
            bar.update(steps)
            bar.set_postfix_str(_postfix(record))
            if bar.disable and time.perf_counter() - told > QUIET_SECONDS:
                print(f"{run}: step {step} of {total}, {_postfix(record)}", file=sys.stderr, flush=True)
                told = time.perf_counter()
            if time.perf_counter() - saved > checkpoint_seconds:
                _save(run, state, best_state)
                saved = time.perf_counter()
        _save(run, state, best_state)
    return _ending(step, total, records, patience)


def _as_it_was_left(run: Path, config: Config) -> tuple[Model, TrainConfig, Hyperparams, TrainState]:
    """What a run is made of, and its last state, or the first one of a new run."""
    model = checkpoint.model_from_config(config["model"])
    train_config, hparams = TrainConfig(**config["train"]), Hyperparams(**config["hparams"])
    state = init(model, train_config, hparams, run_key(config["seed"]))
    last = run / "checkpoints" / "last"
    if checkpoint.latest_step(last) is not None:
        state = checkpoint.restore(last, state)
    # A best state of later steps, which are done again, would be taken for one that is found then.
    checkpoint.remove_later(run / "checkpoints" / "best", int(state.step))
    return model, train_config, hparams, state


def _save(run: Path, state: TrainState, best_state: TrainState | None) -> None:
    """Both states, unless they are there already."""
    last, best = run / "checkpoints" / "last", run / "checkpoints" / "best"
    # The best first: killed between the two, the run goes on from the older `last` and finds the same best again.
    if best_state is not None and checkpoint.latest_step(best) != int(best_state.step):
        checkpoint.save(best, best_state, keep=1)
    if checkpoint.latest_step(last) != int(state.step):
        checkpoint.save(last, state)


def validation_elbo(model: Model, params: Params, images: np.ndarray, hparams: Hyperparams) -> float:
    """The mean of -(beta KL + NLL) over images at z = mean, in nats; higher is better."""
    batches = score_batches(model, params, images, log_scale=float(hparams.log_scale), batch_size=256, maps=())
    return -float(np.mean(np.concatenate([hparams.beta * batch.samples.kl + batch.samples.nll for batch in batches])))


def steps_to_go(step: int, epoch: int) -> int:
    """Steps of the next program: to the end of the epoch, or a part of it where epochs are long, of two lengths at most
    that differ by a few steps."""
    chunk = math.ceil(epoch / math.ceil(epoch / LONGEST_CHUNK))
    return min(chunk, epoch - step % epoch)


def _means(run: Path, step: int, metrics: StepMetrics) -> dict[str, float]:
    """By name, the mean of each metric, [S], over the steps that follow `step`."""
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
    way_out = "give a lower --learning-rate, or --clip-norm"
    if step == 1:
        rest, way_out = ", before anything was learnt", "give a --log-scale nearer to 0, or look at the images"
    raise InputError(f"{run}: {name} became {value} at step {step}{rest}; {way_out}{place}")


def _best(records: Sequence[Record]) -> Record | None:
    """The record of the best validation; of equals the first."""
    validated = [record for record in records if "validation_elbo" in record]
    return max(validated, key=lambda record: record["validation_elbo"], default=None)


def _gave_up(records: Sequence[Record], patience: int | None) -> bool:
    """Whether `patience` epochs have gone by since the best one."""
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
    """The records up to a step; those past it, and the half line of a killed process, are cut off the file."""
    way_out = "restore it, or remove it and lose what it says"
    records = [record for record in files.read_lines(path, LOGGED, way_out=way_out) if record["step"] <= step]
    files.write_lines(path, records)
    return records


def _postfix(record: Record) -> str:
    validation = f", validation ELBO {record['validation_elbo']:.1f}" if "validation_elbo" in record else ""
    return f"loss {record['loss']:.1f}{validation}"
