"""The formats that jaxvae writes and reads again: JSON, JSONL, npy, npz and checkpoints."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fuzz_mutations as mutations
import nibabel as nib
import numpy as np
from fuzz_formats import Damager, Format, sample

import jaxvae
from jaxvae import files
from jaxvae.data import kinds
from jaxvae.data.dataset import Dataset
from jaxvae.data.kinds import Source
from jaxvae.data.volumes import cache, cache_writer, slices
from jaxvae.data.volumes.scans import Scan
from jaxvae.data.volumes.slices import Slicing
from jaxvae.errors import InputError
from jaxvae.evaluation import results, volume_measures
from jaxvae.report import sweep_figures
from jaxvae.runs import checkpoint, score_states, trained_on, training
from jaxvae.runs.config import model_from_config, model_to_config, read_config
from jaxvae.runs.run import Run, claim, load
from jaxvae.scores import IMAGE_SCORES
from jaxvae.scores.batches import Scores
from jaxvae.scoring import healthy_stats, score_files, volume_maps
from jaxvae.scoring.writing import claim_maps_folder
from jaxvae.sweeps import comparison, plan
from jaxvae.train import Hyperparams, TrainConfig

JSON: dict[str, list[Damager]] = {".json": [mutations.json_record], ".jsonl": [mutations.json_lines]}
MODEL = jaxvae.DenseVAE((8, 8, 1), 2, 8)
CONFIG: dict[str, Any] = {
    "jaxvae": jaxvae.__version__,
    "data": kinds.to_config(Source(size=(8,), channels=(0,))),
    "volumes": {"slicing": slices.to_config(Slicing(size=8, percentiles=(1, 99))), "hash": "0" * 64},
    "images": {
        "shape": [8, 8, 1],
        "train": 9,
        "validation": 1,
        "test": 2,
        "image_names": "0" * 64,
        "contents": [1.5, 2.5, 3.5],
    },
    "model": model_to_config(MODEL),
    "train": asdict(TrainConfig(batch_size=2)),
    "hparams": asdict(Hyperparams()),
    **{"augment": "none", "arithmetic": "corrected", "patience": None, "seed": 0, "epochs": 3},
}


def records(scratch: Path) -> dict[str, Format]:
    """These formats by name. `scratch` is a folder for making the samples."""
    run = {"config.json": _json(CONFIG), "checkpoints/last/4/x": b""}
    logged = [{"step": step, "loss": 2.5, "nll": 2.0, "kl": 0.5, "seconds": 0.1 * step} for step in range(1, 5)]
    kept: dict[str, Any] = {"step": 4, "images": "0" * 64, "thresholds": {"combi": {"0.01": 0.5, "0.05": 0.25}}}
    kept["ranges"] = {"median": [0.0, 0.5], "spread": [0.1, 0.2]}
    known = [{"file": f"{number}.png", "sketch": [9.5, 8.5, 7.0 + number]} for number in range(3)]
    found = {"step": 4, "data": "phantom", "images": {}, "pixels": [], "samples": [], "thresholds": {}}
    found |= {"tested_on": None}
    noted = {"maps": ["combi"], "step": 4, **CONFIG}
    return {
        "config.json": Format(run, JSON, _read_run),
        "metrics.jsonl": Format({"metrics.jsonl": _lines(logged)}, JSON, _read_metrics, whole=False),
        "thresholds.json": Format({**run, "thresholds.json": _json(kept)}, _only("thresholds"), _read_thresholds),
        "trained_on.jsonl": Format({"trained_on.jsonl": _lines(known)}, JSON, _read_trained_on, whole=False),
        "evaluation.json": Format({**run, "evaluation.json": _json(found)}, _only("evaluation"), _read_evaluation),
        "maps' settings": Format({".settings.json": _json(noted)}, JSON, _read_note),
        "scores": _scores(scratch / "scores"),
        "sweep": _sweep(scratch / "sweep"),
        "cache": _cache(scratch / "cache"),
        "cache parts": _parts(scratch / "parts"),
        "measures": _measures(scratch / "measures"),
        "fitted state": _state(scratch / "state"),
        "checkpoint": _checkpoint(scratch / "checkpoint"),
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode()


def _lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def _only(name: str) -> dict[str, list[Damager]]:
    return {f"{name}.json": [mutations.json_record]}


def _read_run(folder: Path) -> Any:
    config = read_config(folder)
    model = model_from_config(config["model"])
    source = kinds.from_config(config["data"])
    kinds.preparation(source)
    claim(folder, CONFIG)
    return model, source


def _read_metrics(folder: Path) -> Any:
    records = files.read_lines(folder / "metrics.jsonl", training.LOGGED)
    assert all(math.isfinite(record["loss"] + record["step"] + record["seconds"]) for record in records)
    return records


def _read_thresholds(folder: Path) -> Any:
    found = healthy_stats.read(Run(MODEL, {}, 4, CONFIG, folder))
    if found is None:
        raise InputError("damaged, so the thresholds are measured again")
    assert all(math.isfinite(row["0.01"]) for row in found.thresholds.values())
    if found.ranges is not None:
        healthy_stats.outside_ranges(found.ranges, np.zeros((1, 4, 4, 1), np.uint8))
    return found.thresholds


def _read_trained_on(folder: Path) -> Any:
    trained_on.refuse(folder, {"other.png": [1.0, 2.0, 3.0]}, Path("other"))
    return None


def _read_evaluation(folder: Path) -> Any:
    run = Run(MODEL, {}, 4, CONFIG, folder)
    found = [*results.evaluations(run), results.read_evaluation(run)]
    assert all(type(one["step"]) is int for one in found)
    return found


def _read_note(folder: Path) -> Any:
    claim_maps_folder(folder, volume_maps.NOTE, {"maps": ["combi"], "step": 4, **CONFIG})
    return None


def _scores(folder: Path) -> Format:
    count = 3
    images = np.zeros((count, 8, 8, 1), np.uint8)
    names = tuple(f"test/{i}.png" for i in range(count))
    dataset = Dataset(images, np.array([True, False, False]), None, names, names, ("bad", "good", "good"))
    maps = {"combi": np.ones((count, 8, 8, 1), np.float32)}
    image_scores = {name: np.arange(count, dtype=np.float32) for name in IMAGE_SCORES}
    score_files.write(folder, dataset, Scores(maps, image_scores, np.ones(images.shape, np.float32)))

    def read(folder: Path) -> Any:
        scores = score_files.read(folder, dataset, ["combi"], again="`jaxvae evaluate`")
        assert scores.maps["combi"].shape == (count, 8, 8, 1)
        assert scores.reconstructions.shape == images.shape
        assert all(values.shape == (count,) and values.dtype.kind in "if" for values in scores.image_scores.values())
        return {**scores.maps, **scores.image_scores}

    return Format(sample(folder), {**JSON, ".npy": [mutations.npy]}, read)


def _sweep(folder: Path) -> Format:
    axes = {"seed": [0, 1], "beta": [0.5, 1.0]}
    whole = {"jaxvae": "1", "epochs": 2, "programs": plan.programs_of({"width": [1.0]}, axes, 2)}
    plan.claim(folder, whole)
    for number, program in enumerate(whole["programs"]):
        rows = [{**program["fixed"], **run, "loss": 1.5, "diverged": False} for run in program["runs"]]
        plan.add_part(folder, whole, number, rows, 1.0)

    def read(folder: Path) -> Any:
        plan.claim(folder, whole)
        plan.seconds_per_program(folder)
        if plan.missing(folder, whole):
            raise InputError("not all parts are there, so they are made again")
        rows = plan.write_table(folder, whole)
        assert len(rows) == 4
        sweep_figures.summary(rows, ["beta"], comparison.score_of(rows))
        return rows

    return Format(
        sample(folder),
        {
            "plan.json": [mutations.json_record],
            ".time.json": [mutations.json_record],
            "0.jsonl": [mutations.json_lines],
        },
        read,
        whole=False,
    )


def _scans(folder: Path) -> list[Scan]:
    """Six small brains, two of them with lesions."""
    folder.mkdir(parents=True)
    scans = []
    for number in range(6):
        grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (12, 12, 6)), indexing="ij"))
        brain = np.square(grid).sum(axis=0) < 0.8
        voxels = np.where(brain, 100 + 20 * np.cos(3 * grid[0]) + number, 0).astype(np.float32)
        path = folder / f"{number}.nii"
        nib.Nifti1Image(voxels, np.eye(4)).to_filename(path)
        scans.append(Scan(f"p{number}/t1", f"p{number}", path, None, path if number < 2 else None))
    return scans


def _cache(folder: Path) -> Format:
    scans = _scans(folder / "scans")
    cache_writer.prepare(folder / "cache", scans, [], Slicing(size=8))

    def read(folder: Path) -> Any:
        opened = cache.open_cache(folder)
        for scan in cache.scans(opened):
            place = (folder / "out" / f"{scan.name}_map.nii.gz").resolve()
            assert place.is_relative_to((folder / "out").resolve()), place
        splits = cache.load(folder)
        assert np.isfinite(splits.train.images).all()
        cache_writer.prepare(folder, scans, [], Slicing(size=8))
        return opened.images

    return Format(sample(folder / "cache"), {**JSON, ".npy": [mutations.npy]}, read)


def _parts(folder: Path) -> Format:
    """A preparation that stopped before its last step."""
    scans = _scans(folder / "scans")
    kept: dict[str, bytes] = {}
    assemble = cache_writer._assemble

    def stopped(directory: Path, *arguments: Any) -> None:
        kept.update(sample(directory))
        assemble(directory, *arguments)

    cache_writer._assemble = stopped
    cache_writer.prepare(folder / "cache", scans, [], Slicing(size=8))
    cache_writer._assemble = assemble

    def read(folder: Path) -> Any:
        cache_writer.prepare(folder, scans, [], Slicing(size=8))
        return cache.open_cache(folder).images

    return Format(kept, {".npz": [], "plan.json": [mutations.json_record]}, read)


def _measures(folder: Path) -> Format:
    rng = np.random.default_rng(0)
    lesion = rng.random((4, 4, 4)) < 0.3
    measured = volume_measures.measure(
        "a", "a", {"combi": rng.random((4, 4, 4))}, lesion, np.ones((4, 4, 4), bool), {"combi": {"0.01": 0.5}}
    )
    volume_measures.write(folder / "a.npz", {"own_grid": measured})

    def read(folder: Path) -> Any:
        found = volume_measures.read(folder / "a.npz")
        if not found:
            raise InputError("damaged, so it is measured again")
        return found["own_grid"].scores["combi"].counts

    return Format(sample(folder), {".npz": []}, read)


def _state(folder: Path) -> Format:
    state = {"mean": np.ones((4, 4, 1), np.float32), "inner": {"count": np.int32(3)}}
    folder.mkdir()
    score_states.write(folder, 4, "atlas", state)

    def read(folder: Path) -> Any:
        found = score_states.read(folder, 4, "atlas")
        if found is None:
            raise InputError("damaged, so it is fitted again")
        assert np.isfinite(found["mean"]).all()
        return found["mean"], found["inner"]["count"]

    return Format(sample(folder), {".npz": []}, read)


def _checkpoint(folder: Path) -> Format:
    state = jaxvae.init(MODEL, TrainConfig(), Hyperparams(), training.run_key(0))
    files.write_json(folder / "config.json", CONFIG)
    checkpoint.save(folder / "checkpoints" / "last", state)

    def read(folder: Path) -> Any:
        run = load(folder)
        return [np.asarray(leaf) for leaf in sorted(run.params)] and run.step

    return Format(sample(folder), {"": []}, read, whole=False)
