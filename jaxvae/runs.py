"""A run in its folder: made, trained in equal chunks, stopped and continued.

Between two chunks live the checkpoint, the validation, early stopping, the progress bar and the answer to a signal; the
chunks themselves are `jaxvae.fit`. What a continued run needs beyond its checkpoint it reads from metrics.jsonl.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxvae import checkpoint, files, parity
from jaxvae.data.dataset import Splits
from jaxvae.elbo import elbo_terms
from jaxvae.errors import InputError
from jaxvae.models import Model
from jaxvae.scores import score_batches
from jaxvae.train import Hyperparams, Objective, TrainConfig, TrainState, fit, init
from jaxvae.types import Params

Config = dict[str, Any]
Record = dict[str, Any]

LONGEST_CHUNK = 500  # Steps a program; signals are answered and the bar moves between programs.
OBJECTIVES: dict[str, Objective] = {"corrected": elbo_terms, "released": parity.dense_elbo_terms}


def claim(run: Path, config: Config) -> None:
    """Writes config.json into a new folder, or holds the configuration against the one that is there.

    Of a run that is there only the number of epochs may change: upwards, where the learning rate does not depend on it.

    Raises:
      InputError: the folder holds something else, or a run made with another configuration.
    """
    if not (run / "config.json").exists():
        if run.exists() and (not run.is_dir() or any(not path.name.startswith(".") for path in run.iterdir())):
            raise InputError(f"{run}: is there already and is no run (no config.json); name a new folder")
        files.write_json(run / "config.json", config)
        return
    there = checkpoint.read_config(run)
    may_grow = config["train"]["schedule"] != "cosine" and config["epochs"] >= there.get("epochs", math.inf)
    for key in config.keys() - ({"jaxvae", "epochs"} if may_grow else {"jaxvae"}):
        if there.get(key) != config[key]:
            raise InputError(
                f"{run}: made with another {_difference(key, there.get(key), config[key])}; name a new folder"
            )
    if there != config:
        files.write_json(run / "config.json", config)


def _difference(key: str, there: Any, here: Any) -> str:
    """`hparams.beta (1.0 there, 2.0 now)`: the first value that differs."""
    if isinstance(there, dict) and isinstance(here, dict):
        changed = next(name for name in here if there.get(name) != here[name])
        return _difference(f"{key}.{changed}", there.get(changed), here[changed])
    return f"{key} ({there} there, {here} now)"


def train(run: Path, config: Config, splits: Splits, *, checkpoint_seconds: float = 30.0) -> str:
    """Trains a claimed run to its last epoch, from wherever it was left; returns one sentence on how it ended.

    A run that was killed and continued gives bit for bit the weights of one that was not. SIGTERM and Ctrl-C write a
    checkpoint after the current chunk and return.

    Args:
      checkpoint_seconds: at least so much time lies between two checkpoints; one is written at the end in any case.
    Raises:
      InputError: the loss became NaN or infinite; the last good checkpoint is kept.
    """
    model = checkpoint.model_from_config(config["model"])
    train_config, hparams = TrainConfig(**config["train"]), Hyperparams(**config["hparams"])
    last, best = run / "checkpoints" / "last", run / "checkpoints" / "best"
    state = init(model, train_config, hparams, jax.random.key(config["seed"]))
    if checkpoint.latest_step(last) is not None:
        state = checkpoint.restore(last, state)
    step = int(state.step)
    records = _rewind(run / "metrics.jsonl", step)
    chunk, total = _chunks(len(splits.train), train_config.batch_size, config["epochs"])
    if step >= total or _gave_up(records, config["patience"]):
        return f"already trained for {step} steps; raise --epochs to go on"
    images = jnp.asarray(splits.train.images)
    best_state: TrainState | None = None
    started = saved = time.perf_counter()

    def save(state: TrainState) -> None:
        # The best first: killed between the two, the run goes on from the older `last` and finds the same best again.
        if best_state is not None and checkpoint.latest_step(best) != int(best_state.step):
            checkpoint.save(best, best_state, keep=1)
        checkpoint.save(last, state)

    with _signals() as received, (run / "metrics.jsonl").open("a") as log, _bar(total, step) as bar:
        while step < total and not received and not _gave_up(records, config["patience"]):
            steps = min(chunk, total - step)
            objective = OBJECTIVES[config["arithmetic"]]
            state, metrics = fit(model, train_config, hparams, state, images, steps=steps, objective=objective)
            _refuse_nan(run, step, np.asarray(metrics.loss))
            step += steps
            record = {"step": step, **{name: float(np.mean(values)) for name, values in metrics._asdict().items()}}
            if len(splits.validation):
                record["validation_elbo"] = validation_elbo(model, state.params, splits.validation.images, hparams)
            record["seconds"] = round(time.perf_counter() - started, 3)
            log.write(json.dumps(record) + "\n")
            log.flush()
            records.append(record)
            if config["patience"] is not None and _best(records) == len(records) - 1:
                best_state = jax.tree.map(jnp.copy, state)  # A copy, since the next chunk consumes the state.
            bar.update(steps)
            bar.set_postfix_str(_postfix(record))
            if time.perf_counter() - saved > checkpoint_seconds:
                save(state)
                saved = time.perf_counter()
        save(state)
    if _gave_up(records, config["patience"]):
        return f"stopped early at step {step}: no better validation ELBO for {config['patience']} rounds"
    if step < total:
        return f"stopped at step {step} of {total} on a signal; the same command goes on from there"
    return f"trained for {step} steps"


def validation_elbo(model: Model, params: Params, images: np.ndarray, hparams: Hyperparams) -> float:
    """The mean of -(beta KL + NLL) over images at z = mean, in nats; higher is better."""
    batches = score_batches(model, params, images, log_scale=float(hparams.log_scale), batch_size=256, maps=())
    return -float(np.mean(np.concatenate([hparams.beta * batch.samples.kl + batch.samples.nll for batch in batches])))


def _chunks(count: int, batch_size: int, epochs: int) -> tuple[int, int]:
    """(steps a program, steps in all): an epoch a program, or an equal part of one where epochs are long."""
    steps_per_epoch = count // batch_size
    return math.ceil(steps_per_epoch / math.ceil(steps_per_epoch / LONGEST_CHUNK)), steps_per_epoch * epochs


def _refuse_nan(run: Path, step: int, losses: np.ndarray) -> None:
    finite = np.isfinite(losses)
    if not finite.all():
        bad = int(np.argmin(finite))
        kept = checkpoint.latest_step(run / "checkpoints" / "last")
        rest = "no checkpoint had been written" if kept is None else f"the checkpoint of step {kept} is kept"
        raise InputError(
            f"{run}: the loss became {losses[bad]} at step {step + bad + 1} ({rest}); "
            "in a new folder, lower --learning-rate or set --clip-norm"
        )


def _best(records: list[Record]) -> int:
    """The place of the best validation; of equals the first."""
    return int(np.argmax([record["validation_elbo"] for record in records]))


def _gave_up(records: list[Record], patience: int | None) -> bool:
    return patience is not None and bool(records) and len(records) - 1 - _best(records) >= patience


def _rewind(path: Path, step: int) -> list[Record]:
    """The records up to a step; those past it, and the half line of a killed process, are cut off the file."""
    records = [record for record in files.read_lines(path) if record["step"] <= step]
    files.write_lines(path, records)
    return records


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that SIGTERM and Ctrl-C fill, so that the loop can end at a clean point; a second Ctrl-C interrupts."""
    received: list[int] = []

    def receive(number: int, _: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bar(total: int, step: int) -> tqdm:
    # disable=None is silence where stderr is no terminal.
    return tqdm(total=total, initial=step, unit="step", desc="train", disable=None, dynamic_ncols=True)


def _postfix(record: Record) -> str:
    validation = f", validation ELBO {record['validation_elbo']:.1f}" if "validation_elbo" in record else ""
    return f"loss {record['loss']:.1f}{validation}"
