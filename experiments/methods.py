"""All methods of the library in one table: the same data, splits, steps and metrics.

    python -m experiments.methods                      # hours on two cores; the same command continues
    python -m experiments.methods --only phantom
    python -m experiments.methods --quick --out quick  # a trial of minutes: few steps and few test images

    data set        trained on                                              tested on
    fashion_mnist   FashionMNIST without one class, for three classes       test images; that class is anomalous
    phantom         2,000 synthetic brain slices                            400 slices, half of them with a lesion
    ixi             IXI brains (T1, 22 healthy subjects)                    lesions inserted into 8 other IXI brains
    flair           LGG slices without tumour (FLAIR, 20 patients)          tumours of 8 others, and BraTS-2015

A variant is a network with an objective, trained once per data set and seed. A method computes scores of a trained
variant, or of the images alone. All variants have the same images, number of steps, batch size and learning rate. These
are fewer steps than in the papers. `log_scale` is 0, as in the paper, and -2 for the phantom, as in its demo. The
background model of `likelihood_ratio` has its own budget: 2,000 steps of 128 images.

Each cell (data set, variant, method, seed) has a file in `--work`/cells. Brains are tested at the model's resolution,
inside the brain; LGG is not skull-stripped, so there it is the head. The phantom's pixels are all counted. Methods that
score whole images only are left out on brains. The 95 % intervals are over patients, or over images where each is its
own unit; there is none for fewer than 8 patients, and none of AUPRO. Scores of one pass, such as the five maps, share
its time. Writes results/methods.json, .md and .png.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro

import jaxvae
from experiments import brain_mri, brain_scans, method_tables, record
from jaxvae import files
from jaxvae.data import kinds
from jaxvae.data.dataset import Dataset, Splits, take
from jaxvae.data.volumes import cache
from jaxvae.errors import InputError
from jaxvae.evaluation import image_metrics, volume_metrics
from jaxvae.evaluation.volume_tables import VolumeSettings, measure_slices
from jaxvae.ops.spacing import evenly_spaced
from jaxvae.runs import score_names
from jaxvae.runs.run import Run
from jaxvae.scores import BASELINES, IMAGE_SCORES, METHODS, SCORES

CLASSES = (0, 5, 8)  # of FashionMNIST that are held out: a hard one, one between and an easy one in the paper
Name = Literal["fashion_mnist", "phantom", "ixi", "flair"]
METRICS = ("average_precision", "best_dice", "auroc", "aupro")


@dataclasses.dataclass(frozen=True)
class Config:
    """Train, score, tabulate."""

    data: Path = Path(os.environ.get("JAXVAE_DATA", "")) / "data"
    """the folder of the data sets"""
    work: Path = Path("runs/methods")
    """folder of the prepared volumes, the runs and the finished cells"""
    only: tuple[Name, ...] = ("fashion_mnist", "phantom", "ixi", "flair")
    """the data sets to train on"""
    seeds: tuple[int, ...] = (0,)
    steps: int = 1500
    """training steps of each variant"""
    images: int = 576
    """at most so many slices of each test set, evenly spaced, and five times as many images of FashionMNIST"""
    resamples: int = 1000
    """bootstrap resamples of the intervals"""
    train: bool = True
    """train and score the missing cells; otherwise only tabulate the finished ones"""
    out: Path = record.RESULTS
    """the folder of the results"""
    quick: bool = False
    """a trial: 30 steps, 60 test slices, one FashionMNIST class and the phantom; needs another `--out`"""


@dataclasses.dataclass(frozen=True)
class Variant:
    """A network with an objective, and the methods whose scores are tabulated.

    Args:
      label: in tables and figures.
      settings: of `jaxvae.Settings`.
      methods: "baselines", "maps" (the paper's five, and the image scores), or names in `scores.METHODS`.
      test: the file that tests its network or objective.
      only: the data sets it is for; empty: all.
      run: the variant whose run is used, if it does not train its own.
    """

    label: str
    settings: dict[str, Any]
    methods: tuple[str, ...]
    test: str = ""
    only: tuple[str, ...] = ()
    run: str = ""


def _methods(*needs: str) -> tuple[str, ...]:
    """The methods that need something of these, or nothing."""
    return tuple(name for name, method in METHODS.items() if {*needs} & {*method.needs} or not (needs or method.needs))


OBJECTIVE_TESTS = "tests/objectives/test_reconstruction_objectives.py"
SLICES = ("phantom", "ixi", "flair")
SLOW = ("restoration", "background")  # 500 passes for each image, and the training of a second model
OPTION_TESTS = "tests/models/test_decoder_scale.py"
VARIANTS = {
    "no_model": Variant("no model", {}, ("baselines", *_methods()), run="vae"),
    "vae": Variant("VAE", {}, ("maps", *_methods("latent", "kl")), "tests/objectives/test_elbo.py"),
    "dropout": Variant("VAE, dropout", {"dropout": 0.1}, ("maps", "dropout"), OPTION_TESTS),
    "scale": Variant("VAE, learned scale", {"decoder_scale": "shared"}, ("maps", "draws"), OPTION_TESTS),
    "cevae": Variant("ceVAE", {"objective": "cevae"}, ("maps", "draws"), OBJECTIVE_TESTS),
    "two_stage": Variant(
        "two-stage VAE",
        {"objective": "two_stage"},
        ("maps", "draws"),
        "tests/models/test_two_stage.py",
        only=("fashion_mnist",),
    ),
    "autoencoder": Variant("autoencoder", {"objective": "autoencoder"}, ("maps",), OBJECTIVE_TESTS),
    "spatial": Variant(
        "spatial autoencoder",
        # Half of the published channels.
        {"objective": "autoencoder", "model": "spatial", "features": (16, 32, 64)},
        ("maps",),
        "tests/models/test_spatial.py",
        only=SLICES,
    ),
    "ce": Variant("context encoder", {"objective": "ce"}, ("maps",), OBJECTIVE_TESTS),
    "denoising": Variant(
        "denoising U-Net",
        # An eighth of the published channels. Even so, a step takes four times as long as one of the VAE on a CPU.
        {"objective": "denoising", "model": "unet", "features": (8, 16, 32, 64)},
        ("maps",),
        "tests/models/test_unet.py",
        only=SLICES,
    ),
}
TESTS = {"baselines": "tests/metrics/test_baselines.py", "maps": "tests/scores/test_gradients.py"} | {
    name: f"tests/scores/test_{name}.py" for name in METHODS
}


class Task(NamedTuple):
    """What is trained on: a name for files, the data set's name, and the images."""

    name: str
    data_set: Name
    source: jaxvae.Source


class Test(NamedTuple):
    """Test images, and their prepared volumes if they are slices."""

    name: str
    dataset: Dataset
    volumes: cache.Cache | None


class Cell(NamedTuple):
    """One file of results."""

    task: Task
    variant: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task.name}-{self.variant}-{self.method}-{self.seed}"


