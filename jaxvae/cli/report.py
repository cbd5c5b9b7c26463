"""`jaxvae report`: figures, tables and a page from an evaluated run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxvae.cli.evaluate import named
from jaxvae.cli.source import from_config, open_splits
from jaxvae.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from jaxvae.data.dataset import Dataset


@dataclass(frozen=True)
class Report:
    """Draw what an evaluated run found: panels, curves, histograms and the tables, and one page with all of them."""

    run: Annotated[Path, tyro.conf.Positional]
    """the run folder, after `jaxvae evaluate`"""
    cases: int = 2
    """images a kind in the panels: best, median and worst"""

    def execute(self) -> None:
        if self.cases < 1:
            raise InputError(f"--cases {self.cases}: must be positive")
        from jaxvae import checkpoint, results

        evaluation = results.read_evaluation(self.run)
        config = checkpoint.read_config(self.run)
        test = open_splits(from_config(config["data"])).test
        draw(self.run / "report", self.run / "scores", test, evaluation, config, self.cases)
        print(f"{self.run / 'report'}: index.html shows everything; the figures and tables lie beside it")


def draw(
    report: Path, scores: Path, test: Dataset, evaluation: dict[str, Any], config: dict[str, Any], cases: int
) -> None:
    """Every figure and table of a report into its folder."""
    from jaxvae import files
    from jaxvae.evaluation import PIXEL_COLUMNS, SAMPLE_COLUMNS, baseline_maps, baseline_samples
    from jaxvae.report import page, tables

    figures, parts, markdown = [], [], []
    if evaluation["pixels"]:
        maps = {
            path: _map(scores, path) for path in (row["score"] for row in evaluation["pixels"]) if _is_map(scores, path)
        }
        _panels(report / "panels.png", scores, test, maps, cases)
        figures.append(page.Figure(report / "panels.png", "Best, median and worst images by Dice of Combi.", "Panels"))
        everything = {**baseline_maps(test.images), **maps}
        figures += _curves(report, "pixels", everything, test.masks, evaluation["pixels"])
        caption = "Pixels, all pooled, background included"
        rows, best = (
            named(evaluation["pixels"]),
            {key: max for key in PIXEL_COLUMNS if key not in ("score", "fpr_at_tpr")},
        )
        parts.append(tables.html(rows, PIXEL_COLUMNS, caption=caption, best=best))
        markdown += [f"{caption}:\n", tables.markdown(rows, PIXEL_COLUMNS, best=best) + "\n"]
    samples = {**baseline_samples(test.images), **_samples(scores)}
    figures += _curves(report, "images", samples, test.labels, evaluation["samples"])
    rows = named(evaluation["samples"])
    parts.append(tables.html(rows, SAMPLE_COLUMNS, caption="Whole images"))
    markdown += ["Whole images:\n", tables.markdown(rows, SAMPLE_COLUMNS) + "\n"]
    tables.write_json(report / "results.json", evaluation["pixels"], {**evaluation, "pixels": None})
    files.write(report / "results.md", "\n".join(markdown).encode())
    facts = {
        "Data": str(config["data"]["data"]).rsplit("/", 1)[-1],
        "Model": f"{config['model']['name']}, latent {config['model']['latent_size']}",
        "Checkpoint": f"step {evaluation['step']}",
        "Test": f"{evaluation['images']['anomalous']} of {evaluation['images']['test']} images anomalous",
    }
    page.html(report / "index.html", f"jaxvae: {report.parent.name}", parts, figures, facts=facts)


def _map(scores: Path, name: str) -> np.ndarray:
    import numpy as np

    return np.load(scores / f"{name}.npy", mmap_mode="r")


def _is_map(scores: Path, name: str) -> bool:
    return (scores / f"{name}.npy").is_file()


def _samples(scores: Path) -> dict[str, np.ndarray]:
    import numpy as np

    from jaxvae import files
    from jaxvae.results import SAMPLES

    records = files.read_lines(scores / "samples.jsonl")
    return {name: np.array([record[name] for record in records]) for name in SAMPLES}


def _panels(path: Path, scores: Path, test: Dataset, maps: dict[str, np.ndarray], cases: int) -> None:
    import numpy as np

    from jaxvae.metrics import best_dice
    from jaxvae.report import panels

    assert test.masks is not None
    sick = np.flatnonzero(test.masks.any(axis=(1, 2, 3)))
    dices = np.array([best_dice(np.asarray(maps["combi"][i]), test.masks[i])[0] for i in sick])
    chosen, words = panels.cases(dices, count=cases)
    index = sick[chosen]
    titles = [
        f"{word}: {test.kinds[i]}, {test.names[i]}, Dice {dices[k]:.2f}"
        for word, i, k in zip(words, index, chosen, strict=True)
    ]
    panels.figure(
        path,
        test.images[index],
        np.load(scores / "reconstructions.npy", mmap_mode="r")[index],
        {name: np.asarray(values[index]) for name, values in maps.items()},
        test.masks[index],
        titles,
    )


def _curves(
    report: Path, what: str, scores: dict[str, np.ndarray], labels: np.ndarray | None, rows: list[dict[str, Any]]
) -> list[Any]:
    """Curves and histograms of one table, for pixels or images."""
    import numpy as np

    from jaxvae.curves import pr_curve, roc_curve
    from jaxvae.report import curves, histograms, page

    assert labels is not None
    number = {key: {row["score"]: np.ravel(row[key])[0] for row in rows} for key in ("auroc", "average_precision")}
    curves.figure(
        report / f"curves_{what}.png",
        {name: roc_curve(values, labels) for name, values in scores.items()},
        {name: pr_curve(values, labels) for name, values in scores.items()},
        float(labels.mean()),
        **number,
    )
    histograms.figure(
        report / f"histograms_{what}.png",
        {name: (np.asarray(values)[~labels], np.asarray(values)[labels]) for name, values in scores.items()},
    )
    return [
        page.Figure(
            report / f"curves_{what}.png", f"ROC and precision-recall curves of {what}.", "Curves of each score"
        ),
        page.Figure(report / f"histograms_{what}.png", f"Scores of healthy and anomalous {what}.", "Histograms"),
    ]
