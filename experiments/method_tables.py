"""The tables and the figure of `experiments.methods`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxvae.errors import counted
from jaxvae.report import style, tables

Row = dict[str, Any]
METRICS = {"average_precision": "AP", "best_dice": "best Dice", "auroc": "AUROC", "aupro": "AUPRO"}
COLOURS = {"no model": style.MUTED, "VAE": style.PALETTE[0]}
SHOWN = 25  # scores in each panel of the figure
OTHERS = style.PALETTE[1]  # the colour of the other variants

# Results of others: (test set here, method, metric, value, source, why it cannot be compared, or "" if it can).
SHORTER = "1,500 steps here, 10,550 there; one seed"
PUBLISHED = (
    ("FashionMNIST", "VAE: ELBO, held-out classes 0, 5, 8", "AUROC", "0.59, 0.72, 0.92", "Zimmerer 2019", SHORTER),
    ("FashionMNIST", "VAE: NLL, held-out classes 0, 5, 8", "AUROC", "0.57, 0.77, 0.92", "Zimmerer 2019", SHORTER),
    ("BraTS-2015 FLAIR", "VAE: KL-Grad", "AUROC", "0.83-0.85", "Zimmerer 2019", "HCP, BraTS-2017, T2"),
    ("BraTS-2015 FLAIR", "VAE: Combi", "AUROC", "0.83-0.84", "Zimmerer 2019", "HCP, BraTS-2017, T2"),
    ("BraTS-2015 FLAIR", "ceVAE", "AUROC", "0.95", "Zimmerer 2018, abstract", "HCP, BraTS-2017, T2"),
    ("BraTS-2015 FLAIR", "VAE: Combi", "AP", "0.105", "Meissen 2022, FAE", "CamCAN, BraTS-2020, T1"),
    ("BraTS-2015 FLAIR", "Gaussian mixture", "Dice", "0.22", "Zimmerer 2019, table", "BraTS-2015, four contrasts"),
    ("BraTS-2015 FLAIR", "GHMRF", "Dice", "0.72", "Zimmerer 2019, table", "BraTS-2013, four contrasts, tissue atlas"),
    ("BraTS-2015 FLAIR", "cross-saliency", "Dice", "0.75", "Zimmerer 2019, table", "BraTS-2014, high grade only"),
)


def summarize(rows: list[Row], labels: dict[str, tuple[str, str]]) -> list[Row]:
    """One row per test set, level, variant and score: means over seeds, and over the classes of FashionMNIST.

    Args:
      rows: of `experiments.methods`.
      labels: the label and the test file of each variant.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["test"], row["level"], row["variant"], row["score"]), []).append(row)
    summary = []
    for (test, level, variant, score), members in groups.items():
        label, test_file = labels[variant]
        row: Row = {"test": test, "level": level, "method": label, "score": style.display(score), "name": score}
        row |= {"images": members[0]["images"], "runs": len(members)}
        for metric in METRICS:
            found = [member[metric] for member in members if member[metric] is not None]
            if not found:
                row[metric] = None
            elif all(isinstance(value, list | tuple) for value in found):
                # Each end of the interval is averaged too.
                row[metric] = tuple(np.mean(found, axis=0).tolist())
            else:
                row[metric] = float(np.mean([np.ravel(value)[0] for value in found]))
        for key in ("training", "fitting", "milliseconds"):
            row[key] = float(np.mean([member[key] for member in members]))
        row["test_file"] = ", ".join(filter(None, (members[0]["test_file"], test_file)))
        summary.append(row)
    return summary


def value(row: Row, metric: str) -> float:
    """A metric without its interval; NaN if it is missing."""
    found = row[metric]
    return float("nan") if found is None else found[0] if isinstance(found, list | tuple) else found


def main_level(summary: list[Row], test: str) -> str:
    """The level by which methods are compared on a test set: pixels if there are masks."""
    levels = {row["level"] for row in summary if row["test"] == test}
    return "pixels" if "pixels" in levels else "images"


def markdown(summary: list[Row]) -> str:
    """All tables in Markdown: AP over test sets, then each test set, then results of others."""
    tests = list(dict.fromkeys(row["test"] for row in summary))
    parts = [over_tests(summary, tests)]
    for test in tests:
        levels = dict.fromkeys((main_level(summary, test), "images"))
        found = ([row for row in summary if (row["test"], row["level"]) == (test, level)] for level in levels)
        parts += [of_test(rows) for rows in found if rows]
    parts.append(published())
    return "\n\n".join(parts)


