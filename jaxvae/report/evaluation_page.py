"""Figures, tables and the page of an evaluated run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae import files
from jaxvae.data.dataset import Dataset
from jaxvae.data.volumes import slices
from jaxvae.evaluation.image_metrics import PIXEL_BEST, PIXEL_COLUMNS, SAMPLE_COLUMNS, baseline_maps, map_means
from jaxvae.evaluation.volume_metrics import BEST as VOLUME_BEST
from jaxvae.metrics.curves import pr_curve, roc_curve
from jaxvae.metrics.ranking import best_dice
from jaxvae.progress import Bar
from jaxvae.report import operating_curves, page, panels, score_histograms, style, tables, training_curve
from jaxvae.report.evaluation_tables import NOTE, named, of_healthy, of_volumes, why
from jaxvae.report.page import Figure, Section
from jaxvae.scores.batches import Scores

# The maps that panels show: a column for each of Combi's variants would leave none of them legible.
DRAWN = ("rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi", "combi_smoothed")


def write(
    report: Path,
    test: Dataset,
    scores: Scores,
    evaluation: dict[str, Any],
    config: dict[str, Any],
    *,
    cases: int,
    records: Sequence[Mapping[str, float]] = (),
    viewer_section: Section | None = None,
) -> None:
    """Every figure and table of a report into its folder; and the viewer of volumes where there are some.

    Args:
      records: of the training, metrics.jsonl.
    """
    if config.get("volumes"):
        # Of a slice with its neighbours as channels, the slice is what is shown and what brightness is judged by.
        test = replace(test, images=slices.middle(test.images))
        if evaluation["pixels"]:
            scores = replace(scores, reconstructions=slices.middle(scores.reconstructions))
    baselines = baseline_maps(test.images)
    figures, parts, markdown = [], [], []
    with Bar(total=3 if evaluation["pixels"] else 1, desc="draw", unit="figure", leave=False) as bar:
        if evaluation["pixels"]:
            figures.append(_panels(report / "panels", test, scores, _leader(evaluation, scores), cases))
            bar.update()
            maps = {**baselines, **scores.maps}
            figures += _curves(report, "pixels", maps, test.masks, evaluation["pixels"])
            bar.update()
        if not why(evaluation["images"]):
            samples = {**map_means(baselines), **scores.image_scores}
            figures += _curves(report, "images", samples, test.labels, evaluation["samples"])
        bar.update()
    if records:
        training_curve.figure(report / "training", records)
        caption = "The loss and its two terms while it was trained; of the validation images, the loss at z = mean."
        first, last = records[0], records[-1]
        alt = f"Loss over {last['step']} steps, {first['loss']:.0f} at first and {last['loss']:.0f} at last"
        figures.append(page.Figure(report / "training.png", caption, alt))
    if evaluation["pixels"]:
        caption, rows = f"Pixels, all pooled, background included; {NOTE}", named(evaluation["pixels"])
        parts.append(tables.html(rows, PIXEL_COLUMNS, caption=caption, best=PIXEL_BEST))
        markdown.append(f"{caption}:\n\n{tables.markdown(rows, PIXEL_COLUMNS, best=PIXEL_BEST)}\n")
    rows, note = named(evaluation["samples"]), why(evaluation["images"])
    caption = f"Whole images; {note}" if note else "Whole images"
    parts.append(tables.html(rows, SAMPLE_COLUMNS, caption=caption))
    markdown.append(f"{caption}:\n\n{tables.markdown(rows, SAMPLE_COLUMNS)}\n")
    for caption, rows, columns in (*of_healthy(evaluation), *of_volumes(evaluation)):
        parts.append(tables.html(rows, columns, caption=caption, best=VOLUME_BEST))
        markdown.append(f"{caption}:\n\n{tables.markdown(rows, columns, best=VOLUME_BEST)}\n")
    files.write(report / "results.md", "\n".join(markdown).encode())
    levels = [(level, row) for level in ("pixels", "samples") for row in evaluation[level]]
    context = {name: value for name, value in evaluation.items() if name not in ("pixels", "samples", "volumes")}
    levels += [(table["caption"], row) for table in evaluation.get("volumes", ()) for row in table["rows"]]
    tables.write_json(report / "results.json", [{"level": level, **row} for level, row in levels], context)
    facts = {
        "Trained on": Path(config["data"]["data"]).name,
        "Model": f"{config['model']['name']}, latent {config['model']['latent_size']}",
        "Checkpoint": f"step {evaluation['step']}",
        "Test": f"{evaluation['images']['anomalous']} of {evaluation['images']['test']} images anomalous",
    }
    place = report.resolve().parent
    run = place.parents[1] if place.parent.name == "on" else place
    title = f"jaxvae: {run.name}{f' on {place.name}' if run != place else ''}"
    page.html(
        report / "index.html",
        title,
        parts,
        figures,
        facts=facts,
        section=viewer_section,
    )


def _leader(evaluation: dict[str, Any], scores: Scores) -> str:
    """The map with the highest average precision."""
    rows = [row for row in evaluation["pixels"] if row["score"] in scores.maps]
    return max(rows, key=lambda row: np.ravel(row["average_precision"])[0])["score"]


def _panels(path: Path, test: Dataset, scores: Scores, leader: str, cases: int) -> Figure:
    """The images in which the best Dice of the leading map is best, median and worst."""
    assert test.masks is not None
    # Where all of an image is anomalous, there is nothing to tell apart.
    sick = np.flatnonzero(test.masks.any(axis=(1, 2, 3)) & ~test.masks.all(axis=(1, 2, 3)))
    dices = np.array([best_dice(np.asarray(scores.maps[leader][i]), test.masks[i])[0] for i in sick])
    chosen, words = panels.cases(dices, count=cases)
    index = sick[chosen]
    titles = [
        f"{word}: {test.kinds[i]}, {test.names[i].encode(errors='replace').decode()}, Dice {dices[k]:.2f}"
        for word, i, k in zip(words, index, chosen, strict=True)
    ]
    maps = {name: np.asarray(scores.maps[name][index]) for name in DRAWN if name in scores.maps}
    panels.figure(path, test.images[index], scores.reconstructions[index], maps, test.masks[index], titles)
    alt = (
        f"{len(index)} images, each beside its reconstruction, the maps {', '.join(map(style.display, maps))}, and its "
        f"mask; best Dice {dices[chosen].max():.2f}, worst {dices[chosen].min():.2f}"
    )
    return page.Figure(
        path.with_suffix(".png"), f"Best, median and worst images by the Dice of {style.display(leader)}.", alt
    )


def _curves(
    report: Path, what: str, scores: dict[str, np.ndarray], labels: np.ndarray | None, rows: list[dict[str, Any]]
) -> list[Figure]:
    """Curves and histograms of one table, for pixels or images."""
    assert labels is not None
    number = {key: {row["score"]: np.ravel(row[key])[0] for row in rows} for key in ("auroc", "average_precision")}
    operating_curves.figure(
        report / f"curves_{what}",
        {name: roc_curve(values, labels) for name, values in scores.items()},
        {name: pr_curve(values, labels) for name, values in scores.items()},
        float(labels.mean()),
        **number,
    )
    score_histograms.figure(
        report / f"histograms_{what}",
        {name: (np.asarray(values)[~labels], np.asarray(values)[labels]) for name, values in scores.items()},
    )
    first = {key: max(found, key=found.__getitem__) for key, found in number.items()}
    highest = " and ".join(
        f"the highest {head} is {number[key][first[key]]:.3f}, of {style.display(first[key])}"
        for key, head in (("auroc", "AUROC"), ("average_precision", "average precision"))
    )
    curves_alt = f"Curves of {len(scores)} scores; {highest}"
    histograms_alt = (
        f"Histograms of {', '.join(map(style.display, scores))}, healthy and anomalous {what} over each other"
    )
    return [
        page.Figure(report / f"curves_{what}.png", f"ROC and precision-recall curves of {what}.", curves_alt),
        page.Figure(report / f"histograms_{what}.png", f"Scores of healthy and anomalous {what}.", histograms_alt),
    ]
