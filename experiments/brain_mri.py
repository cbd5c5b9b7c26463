"""Brain MRI: trained on healthy scans, tested on tumours and lesions, with the paper's protocol and with open data.

    python -m experiments.brain_mri                                      # open data below $JAXVAE_DATA, base settings
    python -m experiments.brain_mri --axes latent_size log_scale size    # and the paper's sweeps
    python -m experiments.brain_mri --tasks paper --hcp DIR --brats DIR --isles DIR

    task    trained on                                        tested on
    t1      IXI brains (T1, 22 healthy subjects)              lesions inserted into 8 other IXI brains
    head    IXI heads (T1, 30 healthy subjects)               LGG tumours, pre-contrast T1
    flair   LGG slices without tumour (FLAIR, 20 patients)    LGG tumours of 8 others, BraTS-2015, open MS lesions
    paper   HCP (T2)                                          BraTS-2017 and ISLES-2015 (T2)

The base settings are the paper's: its network, 64x64 pixels, z 256, log_scale 0. Patients are split once, and 15 % of
the training subjects are for validation and thresholds. There are three seeds. Each run has a folder below `--work`,
and the same command continues; finished runs are in results/brain_mri_runs.jsonl.

Volumes are tested inside the brain, on their own grid and at the model's resolution. LGG is not skull-stripped, so
there it is the head. Intervals are over patients, and each end is averaged over the seeds. Writes
results/brain_mri.json, .md and .png, and brain_mri_settings.png over the axes.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

import jaxvae
from experiments import brain_scans, record, winners
from jaxvae import files
from jaxvae.data.volumes import cache
from jaxvae.errors import InputError
from jaxvae.evaluation.volume_tables import VolumeSettings, make_tables
from jaxvae.report import bars, style, tables
from jaxvae.scores import BASELINES

# Zimmerer et al. 2019, pixel-level AUROC on BraTS-2017, digitised: (rec_error, kl_grad, rec_grad, elbo_grad, combi).
PAPER: dict[str, dict[float, tuple[float, ...]]] = {
    "latent_size": {
        64: (0.79, 0.81, 0.78, 0.78, 0.83),
        128: (0.76, 0.84, 0.79, 0.79, 0.84),
        256: (0.71, 0.83, 0.80, 0.79, 0.83),
        512: (0.66, 0.81, 0.78, 0.78, 0.82),
        1024: (0.64, 0.80, 0.72, 0.72, 0.79),
    },
    "size": {
        32: (0.71, 0.90, 0.82, 0.81, 0.88),
        64: (0.69, 0.85, 0.81, 0.80, 0.84),
        128: (0.70, 0.81, 0.74, 0.74, 0.81),
        192: (0.79, 0.81, 0.61, 0.61, 0.80),
    },
    "log_scale": {
        0.5: (0.70, 0.83, 0.81, 0.80, 0.83),
        0.0: (0.71, 0.83, 0.80, 0.80, 0.83),
        -0.5: (0.72, 0.82, 0.78, 0.77, 0.82),
        -0.75: (0.72, 0.83, 0.76, 0.76, 0.82),
        -1.0: (0.75, 0.77, 0.72, 0.72, 0.69),
        -1.1: (0.74, 0.77, 0.72, 0.72, 0.64),
    },
}
BASE = {"latent_size": 256, "size": 64, "log_scale": 0.0}
MAPS = ("rec_error", "kl_grad", "rec_grad", "elbo_grad", "combi")
PAIRS = (
    *((name, "rec_error") for name in ("rec_grad", "elbo_grad", "combi", "kl_grad")),
    ("elbo_grad", "rec_grad"),
    ("elbo_grad", "equalised_brightness"),
)
METRICS = {"auroc": "AUROC", "average_precision": "AP", "best_dice": "best Dice", "aupro": "AUPRO"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Prepare, train, test, tabulate."""

    data: Path = Path(os.environ.get("JAXVAE_DATA", "")) / "data"
    """the folder of the open data sets"""
    work: Path = Path("runs/brain_mri")
    """folder of the prepared volumes and the runs"""
    tasks: tuple[Literal["t1", "head", "flair", "paper"], ...] = ("t1", "head", "flair")
    hcp: Path | None = None
    """task paper: the folder of HCP subjects"""
    brats: Path | None = None
    """task paper: BraTS-2017, with HGG and LGG below"""
    isles: Path | None = None
    """task paper: the training folder of ISLES-2015 SISS"""
    axes: tuple[Literal["latent_size", "size", "log_scale"], ...] = ()
    """sweeps of the paper to run besides its base settings"""
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 80
    patience: int = 10
    resamples: int = 1000
    train: bool = True
    """train and test the missing runs; otherwise only summarize the finished ones"""


