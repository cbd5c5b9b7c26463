"""What a run says about images, and where that lies in its folder.

scores/samples.jsonl     one line an image: name, group, kind, anomalous, elbo, kl, nll
scores/<map>.npy         [N, H, W, 1] float32, in the order of the lines; mean over the channels
scores/reconstructions.npy
evaluation.json          the tables, the thresholds, and what they were made from
measures/                while whole volumes are being judged: what is measured of each, to go on from when stopped
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae import files, sharding
from jaxvae.data.dataset import Dataset, Fingerprint, contents, same_fingerprint
from jaxvae.errors import InputError, command
from jaxvae.models import Model
from jaxvae.parity import ARITHMETICS
from jaxvae.population.score_many import score_many
from jaxvae.progress import Bar
from jaxvae.runs import checkpoint
from jaxvae.runs.checkpoint import Run
from jaxvae.scores import IMAGE_SCORES, MAPS
from jaxvae.scores.batches import BATCH, score_batches
from jaxvae.train import run_key
from jaxvae.types import Params, SampleScores

SAMPLES = tuple(IMAGE_SCORES)
# What there must be in evaluation.json.
EVALUATION = {"step": int} | dict.fromkeys(("data", "images", "pixels", "samples", "thresholds"), object)


@dataclass(frozen=True)
class Scored:
    """Scores of N images, on the host."""

    samples: dict[str, np.ndarray]  # [N] each: elbo, kl, nll
    maps: dict[str, np.ndarray]  # [N, H, W, 1] each
    reconstructions: np.ndarray  # [N, H, W, C]; [0, ...] where no maps were wanted


def score_dataset(
    run: Run,
    dataset: Dataset,
    *,
    maps: Sequence[str] = MAPS,
    reconstructions: bool = True,
    batch_size: int = BATCH,
    name: str = "score",
) -> Scored:
    """Every score of images that were prepared as the run's own.

    Args:
      dataset: the images, uint8 or float32.
      maps: which maps to compute.
      reconstructions: keep them too, where there are maps.
      batch_size: images at a time, on each device of this process.
      name: of the progress bar, which shows on a terminal only.
    Raises:
      InputError: a score is NaN or infinite, as the values of an image are far out of range.
    """
    kept = reconstructions and bool(maps)
    scored = score_as_trained(run, dataset.images, maps=maps, reconstructions=kept, batch_size=batch_size, name=name)
    _, reasons = finite(scored, dataset.names)
    if reasons:
        raise InputError(next(iter(reasons.values())))
    return scored


def score_as_trained(
    run: Run,
    images: np.ndarray,
    *,
    maps: Sequence[str] = MAPS,
    reconstructions: bool = False,
    batch_size: int = BATCH,
    name: str | None = None,
) -> Scored:
    """`score_images` with what a run was trained with.

    A run trained with the released arithmetic gets its sample scores by the released rule too, at a draw of z.
    """
    log_scale = run.config["hparams"]["log_scale"]
    scored = score_images(
        run.model,
        run.params,
        images,
        log_scale=log_scale,
        maps=maps,
        reconstructions=reconstructions,
        batch_size=batch_size,
        name=name,
    )
    arithmetic = ARITHMETICS[run.config["arithmetic"]]
    if arithmetic.at_draw:
        at_draw = _samples_at_draw(run, images, log_scale, arithmetic.sample_scores)
        scored = replace(scored, samples=dict(zip(SAMPLES, at_draw, strict=True)))
    return scored


def score_images(
    model: Model,
    params: Params,
    images: np.ndarray,
    *,
    log_scale: float,
    maps: Sequence[str] = MAPS,
    reconstructions: bool = False,
    batch_size: int = BATCH,
    name: str | None = None,
) -> Scored:
    """Every score of images, on the host; maps are averaged over channels. Without a name there is no bar."""
    filled = {map_name: np.empty((*images.shape[:3], 1), np.float32) for map_name in maps}
    kept = np.empty(images.shape if reconstructions else (0, *images.shape[1:]), np.float32)
    columns = {score: np.empty(len(images), np.float32) for score in SAMPLES}
    batches = score_batches(
        model,
        params,
        images,
        log_scale=log_scale,
        batch_size=batch_size,
        maps=maps,
        reconstructions=reconstructions,
        mesh=sharding.own_mesh(),
    )
    start, silent = 0, True if name is None else None
    with Bar(total=len(images), unit="image", desc=name, disable=silent) as bar:
        for batch in batches:
            part = slice(start, start + len(batch.samples.elbo))
            for score, values in batch.samples._asdict().items():
                columns[score][part] = values
            for map_name, values in batch.maps.items():
                np.mean(values, axis=-1, keepdims=True, out=filled[map_name][part])
            if batch.reconstructions is not None:
                kept[part] = batch.reconstructions
            bar.update(part.stop - start)
            start = part.stop
    return Scored(columns, filled, kept)


def finite(scored: Scored, names: Sequence[str]) -> tuple[np.ndarray, dict[int, str]]:
    """Which images have numbers for all their scores, [N] bool; of the others, by their place, what is to be said."""
    reasons: dict[int, str] = {}
    for score, values in {**scored.samples, **scored.maps}.items():
        for i in np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))).tolist():
            reasons.setdefault(
                i,
                f"{names[i]}: its {score} is NaN or infinite; "
                "bring its values to the range of the images the run was trained on, or leave it out",
            )
    return np.array([i not in reasons for i in range(len(names))], dtype=bool), reasons


def take(scored: Scored, index: np.ndarray) -> Scored:
    """The scores of the images at `index`, [N] bool; without reconstructions."""
    samples, maps = ({name: array[index] for name, array in part.items()} for part in (scored.samples, scored.maps))
    return Scored(samples, maps, scored.reconstructions[:0])


def _samples_at_draw(
    run: Run, images: np.ndarray, log_scale: float, sample_scores: Callable[..., SampleScores]
) -> np.ndarray:
    """[3, N], as a sweep scores the runs of a population: the draws depend on the run's seed and an image's place."""
    params, keys = jax.tree.map(lambda leaf: leaf[None], (run.params, run_key(run.config["seed"])))
    on_device = jnp.asarray(images)
    scores = score_many(run.model, params, on_device, keys, log_scale=log_scale, score=sample_scores)
    return np.stack(scores)[:, 0]


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


def write_samples(path: Path, dataset: Dataset, scored: Scored, *, labelled: bool = True) -> None:
    """One line an image; without labels its name and scores only."""
    known = zip(dataset.names, dataset.groups, dataset.kinds, dataset.labels.tolist(), strict=True)
    records = [
        {"name": name, **({"group": group, "kind": kind, "anomalous": anomalous} if labelled else {})}
        | {score: float(values[i]) for score, values in scored.samples.items()}
        for i, (name, group, kind, anomalous) in enumerate(known)
    ]
    files.write_lines(path, records)


def place(run_directory: Path, other: Path | None = None, out: Path | None = None) -> Path:
    """Where the results of a run are: in its folder, or below it for images that are not its own; or in `out`."""
    if out is not None:
        return out
    return run_directory if other is None else run_directory / "on" / other.resolve().name


def claim(
    run_directory: Path, other: Path | None, out: Path | None, data: str, images: Fingerprint | None = None
) -> Path:
    """The folder for the results of a test, which holds no results of others.

    Args:
      other: the images, if not the run's own.
      out: the folder, if not within the run's.
      data: where the run's own images are.
      images: `fingerprint_of` the test images, by which they are known if they have moved.
    Raises:
      InputError: it has results of another folder or run, or it is another run or among the run's own images.
    """
    found = place(run_directory, other, out)
    if out is not None and out.resolve() != run_directory.resolve():
        if (out / "config.json").is_file():
            raise InputError(f"--out {out}: is another run; name another folder")
        if Path(data).is_absolute() and out.resolve().is_relative_to(Path(data).resolve()):
            raise InputError(f"--out {out}: lies within {data}, the images of the run; name another folder")
    try:
        there = files.read_json(found / "evaluation.json")
        judged, run = there.get("judged"), there.get("run")
        moved = same_fingerprint(there.get("contents"), images)
    except InputError:
        return found  # None there, or none that anybody can read.
    own = None if other is None else str(other.resolve())
    if judged != own and not moved and (other is not None or out is not None):
        raise InputError(f"{found}: holds what was found on {judged}; remove it, or give {other or out} another name")
    if out is not None and run not in (None, str(run_directory.resolve())):
        raise InputError(f"{found}: holds what was found of {run}; name another --out")
    return found


def fingerprint_of(test: Dataset, volumes_hash: str | None) -> Fingerprint:
    """What tells test images and their masks from others: the hash of prepared volumes, else `contents`."""
    return volumes_hash or contents(test.images, *([] if test.masks is None else [test.masks]))


def refuse_other_images(evaluation: dict[str, Any], now: Fingerprint, where: Path, again: str) -> None:
    """Refuses to show an evaluation beside other images than it is of.

    Args:
      now: `fingerprint_of` the test images there are.
      where: these are.
      again: the command that evaluates them.
    Raises:
      InputError: the images or their masks have changed.
    """
    was = evaluation.get("contents")  # Missing in earlier versions.
    if same_fingerprint(was, now) is False:
        raise InputError(f"{where}: test images or masks have changed since they were evaluated; run {again} again")


def refuse_other_maps(note: Path, settings: dict[str, Any]) -> None:
    """Refuses to put maps where others lie: of other images, or made with other settings, by the note beside them.

    Raises:
      InputError: so it is, or the note is damaged.
    """
    if not note.is_file():
        return
    there = files.read_json(note, way_out="what the maps here were made with is unknown, so name another --out")
    changed = [name for name, value in settings.items() if there.get(name) != value]
    if changed:
        words = ", ".join(f"{name} {there.get(name)}, now {settings[name]}" for name in changed)
        raise InputError(f"{note.parent}: holds maps made with {words}; name another --out")


def read_evaluation(run_directory: Path, other: Path | None = None, out: Path | None = None) -> dict[str, Any]:
    """evaluation.json of a run, on its own test or on others; of the folder `out`, if it was written there.

    Raises:
      InputError: not a run, not evaluated since it was last trained, or damaged.
    """
    path = place(run_directory, other, out) / "evaluation.json"
    again = f"run {evaluate_command(run_directory, other, out)}"
    checkpoint.read_config(run_directory)
    _, step = checkpoint.chosen(run_directory)
    if not path.is_file():
        raise InputError(f"{run_directory}: not evaluated yet; {again} first")
    evaluation = files.read_json(path, EVALUATION, way_out=f"{again} again")
    own = None if other is None else str(other.resolve())
    # By their contents, images are known where they have moved (`refuse_other_images`).
    if "contents" not in evaluation and other is not None and evaluation.get("judged") != own:
        raise InputError(f"{path}: holds what was found on {evaluation.get('judged')}; {again} again")
    if evaluation["step"] != step:
        found = f"evaluated at step {evaluation['step']} and is at step {step} now"
        raise InputError(f"{run_directory}: {found}; {again} again")
    return evaluation


def evaluate_command(run_directory: Path, other: Path | None = None, out: Path | None = None) -> str:
    """The command that writes an evaluation."""
    return command("evaluate", run_directory, *filter(None, [other]), *(["--out", out] if out else []))


def evaluations(run_directory: Path) -> Iterator[dict[str, Any]]:
    """Every evaluation that holds for a run as it is: on its own test, then on others."""
    for path in (run_directory / "evaluation.json", *sorted(run_directory.glob("on/*/evaluation.json"))):
        try:
            judged = files.read_json(path, {"judged": str | None})["judged"]
            found = read_evaluation(run_directory, None if judged is None else Path(judged))
        except (OSError, ValueError):
            continue  # None there, damaged, such as a path that cannot be one, or of other weights.
        yield found


def read_scores(directory: Path, dataset: Dataset, maps: Sequence[str]) -> Scored:
    """What `write_scores` left in a folder of results, the maps memory-mapped.

    Raises:
      InputError: they are of other images, or not all there.
    """
    scores, again = directory / "scores", "run the same `jaxvae evaluate` again"
    try:
        records = files.read_lines(scores / "samples.jsonl", dict.fromkeys(SAMPLES, int | float) | {"name": str})
        names = [record["name"] for record in records]
    except InputError:
        records, names = [], None
    if names != list(dataset.names):
        raise InputError(f"{scores}: not the scores of the {len(dataset)} test images there are now; {again}")
    arrays = {}
    for name in (*maps, "reconstructions") if maps else ():
        arrays[name] = files.open_array(scores / f"{name}.npy", way_out=again)
        channels = dataset.images.shape[3] if name == "reconstructions" else 1
        if arrays[name].shape != (*dataset.images.shape[:3], channels) or arrays[name].dtype != np.float32:
            raise InputError(f"{scores / name}.npy: damaged, its shape or type is not that of the images; {again}")
    reconstructions = arrays.pop("reconstructions", np.empty((0,)))
    return Scored({name: np.array([record[name] for record in records]) for name in SAMPLES}, arrays, reconstructions)
