"""Figures, tables and the page of an evaluated run."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae import files
from jaxvae.data.dataset import Dataset
from jaxvae.data.volumes import slices
from jaxvae.evaluation.image_metrics import baseline_maps, map_means
from jaxvae.metrics.curves import pr_curve, roc_curve
from jaxvae.metrics.ranking import best_dice
from jaxvae.progress import Bar
from jaxvae.report import evaluation_tables, operating_curves, page, panels, score_histograms, tables, training_curve
from jaxvae.report.page import Figure, Section
from jaxvae.report.style import display
from jaxvae.scores import MAPS
from jaxvae.scores.batches import Scores

# The maps in the panels. With all variants of Combi, the columns would be too narrow.
DRAWN = ("rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi", "combi_smoothed")


def write(
    report: Path,
    test: Dataset,
    scores: Scores,
    evaluation: dict[str, Any],
    config: dict[str, Any],
    cases: int,
    records: list[dict[str, Any]],
    viewer: Section | None,
) -> None:
    """Write all figures, tables and the page of a report into its folder.

    `cases` is as in `run_report`, `records` are the lines of the run's metrics.jsonl.
    """
    if config.get("volumes"):
        # If the channels are a slice and its neighbours, figures and baselines use the slice.
        test = replace(test, images=slices.middle(test.images))
        if evaluation["pixels"]:
            scores = replace(scores, reconstructions=slices.middle(scores.reconstructions))
    total = 3 * bool(evaluation["pixels"]) + 2 * (not evaluation_tables.why(evaluation["images"])) + bool(records)
    drawn = _figures(report, test, scores, evaluation, cases, records)
    figures = list(Bar(drawn, "draw", total, leave=False, unit="figure"))
    parts, markdown = [], []
    for caption, rows, columns, best in evaluation_tables.of(evaluation):
        parts.append(tables.html(rows, columns, caption=caption, best=best))
        markdown.append(f"{caption}:\n\n{tables.markdown(rows, columns, best=best)}\n")
    files.write(report / "results.md", "\n".join(markdown).encode())
    levels = [(level, row) for level in ("pixels", "samples") for row in evaluation[level]]
    levels += [(table["caption"], row) for table in evaluation.get("volumes", ()) for row in table["rows"]]
    context = {name: value for name, value in evaluation.items() if name not in ("pixels", "samples", "volumes")}
    tables.write_json(report / "results.json", [{"level": level, **row} for level, row in levels], context)
    place = report.resolve().parent
    run = place.parents[1] if place.parent.name == "on" else place
    facts = {
        "Trained on": Path(config["data"]["data"]).name,
        "Model": _model(config),
        "Checkpoint": f"step {evaluation['step']}",
        "Test images": f"{evaluation['images']['test']}, {evaluation['images']['anomalous']} of them anomalous",
    }
    if precision := evaluation.get("precision"):
        facts["Precision"] = _precision(precision)
    title = f"jaxvae: {run.name}{f' on {place.name}' if run != place else ''}"
    page.html(report / "index.html", title, parts, figures, facts=facts, section=viewer)


def _model(config: dict[str, Any]) -> str:
    """The model of a run, its latent size and its objective, unless that is the ELBO."""
    model, objective = config["model"], config.get("objective", "vae")
    latent = f", latent size {model['latent_size']}" if model.get("latent_size") else ""
    return f"{model['name']}{latent}{f', objective {objective}' if objective != 'vae' else ''}"


def _precision(found: dict[str, str]) -> str:
    """The precision of the scores in a word, or in one per kind of score.

    >>> _precision({"maps": "tensorfloat32", "image_scores": "float32"})
    'maps tensorfloat32, image scores float32'
    """
    if len(set(map(str, found.values()))) == 1:
        return str(next(iter(found.values())))
    return ", ".join(f"{what.replace('_', ' ')} {value}" for what, value in found.items())


def _figures(
    report: Path, test: Dataset, scores: Scores, evaluation: dict[str, Any], cases: int, records: list[dict[str, Any]]
) -> Iterator[Figure]:
    """Draw the figures of the page, one after the other."""
    baselines = baseline_maps(test.images)
    if evaluation["pixels"]:
        rows = [row for row in evaluation["pixels"] if row["score"] in scores.maps]
        if rows:
            leader = max(rows, key=lambda row: np.ravel(row["average_precision"])[0])["score"]
            yield _panels(report / "panels", test, scores, leader, cases)
        yield from _curves(report, "pixels", {**baselines, **scores.maps}, test.masks, evaluation["pixels"])
    if not evaluation_tables.why(evaluation["images"]):
        evaluated = {row["score"] for row in evaluation["samples"]} | baselines.keys()
        found = {**map_means(baselines), **scores.image_scores}
        samples = {name: values for name, values in found.items() if name in evaluated}
        yield from _curves(report, "images", samples, test.labels, evaluation["samples"])
    if records:
        training_curve.figure(report / "training", records)
        caption = "Loss and its two terms during training. Dashed: loss of the validation images at z = mean."
        first, last = records[0], records[-1]
        alt = f"Loss over {last['step']} steps, from {first['loss']:.0f} to {last['loss']:.0f}"
        yield Figure(report / "training.png", caption, alt)


def _panels(path: Path, test: Dataset, scores: Scores, leader: str, cases: int) -> Figure:
    """Draw the images with the best, median and worst Dice of the map with the highest average precision."""
    assert test.masks is not None
    # Dice needs both classes in an image.
    sick = np.flatnonzero(test.masks.any(axis=(1, 2, 3)) & ~test.masks.all(axis=(1, 2, 3)))
    dices = np.array([best_dice(np.asarray(scores.maps[leader][i]), test.masks[i])[0] for i in sick])
    chosen, words = panels.cases(dices, count=cases)
    index = sick[chosen]
    titles = [
        f"{word}: {test.kinds[i]}, {test.names[i].encode(errors='replace').decode()}, Dice {dices[k]:.2f}"
        for word, i, k in zip(words, index, chosen, strict=True)
    ]
    # With all maps the columns would be too narrow: the maps of methods are drawn first.
    of_methods = [name for name in scores.maps if name not in MAPS]
    names = [*dict.fromkeys(name for name in (leader, *of_methods, *DRAWN) if name in scores.maps)][: len(DRAWN)]
    maps = {name: np.asarray(scores.maps[name][index]) for name in names}
    panels.figure(path, test.images[index], scores.reconstructions[index], maps, test.masks[index], titles)
    alt = (
        f"{len(index)} images, each with its reconstruction, the maps {', '.join(map(display, maps))}, and its "
        f"mask; best Dice {dices[chosen].max():.2f}, worst {dices[chosen].min():.2f}"
    )
    return Figure(path.with_suffix(".png"), f"Images with the best, median and worst Dice of {display(leader)}.", alt)


def _curves(
    report: Path, what: str, scores: dict[str, np.ndarray], labels: np.ndarray | None, rows: list[dict[str, Any]]
) -> Iterator[Figure]:
    """Draw the curves and the histograms of pixels or images."""
    assert labels is not None
    number = {key: {row["score"]: np.ravel(row[key])[0] for row in rows} for key in ("auroc", "average_precision")}
    operating_curves.figure(
        report / f"curves_{what}",
        {name: roc_curve(values, labels) for name, values in scores.items()},
        {name: pr_curve(values, labels) for name, values in scores.items()},
        float(labels.mean()),
        **number,
    )
    highest = []
    for key, head in (("auroc", "AUROC"), ("average_precision", "average precision")):
        score = max(number[key], key=number[key].__getitem__)
        highest.append(f"the highest {head} is {number[key][score]:.3f}, of {display(score)}")
    alt = f"Curves of {len(scores)} scores; {' and '.join(highest)}"
    yield Figure(report / f"curves_{what}.png", f"ROC and precision-recall curves of {what}.", alt)
    score_histograms.figure(
        report / f"histograms_{what}",
        {name: (np.asarray(values)[~labels], np.asarray(values)[labels]) for name, values in scores.items()},
    )
    names = ", ".join(map(display, scores))
    caption, alt = f"Histograms of the scores of healthy and anomalous {what}.", f"Histograms of {names}"
    yield Figure(report / f"histograms_{what}.png", caption, alt)