def tasks(config: Config) -> Iterator[Task]:
    """The images that variants are trained on; missing volumes are prepared."""
    for name in config.only:
        if name == "fashion_mnist":
            for held_out in CLASSES[: 1 if config.quick else None]:
                source = jaxvae.Source(f"fashion_mnist:{config.data / 'fashion-mnist'}", hold_out=held_out)
                yield Task(f"{name}_{held_out}", name, source)
        elif name == "phantom":
            yield Task(name, name, jaxvae.Source("phantom", size=(64,)))
        else:
            train = str(volumes_of(config, name).train)
            yield Task(name, name, jaxvae.Source(train, validation=0.15, test=0.3 if name == "flair" else 0.0))


@functools.cache
def volumes_of(config: Config, name: str) -> brain_scans.Prepared:
    """The prepared volumes of a task of `experiments.brain_mri`."""
    where = brain_mri.Config(data=config.data, work=config.work)
    return brain_scans.prepare({"ixi": "t1"}.get(name, name), where, brain_mri.BASE["size"])


@functools.lru_cache(maxsize=1)
def splits_of(source: jaxvae.Source) -> Splits:
    """The images of a source."""
    return kinds.open_training(source)


def tests_of(config: Config, task: Task) -> list[Test]:
    """The test sets of a task, with at most `config.images` images each."""
    found = []
    if task.data_set != "ixi":
        own = cache.open_cache(task.source.data) if task.data_set == "flair" else None
        names = {"fashion_mnist": "FashionMNIST", "phantom": "phantom", "flair": "LGG FLAIR"}
        found.append(Test(names[task.data_set], splits_of(task.source).test, own))
    if task.data_set in ("ixi", "flair"):
        paths = volumes_of(config, task.data_set).tests
        opened = {name: cache.open_cache(path) for name, path in paths.items() if name != "open MS FLAIR"}
        found += [Test(name, cache.dataset(one), one) for name, one in opened.items()]
    # One in ten images of FashionMNIST is anomalous.
    most = config.images * (5 if task.data_set == "fashion_mnist" else 1)
    return [test._replace(dataset=spaced(test.dataset, most)) for test in found]


