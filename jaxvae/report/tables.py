"""Tables as Markdown, text for a terminal, HTML and JSON.

A row is a dict. Numbers have three decimals, a tuple (value, low, high) is shown as `0.812 (0.790-0.834)`, and a
missing value (no key, None, NaN) as an en dash. Columns are keys, or a mapping from keys to headers. `best` selects the
columns whose best value is marked, as `{"auroc": max, "seconds": min}`; by default, the highest value of every column
of decimals. Values that look the same are marked together; if all look the same, none is marked.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from jaxvae import files
from jaxvae.errors import InputError

Row = Mapping[str, Any]
Columns = Sequence[str] | Mapping[str, str]
Best = Mapping[str, Callable[[Iterable[float]], float]]

MISSING = "–"


class Cell(NamedTuple):
    """One value: text, interval, number, and whether it is the best."""

    value: str
    interval: str = ""
    number: float | None = None
    best: bool = False


class Column(NamedTuple):
    """A header and the cells below it; columns of numbers are aligned to the right."""

    header: str
    cells: list[Cell]
    numeric: bool


def markdown(rows: Sequence[Row], columns: Columns, *, best: Best | None = None) -> str:
    """The table in aligned Markdown, the best of each column bold.

    >>> rows = [{"score": "|x|", "auroc": 0.61}, {"score": "Combi", "auroc": (0.9123, 0.9, 0.92)}]
    >>> print(markdown(rows, {"score": "Score", "auroc": "AUROC"}))
    | Score |                   AUROC |
    | :---- | ----------------------: |
    | \\|x\\| |                   0.610 |
    | Combi | **0.912** (0.900-0.920) |
    """
    table = []
    for column in _columns(rows, columns, best):
        cells = [(f"**{cell.value}**" if cell.best else cell.value) + cell.interval for cell in column.cells]
        cells = [cell.replace("\n", " ").replace("|", "\\|") for cell in (column.header, *cells)]
        table.append(_aligned(cells, column.numeric, rule=1))
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*table, strict=True))


def text(rows: Sequence[Row], columns: Columns, *, best: Best | None = None) -> str:
    """The table for a terminal, the best of each column with a star."""
    table = []
    for column in _columns(rows, columns, best):
        # A column with a star has a place for it in each cell, so that the decimals stay aligned.
        rest = " " if any(cell.best for cell in column.cells) else ""
        cells = [cell.value + ("*" if cell.best else rest) + cell.interval for cell in column.cells]
        table.append(_aligned([column.header, *cells], column.numeric, rule=0))
    return "\n".join("  ".join(line).rstrip() for line in zip(*table, strict=True))


def html(rows: Sequence[Row], columns: Columns, *, caption: str, best: Best | None = None) -> str:
    """The table as an HTML element, the best of each column strong.

    The first column names its row. The caption's text after its first semicolon is shown as a note.
    """
    table = _columns(rows, columns, best)
    first = [True] + [False] * (len(table) - 1)
    heads = "".join(f'<th scope="col"{_flush(column)}>{escape(column.header)}</th>' for column in table)
    body = "\n".join(f"<tr>{''.join(line)}</tr>" for line in zip(*map(_html_cells, table, first), strict=True))
    title, semicolon, note = caption.partition("; ")
    note = f" <small>{escape(note)}</small>" if semicolon else ""
    return (
        f"<table>\n<caption>{escape(title)}{note}</caption>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )


def write_json(path: str | os.PathLike[str], rows: Sequence[Row], context: Mapping[str, Any]) -> None:
    """Write `{"context": ..., "rows": [...]}` as JSON in full precision.

    Raises:
      InputError: a value is NaN, infinite or of a type that JSON does not have, or the file cannot be written.
    """
    content = {"context": _plain(context, f"{path}: context"), "rows": _plain(list(rows), f"{path}: rows")}
    lines = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    files.write(path, f"{lines}\n".encode(errors="replace"))


def _columns(rows: Sequence[Row], columns: Columns, best: Best | None) -> list[Column]:
    headers = columns if isinstance(columns, Mapping) else {key: key for key in columns}
    table = []
    for key, header in headers.items():
        cells = [_cell(row.get(key)) for row in rows]
        numbers = {cell.number: cell.value for cell in cells if cell.number is not None}
        decimals = any(isinstance(row.get(key), float | np.floating | tuple) for row in rows)
        winner = best.get(key) if best is not None else max if decimals else None
        if winner is not None and len(set(numbers.values())) > 1:
            top = numbers[winner(numbers)]
            cells = [cell._replace(best=cell.number is not None and cell.value == top) for cell in cells]
        table.append(Column(header, cells, numeric=bool(numbers)))
    return table


def _cell(value: Any) -> Cell:
    interval = ""
    if isinstance(value, tuple):
        value, low, high = value
        interval = _interval(low, high, value)
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return Cell(MISSING)
    if isinstance(value, bool | np.bool_):
        return Cell("yes" if value else "no")
    if isinstance(value, int | float | np.number):
        shown = str(value) if isinstance(value, int | np.integer) else _decimal(value)
        return Cell(shown, interval, float(value))
    return Cell(str(value))


def _interval(low: float | None, high: float | None, value: float | None) -> str:
    """The ends as text, with as many digits as their value."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    # A hyphen next to a minus sign would look like a part of the number.
    ends = _decimal(low, value), _decimal(high, value)
    return f" ({' to '.join(ends) if '-' in ''.join(ends) else '-'.join(ends)})"


def _html_cells(column: Column, first: bool) -> list[str]:
    opening, closing = (f'<th scope="row"{_flush(column)}>', "</th>") if first else (f"<td{_flush(column)}>", "</td>")
    values = [f"<strong>{escape(cell.value)}</strong>" if cell.best else escape(cell.value) for cell in column.cells]
    return [opening + value + cell.interval + closing for value, cell in zip(values, column.cells, strict=True)]


def _decimal(number: Any, like: Any = None) -> str:
    """Three decimals, or three digits for very small and very large numbers; `like` decides which, if it is given."""
    size = abs(like or number)
    return f"{number:.3f}" if size == 0 or 5e-4 <= size < 1e6 else f"{number:.3g}"


def _aligned(cells: list[str], numeric: bool, *, rule: int) -> list[str]:
    """Header and cells at one width, with the line below the header; `rule` colons mark the side in Markdown."""
    width = max(3 * rule, *map(len, cells))
    line = "-" * (width - rule)
    padded = [cell.rjust(width) if numeric else cell.ljust(width) for cell in cells]
    return [padded[0], line + ":" * rule if numeric else ":" * rule + line, *padded[1:]]


def _flush(column: Column) -> str:
    return ' class="number"' if column.numeric else ""


def _plain(value: Any, where: str) -> Any:
    """`value` in types of JSON; `where` names it in errors."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist(), where)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} is {value}, which JSON cannot hold; leave it out or write None")
    if not isinstance(value, str | int | float | None):
        raise InputError(
            f"{where} is a {type(value).__name__}, which JSON cannot hold; give numbers, text, lists, dicts"
        )
    return value
