"""What a run says about images, and where that lies in its folder.

scores/samples.jsonl     one line an image: name, group, kind, label, elbo, kl, nll
scores/<map>.npy         [N, H, W, 1] float32, in the order of the lines; mean over the channels
scores/reconstructions.npy
evaluation.json          the tables, the thresholds, and what they were made from
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jaxvae import files, parity
from jaxvae.checkpoint import Run
from jaxvae.data.dataset import Dataset
from jaxvae.errors import InputError
from jaxvae.scores import MAPS, score_batches

SAMPLES: tuple[str, ...] = ("elbo", "kl", "nll")


@dataclass(frozen=True)
class Scored:
    """Scores of N images, on the host."""

    samples: dict[str, np.ndarray]  # [N] each: elbo, kl, nll
    maps: dict[str, np.ndarray]  # [N, H, W, 1] each
    reconstructions: np.ndarray  # [N, H, W, C]; [0, ...] where no maps were wanted


def score_dataset(
    run: Run, images: np.ndarray, *, maps: Sequence[str] = MAPS, batch_size: int = 64, name: str = "score"
) -> Scored:
    """Every score of images that were prepared as the run's own.

    A run trained with the released arithmetic gets its sample scores by the released rule too, at a draw of z.

    Args:
      images: [N, H, W, C], uint8 or float32.
      maps: which maps to compute; with none the reconstructions are left out too.
      name: of the progress bar, which shows on a terminal only.
    """
    log_scale = run.config["hparams"]["log_scale"]
    shape = (*images.shape[:3], 1)
    filled = {map_name: np.empty(shape, np.float32) for map_name in maps}
    reconstructions = np.empty(images.shape if maps else (0, *images.shape[1:]), np.float32)
    samples: list[np.ndarray] = []
    batches = score_batches(
        run.model,
        run.params,
        images,
        log_scale=log_scale,
        batch_size=batch_size,
        maps=maps,
        reconstructions=bool(maps),
    )
    start = 0
    with tqdm(total=len(images), unit="image", desc=name, disable=None, dynamic_ncols=True) as bar:
        for batch in batches:
            samples.append(np.stack(batch.samples))
            stop = start + samples[-1].shape[1]
            for map_name, values in batch.maps.items():
                np.mean(values, axis=-1, keepdims=True, out=filled[map_name][start:stop])
            if batch.reconstructions is not None:
                reconstructions[start:stop] = batch.reconstructions
            bar.update(stop - start)
            start = stop
    if run.config["arithmetic"] == "released":
        samples = _released_samples(run, images, log_scale)
    columns = dict(zip(SAMPLES, np.concatenate(samples, axis=1), strict=True))
    return Scored(columns, filled, reconstructions)


def _released_samples(run: Run, images: np.ndarray, log_scale: float) -> list[np.ndarray]:
    """[3, n] of every thousand images; the draws of a thousand depend on the run's seed and their place."""
    key = jax.random.key(run.config["seed"])
    parts = []
    for number, start in enumerate(range(0, len(images), 1000)):
        part = images[start : start + 1000]
        draw = jax.random.fold_in(key, number)
        parts.append(np.stack(parity.sample_scores(run.model, run.params, part, draw, log_scale=log_scale)))
    return parts


def check_shape(run: Run, images: np.ndarray, where: str) -> None:
    """Refuses images that the run's model cannot read.

    Raises:
      InputError: another size or number of channels than the run was trained on.
    """
    found, wanted = tuple(images.shape[1:]), tuple(run.model.image_shape)
    if found != wanted:
        raise InputError(
            f"{where}: the images are {_size(found)} once prepared, and the run was trained on {_size(wanted)}; "
            "bring them to that size and those channels, or train a run with --size and --channels"
        )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]} with {shape[2]} channel{'s' if shape[2] != 1 else ''}"


def write_scores(directory: Path, dataset: Dataset, scored: Scored) -> None:
    """The scores of a data set into a folder; each file appears whole or not at all."""
    for name, values in {**scored.maps, "reconstructions": scored.reconstructions}.items():
        if len(values):
            with files.replacing(directory / f"{name}.npy") as file:
                np.save(file, values)
    write_samples(directory / "samples.jsonl", dataset, scored)


def write_samples(path: Path, dataset: Dataset, scored: Scored) -> None:
    """One line an image."""
    known = zip(dataset.names, dataset.groups, dataset.kinds, dataset.labels.tolist(), strict=True)
    records = [
        {"name": name, "group": group, "kind": kind, "anomalous": anomalous}
        | {score: float(values[i]) for score, values in scored.samples.items()}
        for i, (name, group, kind, anomalous) in enumerate(known)
    ]
    files.write_lines(path, records)


def read_evaluation(run_directory: Path) -> dict[str, Any]:
    """evaluation.json of a run.

    Raises:
      InputError: not evaluated yet.
    """
    path = run_directory / "evaluation.json"
    if not path.is_file():
        raise InputError(f"{run_directory}: not evaluated yet; run `jaxvae evaluate {run_directory}` first")
    return json.loads(path.read_text())