def settings(config: Config) -> list[dict[str, Any]]:
    """The base and every other value of each axis."""
    others = [{**BASE, axis: value} for axis in config.axes for value in PAPER[axis] if value != BASE[axis]]
    return [BASE, *others]


def run(config: Config, task: str, setting: dict[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """Train and test one run; yields one row per test set, table and score."""
    data = brain_scans.prepare(task, config, setting["size"])
    name = "-".join(f"{axis}_{setting[axis]:g}" for axis in BASE)
    folder = config.work / "runs" / task / f"{name}-seed_{seed}"
    source = jaxvae.Source(str(data.train), validation=0.15, test=0.3 if task == "flair" else 0.0)
    training = jaxvae.Settings(
        latent_size=setting["latent_size"],
        log_scale=setting["log_scale"],
        learning_rate=1e-4 if task == "paper" else 3e-4,
        batch_size=64 if task == "paper" else 32,
        epochs=config.epochs,
        patience=config.patience,
        seed=seed,
    )
    jaxvae.train_run(folder, source, training, say=print)
    own = cache.open_cache(data.train)
    splits = cache.load(data.train, validation=source.validation, test=source.test)
    healthy = cache.scans(own, splits.validation.groups)
    tests = {
        name: [cache.scan_of(line) for line in cache.open_cache(path).volumes] for name, path in data.tests.items()
    }
    if task == "flair":
        tests["LGG FLAIR"] = cache.scans(own, splits.test.groups)
    volume_settings = VolumeSettings(maps=MAPS, median=5 if setting == BASE else 0)
    opened = jaxvae.load(folder)
    for test, scans in tests.items():
        for table in make_tables(opened, scans, healthy, volume_settings, resamples=config.resamples):
            of_table = {"table": table.name, "caption": table.caption, "prevalence": table.prevalence}
            for row in table.rows:
                yield {**_decides(config, task, setting, seed), "test": test, **of_table, **row}


def rows(config: Config) -> list[dict[str, Any]]:
    """All rows, from the file or computed now. The base settings of all tasks come first."""
    path = record.RESULTS / "brain_mri_runs.jsonl"
    done = files.read_lines(path)
    there = {_key(row) for row in done}
    wanted = [(s, seed, task) for s in settings(config) for seed in config.seeds for task in config.tasks]
    for number, (setting, seed, task) in enumerate(wanted if config.train else [], 1):
        if _key(_decides(config, task, setting, seed)) in there:
            continue
        print(f"run {number} of {len(wanted)}: {task}, {setting}, seed {seed}", flush=True)
        started = time.perf_counter()
        made = list(run(config, task, setting, seed))
        seconds = round(time.perf_counter() - started, 1)
        # Written together, so that the file has all rows of a run or none.
        done += [{**row, "seconds": seconds} for row in made]
        files.write_lines(path, done)
    return done


def _decides(config: Config, task: str, setting: dict[str, Any], seed: int) -> dict[str, Any]:
    """What identifies a run."""
    return {"task": task, **setting, "seed": seed, "epochs": config.epochs, "patience": config.patience}


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["task"], *(float(row[name]) for name in (*BASE, "seed", "epochs", "patience")))


def value(row: dict[str, Any], metric: str) -> float | None:
    """A metric without its interval."""
    found = row[metric]
    return found[0] if isinstance(found, list | tuple) else found


def over_seeds(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per task, test, table, setting and score: mean, spread and mean interval over the seeds."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in done:
        key = (row["task"], row["test"], row["table"], *(row[axis] for axis in BASE), row["score"])
        groups.setdefault(key, []).append(row)
    summary = []
    for (task, test, table, *at, score), members in groups.items():
        first = members[0]
        row: dict[str, Any] = {"task": task, "test": test, "table": table, **dict(zip(BASE, at, strict=True))}
        row |= {name: first[name] for name in ("caption", "prevalence", "volumes")}
        row |= {"score": score, "seeds": len(members)}
        for metric in METRICS:
            values = [found for member in members if (found := value(member, metric)) is not None]
            row[f"{metric}_mean"] = float(np.mean(values)) if values else None
            row[f"{metric}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
            ends = [member[metric][1:] for member in members if isinstance(member[metric], list | tuple)]
            row[f"{metric}_interval"] = np.mean(ends, axis=0).tolist() if ends else None
        axis = next((axis for axis in BASE if row[axis] != BASE[axis]), "latent_size")
        if task == "paper" and test == "BraTS-2017" and table == "model_resolution" and score in MAPS:
            row["paper_auroc"] = PAPER[axis][row[axis]][MAPS.index(score)]
        summary.append(row)
    return summary


def wins(summary: list[dict[str, Any]], metric: str, test: str | None = None) -> list[dict[str, Any]]:
    """At how many tests and settings each score wins, beats the reconstruction error, and beats both baselines.

    Args:
      summary: from `over_seeds`, as in all functions below.
      test: count the settings of this test only.
    """
    cases = _cases(summary, metric, test)
    rows = winners.wins(cases, [*BASELINES, *MAPS])
    return [
        {
            **row,
            "score": style.display(row["score"]),
            "beats Rec-Error": winners.beats(cases, row["score"], ["rec_error"]),
            "beats both baselines": winners.beats(cases, row["score"], [*BASELINES]),
        }
        for row in rows
    ]


def _cases(summary: list[dict[str, Any]], metric: str, test: str | None) -> list[dict[str, float]]:
    """Values of the scores on whole volumes without post-processing: one case per test and setting."""
    by_case: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in summary:
        if row["table"] == "own_grid" and test in (None, row["test"]) and row[f"{metric}_mean"] is not None:
            case = (row["test"], *(row[axis] for axis in BASE))
            by_case.setdefault(case, {})[row["score"]] = row[f"{metric}_mean"]
    return list(by_case.values())


def by_test(summary: list[dict[str, Any]], metric: str) -> str:
    """Markdown table of a metric at the base settings on the scans' grids: one row per test, one column per score."""
    chance = {"average_precision": lambda prevalence: prevalence, "auroc": lambda _: 0.5}[metric]
    table: dict[str, dict[str, Any]] = {}
    for row in _at_base(summary):
        if row["table"] == "own_grid":
            line = table.setdefault(row["test"], {"test": f"{row['test']} ({row['volumes']})"})
            line |= {"chance": f"{chance(row['prevalence']):.3f}", style.display(row["score"]): _in_words(row, metric)}
    lines = list(table.values())
    return tables.markdown(lines, {**{name: name for name in lines[0]}, "test": f"{METRICS[metric]} (volumes)"})


def markdown(summary: list[dict[str, Any]]) -> str:
    """All tables in Markdown: each test at the base settings, and the comparison of scores over all settings."""
    parts, base = [by_test(summary, "average_precision"), by_test(summary, "auroc")], _at_base(summary)
    for test, table in dict.fromkeys((row["test"], row["table"]) for row in base):
        found = [row for row in base if (row["test"], row["table"]) == (test, table)]
        shown = [
            {"score": style.display(row["score"])} | {key: _in_words(row, key) for key in METRICS} for row in found
        ]
        columns = {"score": "score", **METRICS}
        if any("paper_auroc" in row for row in found):
            shown = [line | {"paper": row.get("paper_auroc")} for line, row in zip(shown, found, strict=True)]
            columns["paper"] = "AUROC in the paper"
        words = "mean ± standard deviation over seeds, with the 95 % interval over patients in brackets"
        words = f"{found[0]['volumes']} volumes, {found[0]['seeds']} seeds; {words}"
        parts.append(f"**{test}.** {found[0]['caption']}; {words}:\n\n{tables.markdown(shown, columns, best={})}")
    parts += [over_settings(summary, metric) for metric in ("average_precision", "auroc")]
    if varied := _varied(summary):
        parts += [pairs(summary, varied), by_axis(summary, varied)]
    return "\n\n".join(parts)


def pairs(summary: list[dict[str, Any]], tests: list[str]) -> str:
    """Markdown table: at how many settings of a test one score has a higher AP than another, and the range of gains."""
    rows = []
    for one, other in PAIRS:
        row: dict[str, Any] = {"pair": f"{style.display(one)} over {style.display(other)}"}
        for test in tests:
            cases = _cases(summary, "average_precision", test)
            gains = [case[one] - case[other] for case in cases if {one, other} <= case.keys()]
            won = sum(gain > 0 for gain in gains)
            row[test] = f"{won} of {len(gains)} ({min(gains):+.3f} to {max(gains):+.3f})"
        rows.append(row)
    words = "Settings at which the first score has the higher AP, with its smallest and largest gain in brackets"
    return f"{words}:\n\n{tables.markdown(rows, {'pair': 'AP', **{test: test for test in tests}})}"


def by_axis(summary: list[dict[str, Any]], tests: list[str], score: str = "elbo_grad") -> str:
    """Markdown table: the AP of a score along each axis, with the others at their base."""
    rows = []
    for axis in BASE:
        found = [row for row in summary if row["table"] == "own_grid" and row["score"] == score]
        found = [row for row in found if all(row[other] == BASE[other] for other in BASE if other != axis)]
        for at in sorted({row[axis] for row in found}):
            of_value = {row["test"]: row["average_precision_mean"] for row in found if row[axis] == at}
            rows.append({"setting": f"{axis} {at:g}"} | {test: of_value.get(test) for test in tests})
    words = f"AP of {style.display(score)} along each axis, the others at their base"
    return f"{words}:\n\n{tables.markdown(rows, {'setting': 'AP', **{test: test for test in tests}}, best={})}"


def over_settings(summary: list[dict[str, Any]], metric: str) -> str:
    """Markdown tables: at how many settings each score wins and beats others, over all tests and for each test."""
    columns = ["score", "settings", "wins", "beats Rec-Error", "beats both baselines", "mean", "worst"]
    words = (
        f"By {METRICS[metric]}, over tests and settings, averaged over seeds (95 % intervals treat them as independent"
    )
    parts = [f"{words}):\n\n{tables.markdown(wins(summary, metric), columns, best={})}"]
    for test in _varied(summary):
        counted = wins(summary, metric, test)
        parts.append(f"{test} alone:\n\n{tables.markdown(counted, columns, best={})}")
    return "\n\n".join(parts)


def _at_base(summary: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in summary if all(row[axis] == BASE[axis] for axis in BASE)]


def _in_words(row: dict[str, Any], metric: str) -> str | None:
    """0.279 ± 0.027 [0.10, 0.52]."""
    mean, spread, interval = (row[f"{metric}_{part}"] for part in ("mean", "std", "interval"))
    if mean is None:
        return None
    words = f"{mean:.3f}" if spread is None or spread < 1e-6 else f"{mean:.3f} ± {spread:.3f}"
    return words if interval is None else f"{words} [{interval[0]:.2f}, {interval[1]:.2f}]"


def figure(path: Path, summary: list[dict[str, Any]]) -> None:
    """Average precision of every score on every test set at the base settings, with the spread over seeds."""
    base = [row for row in _at_base(summary) if row["table"] == "own_grid"]
    tests = list(dict.fromkeys(row["test"] for row in base))
    names = [*BASELINES, *MAPS]
    lines = style.lines(names)
    drawn = []
    for name in names:
        found = {row["test"]: row for row in base if row["score"] == name}
        means = [found[test]["average_precision_mean"] for test in tests]
        spreads = [found[test]["average_precision_std"] or 0.0 for test in tests]
        drawn.append(bars.Bars(style.display(name), lines[name].colour, means, spreads))
    bars.figure(path, tests, drawn, ylabel="average precision of voxels")


def settings_figure(path: Path, summary: list[dict[str, Any]]) -> None:
    """Average precision along each axis: one row per test, one column per axis, one line per score."""
    own, tests = [row for row in summary if row["table"] == "own_grid"], _varied(summary)
    names = ["equalised_brightness", *MAPS]
    lines = style.lines(names)
    height = 120 + 300 * len(tests)
    sheet = style.sheet(style.WIDTH, height)
    grid = sheet.subplots(len(tests), len(BASE), squeeze=False, sharey="row")
    sheet.subplots_adjust(0.08, 70 / height, 0.98, 1 - 60 / height, wspace=0.08, hspace=0.3)
    for test, plots in zip(tests, grid, strict=True):
        for axis, plot in zip(BASE, plots, strict=True):
            others = [other for other in BASE if other != axis]
            for name in names:
                found = {
                    row[axis]: row
                    for row in own
                    if (row["test"], row["score"]) == (test, name)
                    and all(row[other] == BASE[other] for other in others)
                }
                at = sorted(found)
                plot.errorbar(
                    range(len(at)),
                    [found[value]["average_precision_mean"] for value in at],
                    yerr=[found[value]["average_precision_std"] or 0.0 for value in at],
                    color=lines[name].colour,
                    label=style.display(name),
                    marker="o",
                    markersize=3,
                    elinewidth=1,
                )
                plot.set_xticks(range(len(at)), [f"{value:g}" for value in at])
            plot.set_xlabel(axis.replace("_", " "))
        plots[0].set_ylabel(f"{test}\naverage precision")
        plots[0].set_ylim(bottom=0)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    sheet.legend(handles, labels, ncols=len(names), frameon=False, loc="upper left", bbox_to_anchor=(0.07, 1))
    style.save(sheet, path)


def _varied(summary: list[dict[str, Any]]) -> list[str]:
    """The tests that were run at several settings."""
    settings: dict[str, set[tuple[Any, ...]]] = {}
    for row in summary:
        settings.setdefault(row["test"], set()).add(tuple(row[axis] for axis in BASE))
    return [test for test, found in settings.items() if len(found) > 1]


def main(config: Config) -> None:
    if config.train and "paper" in config.tasks and None in (config.hcp, config.brats, config.isles):
        raise InputError("--tasks paper needs --hcp, --brats and --isles: the folder of each data set")
    decides = {"epochs": config.epochs, "patience": config.patience}
    done = [row for row in rows(config) if decides.items() <= row.items() and row["seed"] in config.seeds]
    if not done:
        raise SystemExit("no run is finished; run without --no-train")
    summary = over_seeds(done)
    text = markdown(summary)
    # The time of a few early runs is unknown.
    seconds = {_key(row): row["seconds"] for row in done}
    record.write("brain_mri.json", summary, seconds=list(seconds.values()) if config.train else None)
    files.write(record.RESULTS / "brain_mri.md", (text + "\n").encode())
    figure(record.RESULTS / "brain_mri.png", summary)
    if _varied(summary):
        settings_figure(record.RESULTS / "brain_mri_settings.png", summary)
    print(text)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except InputError as error:
        raise SystemExit(f"brain_mri: {error}") from None