def spaced(dataset: Dataset, most: int) -> Dataset:
    """At most so many images, evenly spaced."""
    return take(dataset, evenly_spaced(len(dataset), most))


def cells(config: Config) -> Iterator[Cell]:
    """All cells, those of one run after another."""
    for task in tasks(config):
        for seed in config.seeds:
            for name, variant in VARIANTS.items():
                if variant.only and task.data_set not in variant.only:
                    continue
                for method in variant.methods:
                    # Scores of whole images are for data sets whose images are healthy or not as a whole.
                    whole = task.data_set in ("fashion_mnist", "phantom") or not of_images_only(method)
                    if whole and not (config.quick and task.data_set in SLICES and method in SLOW):
                        yield Cell(task, name, method, seed)


def of_images_only(method: str) -> bool:
    """Whether a method has no score of pixels."""
    return method in METHODS and all(score.of_images for score in METHODS[method].scores)


def run_of(cell: Cell) -> str:
    """The variant whose run a cell uses."""
    return VARIANTS[cell.variant].run or cell.variant


def settings_of(config: Config, cell: Cell) -> jaxvae.Settings:
    """How the run of a cell is trained."""
    batch_size, learning_rate = (128, 1e-3) if cell.task.data_set == "fashion_mnist" else (32, 3e-4)
    own = VARIANTS[run_of(cell)].settings
    scale = {"log_scale": -2.0} if cell.task.data_set == "phantom" and "decoder_scale" not in own else {}
    same = {"steps": config.steps, "seed": cell.seed, "batch_size": batch_size, "learning_rate": learning_rate}
    return jaxvae.Settings(**same, **scale, **own)


def train(config: Config, cell: Cell) -> tuple[Run, float]:
    """Train the run of a cell, or continue or open it; also returns the seconds of its training."""
    run_dir = config.work / "runs" / cell.task.name / f"{run_of(cell)}-{cell.seed}"
    jaxvae.train_run(run_dir, cell.task.source, settings_of(config, cell), say=print)
    return jaxvae.load(run_dir), files.read_lines(run_dir / "metrics.jsonl")[-1]["seconds"]


def score_names_of(run: Run, method: str) -> list[str]:
    """The scores of a method that a run has."""
    if method == "baselines":
        return list(BASELINES)
    names = [*brain_mri.MAPS, *IMAGE_SCORES] if method == "maps" else [score.name for score in METHODS[method].scores]
    has = score_names.maps_of(run.model, run.objective, [name for name in names if name not in IMAGE_SCORES])
    of_image = [name for name in names if name in IMAGE_SCORES and (run.objective.kl or name == "nll")]
    return [*has, *of_image]


