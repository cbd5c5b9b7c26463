"""Tables of an evaluation for the terminal, the page and results.md."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxvae.errors import InputError
from jaxvae.evaluation.image_metrics import PIXEL_BEST, PIXEL_COLUMNS, RATES, SAMPLE_COLUMNS
from jaxvae.evaluation.volume_metrics import BEST as VOLUME_BEST
from jaxvae.evaluation.volume_metrics import COLUMNS
from jaxvae.evaluation.volume_tables import VolumeSettings
from jaxvae.metrics.intervals import FEWEST_GROUPS
from jaxvae.report import style, tables

NOTE = (
    "best Dice and the thresholds at an FPR or TPR are chosen on these test labels; equalised x ranks the pixels of "
    "each image or slice; in brackets the 95 % interval over resampled images or patients, if there are at least "
    f"{FEWEST_GROUPS}"
)
SMALLEST = VolumeSettings().smallest_lesion
FOUND = f"a lesion of at least {SMALLEST} voxels is found if one of its voxels reaches the threshold"


class Table(NamedTuple):
    """One table. The text after the caption's first semicolon is a note."""

    caption: str
    rows: list[dict[str, Any]]
    columns: dict[str, str]  # headers by key
    best: tables.Best | None = None  # as in `tables`


def of(evaluation: dict[str, Any]) -> Iterator[Table]:
    """All tables: of pixels, of whole images, and of volumes."""
    images = evaluation["images"]
    if evaluation["pixels"]:
        share = 100 * evaluation["anomalous_pixels"]
        caption = f"Pixels: {share:.2f} % anomalous, all pooled, background included; {NOTE}"
        yield Table(caption, _named(evaluation["pixels"]), PIXEL_COLUMNS, PIXEL_BEST)
    if rows := evaluation.get("false_positives"):
        columns = {f"at_{rate:g}": f"at healthy {100 * rate:g}%" for rate in RATES}
        caption = "Pixels: all are healthy; the fraction above the thresholds of the healthy validation images"
        yield Table(caption, _named(rows), {"score": "score", **columns}, {})
    note = f"; {why(images)}" if why(images) else ""
    caption = f"Images: {images['anomalous']} of {images['test']} anomalous{note}"
    yield Table(caption, _named(evaluation["samples"]), SAMPLE_COLUMNS)
    for table in evaluation.get("volumes", ()):
        yield from _of_volumes(table)


def text(evaluation: dict[str, Any]) -> str:
    """The tables for a terminal."""
    parts = [f"{one.caption}\n\n{tables.text(one.rows, one.columns, best=one.best)}\n" for one in of(evaluation)]
    return "\n".join([*parts, "* marks the best value of a column"])


def checked(evaluation: dict[str, Any], again: str) -> dict[str, Any]:
    """The evaluation, if its tables are complete; `again` repeats it.

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
    """Why the metrics of whole images are missing; empty if they are there.

    >>> why({"test": 6, "anomalous": 6})
    'AUROC and AP need healthy images too, and there are none'
    """
    if images["anomalous"] not in (0, images["test"]):
        return ""
    return f"AUROC and AP need {'healthy' if images['anomalous'] else 'anomalous'} images too, and there are none"


def _of_volumes(table: dict[str, Any]) -> Iterator[Table]:
    """One table over all thresholds, and one at the threshold of each healthy rate."""
    rows = _named(table["rows"])
    if not rows:
        return
    note = "best Dice is chosen on these test labels, mean best Dice separately for each volume"
    anywhere = {key: head for key, head in COLUMNS.items() if "_at_healthy_" not in key and key != "volumes"}
    yield Table(f"{table['caption']}; {rows[0]['volumes']} volumes; {note}", rows, anywhere, VOLUME_BEST)
    for rate in RATES:
        suffix = f"_at_healthy_{rate:g}"
        at = {key: head.partition(" at healthy")[0] for key, head in COLUMNS.items() if key.endswith(suffix)}
        if any(at.keys() <= row.keys() for row in rows):
            healthy = f"{100 * rate:g} % of the healthy voxels {table['reference']}"
            comma = "," * ("," in table["reference"])
            caption = f"{table['caption'].partition(';')[0]}; at the threshold that {healthy}{comma} reach; {FOUND}"
            yield Table(caption, rows, {"score": "score", **at}, VOLUME_BEST)


def _named(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of evaluation.json with the labels of scores, and with intervals as tuples for `tables`."""
    return [
        {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        | {"score": style.display(row["score"])}
        for row in rows
    ]
