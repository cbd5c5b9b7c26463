"""The scores of a data set as files in a folder.

samples.jsonl          one line per image: name, group, kind, anomalous, elbo, kl, nll, and image scores of methods
<map>.npy              [N, H, W, 1] float32, in the order of the lines; the mean over channels
reconstructions.npy    [N, H, W, C] float32
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxvae import files
from jaxvae.data.dataset import Dataset
from jaxvae.errors import ArgumentError, InputError, command
from jaxvae.runs import run_images
from jaxvae.runs.fitting import fit_scores
from jaxvae.runs.run import Run
from jaxvae.runs.run_scores import check_shape, score_dataset
from jaxvae.scores import IMAGE_SCORES, of_whole_images, per_pixel
from jaxvae.scores.batches import Scores


def score_own_test(
    run: Run, out: Path | None = None, *, maps: Sequence[str] | None = None, batch_size: int | None = None
) -> tuple[Path, int]:
    """Score the run's own test images: what `jaxvae score RUN` does.

    Returns:
      The output folder, RUN/scores if `out` is None; and the number of images.

    Raises:
      InputError: there are no test images, they do not fit the run, or `out` holds the maps of a folder.
    """
    splits, out = run_images.open_own(run), out or run.run_dir / "scores"
    test, maps = splits.test, run.maps if maps is None else maps
    if len(test) == 0:
        way_out = f"name a folder: {command('score', run.run_dir, 'FOLDER')}"
        raise InputError(f"{run.run_dir}: its data have no test images; {way_out}")
    if (out / "images.json").is_file():
        raise ArgumentError("out", out, "holds the maps of a folder; name another folder")
    check_shape(run, test.images, run.config["data"]["data"])
    fit_scores(run, maps, own=lambda: splits)
    write(out, test, score_dataset(run, test, maps=maps, batch_size=batch_size))
    return out, len(test)


def write(folder: Path, dataset: Dataset, scores: Scores) -> None:
    """Write the scores of a data set into a folder, each file atomically."""
    for name, values in {**scores.maps, "reconstructions": scores.reconstructions}.items():
        if len(values):
            with files.replacing(folder / f"{name}.npy") as file:
                np.save(file, values)
    facts = zip(dataset.names, dataset.groups, dataset.kinds, dataset.labels.tolist(), strict=True)
    records = [
        {"name": name, "group": group, "kind": kind, "anomalous": anomalous}
        | {score: float(values[i]) for score, values in scores.image_scores.items()}
        for i, (name, group, kind, anomalous) in enumerate(facts)
    ]
    files.write_lines(folder / "samples.jsonl", records)


def read(folder: Path, dataset: Dataset, maps: Sequence[str], *, again: str) -> Scores:
    """Read the scores that `write` left in a folder. Maps are memory-mapped.

    Args:
      again: the command that writes them.
    Raises:
      InputError: they belong to other images, or a file is missing or damaged.
    """
    again, others = f"run {again} again", of_whole_images(maps)
    try:
        facts = dict.fromkeys((*IMAGE_SCORES, *others), int | float) | {"name": str}
        records = files.read_lines(folder / "samples.jsonl", facts)
    except InputError:
        records = []
    if [record["name"] for record in records] != list(dataset.names):
        raise InputError(f"{folder}: not the scores of the {len(dataset)} test images; {again}")
    arrays = {}
    for name in (*per_pixel(maps), "reconstructions") if maps else ():
        arrays[name] = files.open_array(folder / f"{name}.npy", way_out=again)
        channels = dataset.images.shape[3] if name == "reconstructions" else 1
        if arrays[name].shape != (*dataset.images.shape[:3], channels) or arrays[name].dtype != np.float32:
            raise InputError(f"{folder / name}.npy: damaged, its shape or type is not that of the images; {again}")
    reconstructions = arrays.pop("reconstructions", np.empty((0,)))
    image_scores = {name: np.array([record[name] for record in records]) for name in (*IMAGE_SCORES, *others)}
    return Scores(arrays, image_scores, reconstructions)