def over_tests(summary: list[Row], tests: list[str]) -> str:
    """AP of every method on every test set, best mean first, with times and the files that test it."""
    lines: dict[tuple[str, str], Row] = {}
    for row in summary:
        if row["level"] == main_level(summary, row["test"]):
            line = lines.setdefault((row["method"], row["score"]), {"method": row["method"], "score": row["score"]})
            line[row["test"]] = value(row, "average_precision")
            line.setdefault("rows", []).append(row)
    for line in lines.values():
        rows = line.pop("rows")
        line["training"] = f"{np.mean([row['training'] for row in rows]):.0f}"
        line["milliseconds"] = f"{np.mean([row['milliseconds'] for row in rows]):.3g}"
        line["test_file"] = rows[0]["test_file"]
    of_pixels = [test for test in tests if main_level(summary, test) == "pixels"]

    def rank(line: Row) -> tuple[float, float]:
        means = (np.mean([line[test] for test in some if test in line] or [-1.0]) for some in (of_pixels, tests))
        pixels, both = map(float, means)
        return -pixels, -both

    ordered = sorted(lines.values(), key=rank)
    columns = {"method": "method", "score": "score", **{test: test for test in tests}}
    columns |= {"training": "training, s", "milliseconds": "ms per image", "test_file": "tests"}
    words = "AP of pixels (FashionMNIST: of images), ordered by the mean over the test sets with masks"
    return f"{words}:\n\n{tables.markdown(ordered, columns, best=dict.fromkeys(tests, max))}"


def of_test(found: list[Row]) -> str:
    """All metrics of one test set and level, best AP first."""
    ordered = sorted(found, key=lambda row: -np.nan_to_num(value(row, "average_precision"), nan=-1))
    shown = [
        {
            **{key: tuple(row[key]) if isinstance(row[key], list) else row[key] for key in METRICS},
            "method": row["method"],
            "score": row["score"],
            "training": f"{row['training']:.0f}",
            "fitting": f"{row['fitting']:.1f}",
            "milliseconds": f"{row['milliseconds']:.3g}",
        }
        for row in ordered
    ]
    metrics = {key: head for key, head in METRICS.items() if any(row[key] is not None for row in found)}
    columns = {"method": "method", "score": "score", **metrics}
    columns |= {"training": "training, s", "fitting": "fit, s", "milliseconds": "ms per image"}
    first, runs = found[0], max(row["runs"] for row in found)
    words = f"**{first['test']}, {first['level']}.** {first['images']} images, means over {counted(runs, 'run')}"
    return f"{words}:\n\n{tables.markdown(shown, columns)}"


def published() -> str:
    """Results of others beside ours."""
    heads = ("test set here", "method", "metric", "value", "source", "why it differs")
    rows: list[Row] = [dict(zip(heads, line, strict=True)) for line in PUBLISHED]
    return f"Published results, and how their protocol differs:\n\n{tables.markdown(rows, heads, best={})}"


def figure(path: Path, summary: list[Row]) -> None:
    """One panel per test set: AP of the best `SHOWN` scores as bars, best first, with their intervals."""
    tests = list(dict.fromkeys(row["test"] for row in summary))
    by_test = {
        test: sorted(
            (row for row in summary if (row["test"], row["level"]) == (test, main_level(summary, test))),
            key=lambda row: value(row, "average_precision"),
        )[-SHOWN:]
        for test in tests
    }
    most = max(map(len, by_test.values()))
    columns, line, wide = 2, 21, 1500
    rows = -(-len(tests) // columns)
    tall = 90 + line * most
    sheet = style.sheet(wide, 50 + rows * tall)
    style.text(sheet, 20, 25, f"AP of the best {SHOWN} scores, and its 95 % interval", weight="bold")
    for place, (name, colour) in enumerate((*COLOURS.items(), ("other variants", OTHERS))):
        style.text(sheet, 620 + 220 * place, 25, f"■ {name}", color=colour)
    for number, (test, found) in enumerate(by_test.items()):
        row, column = divmod(number, columns)
        height = line * len(found)
        panel = style.axes(sheet, 330 + column * wide / 2, 100 + row * tall, wide / 2 - 360, height)
        draw(panel, test, found)
    style.save(sheet, path)


def draw(panel: Any, test: str, found: list[Row]) -> None:
    """The bars of one test set, the best on top."""
    middle = np.array([value(row, "average_precision") for row in found])
    ends = [row["average_precision"] for row in found]
    low, high = np.array([end[1:] if isinstance(end, list | tuple) else (end, end) for end in ends], float).T
    colours = [COLOURS.get(row["method"], OTHERS) for row in found]
    places = np.arange(len(found))
    panel.barh(places, middle, 0.75, color=colours)
    panel.hlines(places, low, high, color=style.INK, linewidth=style.points(1.5))
    style.plain_axes(panel)
    panel.set_yticks(places, [f"{row['method']}: {row['score']}" for row in found])
    panel.tick_params(axis="y", labelsize=style.points(15), length=0)
    panel.set_ylim(-0.6, len(found) - 0.4)
    panel.set_xlim(left=0)
    panel.set_title(test, loc="left", fontsize=style.points(style.TEXT), color=style.INK)