def compute(config: Config, cell: Cell) -> list[dict[str, Any]]:
    """The rows of a cell: one per test set and score."""
    run, training = train(config, cell)
    names = score_names_of(run, cell.method)
    wanted = tuple(name for name in names if name not in (*BASELINES, *IMAGE_SCORES))
    started = time.perf_counter()
    jaxvae.fit_scores(run, wanted, own=lambda: splits_of(cell.task.source))
    fitting = time.perf_counter() - started
    rows = []
    for test in tests_of(config, cell.task):
        maps, image_scores, seconds = scored(run, test, names, wanted)
        of_row = {"test": test.name, "task": cell.task.name, "variant": cell.variant, "method": cell.method}
        of_row |= {"seed": cell.seed, "test_file": TESTS[cell.method], "images": len(test.dataset)}
        times = {"fitting": round(fitting, 2), "milliseconds": 1000 * seconds / len(test.dataset)}
        # A row without a model has no training.
        times["training"] = 0.0 if VARIANTS[cell.variant].run else round(training, 1)
        rows += [{**of_row, **row, **times} for row in metrics(config, test, names, maps, image_scores)]
    return rows


def scored(
    run: Run, test: Test, names: list[str], wanted: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], float]:
    """Maps and image scores of the test images by name, and the seconds this took without compilation."""
    images = test.dataset.images
    if names == list(BASELINES):
        started = time.perf_counter()
        maps = image_metrics.baseline_maps(images)
        return maps, {}, time.perf_counter() - started
    run.score(images[:48], wanted)
    started = time.perf_counter()
    found = run.score(images, wanted)
    seconds = time.perf_counter() - started
    return found.maps, {name: found.image_scores[name] for name in names if SCORES[name].of_images}, seconds


def metrics(
    config: Config, test: Test, names: list[str], maps: dict[str, np.ndarray], image_scores: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Rows of pixels and of whole images. Without masks, the score of an image is the mean of its map."""
    data, resamples = test.dataset, config.resamples
    rows: list[dict[str, Any]] = []
    if test.volumes is not None and maps:
        own = {name: values for name, values in maps.items() if name not in BASELINES}
        measures = measure_slices(test.volumes, data, own, {}, VolumeSettings(maps=tuple(own)))
        rows = volume_metrics.rows(measures, resamples=resamples)
    elif data.masks is not None and maps:
        rows = image_metrics.pixel_rows(maps, data.masks, data.groups, resamples=resamples)
    else:
        image_scores = {**image_metrics.map_means(maps), **image_scores}
    found = [{"level": "pixels", **row} for row in rows if row["score"] in names]
    of_images = image_metrics.sample_rows(image_scores, data.labels, data.groups, resamples=resamples)
    found += [{"level": "images", **row} for row in of_images]
    return [{key: row.get(key) for key in ("level", "score", *METRICS)} for row in found]


def finished(config: Config) -> list[dict[str, Any]]:
    """The rows of all cells, from their files or computed now."""
    todo, done = list(cells(config)), []
    for number, cell in enumerate(todo, 1):
        path = config.work / "cells" / f"{cell.name}.json"
        decides = {"images": config.images, "resamples": config.resamples}
        decides |= {"settings": vars(settings_of(config, cell))}
        found = record.kept(path, decides)
        if found is None and config.train:
            print(f"cell {number} of {len(todo)}: {cell.name}", flush=True)
            found = record.part(path, decides, functools.partial(compute, config, cell))
        if found is not None:
            done += [{**row, "seconds": found["seconds"]} for row in found["rows"]]
    return done


def main(config: Config) -> None:
    record.make_folder(config.out, quick=config.quick)
    if config.quick:
        only = config.only if config.only != Config.only else ("fashion_mnist", "phantom")
        few = {"steps": 30, "images": 60, "resamples": 100, "only": only, "work": config.work / "quick"}
        config = dataclasses.replace(config, **few)
    rows = finished(config)
    if not rows:
        raise SystemExit("no cell is finished; run without --no-train")
    labels = {name: (variant.label, variant.test) for name, variant in VARIANTS.items()}
    summary = method_tables.summarize(rows, labels)
    text = method_tables.markdown(summary)
    seconds = {(row["task"], row["variant"], row["method"], row["seed"]): row["seconds"] for row in rows}
    record.write("methods.json", summary, seconds=list(seconds.values()) if config.train else None, folder=config.out)
    files.write(config.out / "methods.md", f"{text}\n".encode())
    method_tables.figure(config.out / "methods.png", summary)
    print(text)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except InputError as error:
        raise SystemExit(f"methods: {error}") from None
