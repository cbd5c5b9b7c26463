"""The tables of an evaluation, under the heads that readers expect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jaxvae.errors import InputError
from jaxvae.evaluation.image_metrics import PIXEL_BEST, PIXEL_COLUMNS, RATES, SAMPLE_COLUMNS
from jaxvae.evaluation.volume_metrics import BEST as VOLUME_BEST
from jaxvae.evaluation.volume_metrics import COLUMNS
from jaxvae.evaluation.volume_tables import VolumeSettings
from jaxvae.metrics.intervals import FEWEST_GROUPS
from jaxvae.report import style, tables

# What a reader has to know of a table, wherever it is shown.
ORACLE = "best Dice is chosen on these very labels"
NOTE = (
    "best Dice and the threshold at 5 % FPR are chosen on these very labels; equalised x ranks the pixels of each "
    f"image or slice; in brackets the 95 % interval over resampled images or patients, of at least {FEWEST_GROUPS}"
)
FOUND = f"a lesion of {VolumeSettings().smallest_lesion} voxels or more is found where one of its voxels is"


def text(evaluation: dict[str, Any]) -> str:
    """The tables for a terminal."""
    images = evaluation["images"]
    parts = []
    if evaluation["pixels"]:
        rows = named(evaluation["pixels"])
        share = 100 * evaluation["anomalous_pixels"]
        parts.append(f"Pixels: {share:.2f} % anomalous, all pooled, background included\n(* wins its column; {NOTE})\n")
        parts.append(tables.text(rows, PIXEL_COLUMNS, best=PIXEL_BEST) + "\n")
    for caption, rows, columns in of_healthy(evaluation):
        parts.append(f"{caption}\n\n{tables.text(rows, columns, best={})}\n")
    parts.append(
        f"Images: {images['anomalous']} of {images['test']} anomalous{'; ' * bool(why(images))}{why(images)}\n"
    )
    parts.append(tables.text(named(evaluation["samples"]), SAMPLE_COLUMNS))
    for caption, rows, columns in of_volumes(evaluation):
        parts.append(f"\n{caption}\n")
        parts.append(tables.text(rows, columns, best=VOLUME_BEST))
    return "\n".join(parts)


def checked(evaluation: dict[str, Any], again: str) -> dict[str, Any]:
    """The evaluation, if its tables can be made.

    Args:
      again: the command that evaluates anew.

    Raises:
      InputError: a row or a column is missing, or a value is of another type.
    """
    try:
        text(evaluation)
        for row in (*evaluation["pixels"], *evaluation["samples"]):
            # A cell is a number, None, or a number with its interval.
            cells = [row["auroc"], row["average_precision"], *row.values()]
            numbers = [number for cell in cells for number in (cell if isinstance(cell, list) else [cell])]
            if wrong := [one for one in numbers if not isinstance(one, int | float | None) and one != row["score"]]:
                raise ValueError(f"{row['score']} has {wrong[0]!r}")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"evaluation.json: its tables are damaged ({reason}); run {again} again") from error
    return evaluation


def why(images: dict[str, int]) -> str:
    """Why the metrics of whole images are missing; empty if they are not.

    >>> why({"test": 6, "anomalous": 6})
    'AUROC and AP need healthy images too, and there are none'
    """
    if images["anomalous"] not in (0, images["test"]):
        return ""
    return f"AUROC and AP need {'healthy' if images['anomalous'] else 'anomalous'} images too, and there are none"


def of_healthy(evaluation: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]], dict[str, str]]]:
    """(caption, rows, columns) of the table for test images that are all healthy, if there is one."""
    if rows := evaluation.get("false_positives"):
        columns = {f"at_{rate:g}": f"at healthy {100 * rate:g}%" for rate in RATES}
        caption = (
            "Pixels: none is anomalous; the share that is marked at the thresholds of the healthy validation images"
        )
        yield caption, named(rows), {"score": "score", **columns}


def of_volumes(evaluation: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]], dict[str, str]]]:
    """(caption, rows, columns) of every table of volumes: over all thresholds, then at that of each healthy rate."""
    for table in evaluation.get("volumes", ()):
        if not table["rows"]:
            continue
        rows = named(table["rows"])
        caption = f"{table['caption']}; {rows[0]['volumes']} volumes; {ORACLE}, mean best Dice anew for each volume"
        anywhere = {key: head for key, head in COLUMNS.items() if "_at_healthy_" not in key and key != "volumes"}
        yield caption, rows, anywhere
        for rate in RATES:
            suffix = f"_at_healthy_{rate:g}"
            at = {key: head.partition(" at healthy")[0] for key, head in COLUMNS.items() if key.endswith(suffix)}
            if any(at.keys() <= row.keys() for row in rows):
                short = table["caption"].partition(";")[0]
                healthy = f"{100 * rate:g} % of the healthy voxels {table['reference']}"
                comma = "," * ("," in table["reference"])
                caption = f"{short}; at the threshold that {healthy}{comma} reach; {FOUND}"
                yield caption, rows, {"score": "score", **at}


def named(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of evaluation.json with scores under their display names and intervals as the tuples tables expect."""
    return [
        {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        | {"score": style.display(row["score"])}
        for row in rows
    ]
