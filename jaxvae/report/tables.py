"""Numbers in rows: as Markdown, as text for a terminal, as HTML, as JSON.

A row is a dict. Text and whole numbers are shown as they are, other numbers with three decimals, a tuple
(value, low, high) as `0.812 (0.790-0.834)`, and what is missing (no such key, None, NaN) as an en dash. Columns are
keys, or a mapping from keys to headers. `best` names the columns where one value wins and how, as
`{"auroc": max, "seconds": min}`; left out, it is the highest in every column of decimals. Values that are shown alike
win together; where all are alike, or there is just one, none does.
"""

from __future__ import annotations

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
    """One value as it is shown, its interval, the number that competes in its column, and whether it wins there."""

    value: str
    interval: str = ""
    number: float | None = None
    best: bool = False


class Column(NamedTuple):
    """A header and the cells below it; numbers are set flush right."""

    header: str
    cells: list[Cell]
    numeric: bool


def markdown(rows: Sequence[Row], columns: Columns, *, best: Best | None = None) -> str:
    """The table in Markdown, aligned in its source too, the best of each column bold; ends without a line break.

    >>> rows = [{"score": "|x|", "auroc": 0.61}, {"score": "Combi", "auroc": (0.9123, 0.9, 0.92)}]
    >>> print(markdown(rows, {"score": "Score", "auroc": "AUROC"}))
    | Score |                   AUROC |
    | :---- | ----------------------: |
    | \\|x\\| |                   0.610 |
    | Combi | **0.912** (0.900-0.920) |
    """

    def shown(cell: Cell) -> str:
        value = _markdown_text(cell.value)
        return (f"**{value}**" if cell.best else value) + cell.interval

    table = [
        _aligned([_markdown_text(column.header), *map(shown, column.cells)], column.numeric, rule=1)
        for column in _columns(rows, columns, best)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*table, strict=True))


def text(rows: Sequence[Row], columns: Columns, *, best: Best | None = None) -> str:
    """The table for a terminal, the best of each column starred; ends without a line break.

    >>> rows = [{"score": "KL-Grad", "auroc": 0.61, "n": 9}, {"score": "Combi", "auroc": 0.9}]
    >>> print(text(rows, ["score", "auroc", "n"]))
    score     auroc  n
    -------  ------  -
    KL-Grad  0.610   9
    Combi    0.900*  –
    """
    table = []
    for column in _columns(rows, columns, best):
        # A column in which something wins keeps a place for the star, so that its decimals stay in line.
        rest = " " if any(cell.best for cell in column.cells) else ""
        cells = [cell.value + ("*" if cell.best else rest) + cell.interval for cell in column.cells]
        table.append(_aligned([column.header, *cells], column.numeric, rule=0))
    return "\n".join("  ".join(line).rstrip() for line in zip(*table, strict=True))


def html(rows: Sequence[Row], columns: Columns, *, caption: str, best: Best | None = None) -> str:
    """The table as an HTML element with its caption, scopes for screen readers, and the best of each column strong.

    The first column names its row. What follows the caption's first semicolon is a note.
    """
    table = _columns(rows, columns, best)
    first = [True] + [False] * (len(table) - 1)
    heads = "".join(f'<th scope="col"{_flush(column)}>{escape(column.header)}</th>' for column in table)
    body = "\n".join(f"<tr>{''.join(line)}</tr>" for line in zip(*map(_html_cells, table, first), strict=True))
    return (
        f"<table>\n<caption>{_titled(caption)}</caption>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )


def _titled(caption: str) -> str:
    """A caption, with its note in small letters."""
    title, semicolon, note = caption.partition("; ")
    return escape(title) + (f" <small>{escape(note)}</small>" if semicolon else "")


def write_json(path: str | os.PathLike[str], rows: Sequence[Row], context: Mapping[str, Any]) -> None:
    """Writes `{"context": ..., "rows": [...]}` whole or not at all, in JSON that every reader takes.

    NumPy's numbers and arrays become plain ones, at full precision.

    Raises:
      InputError: a value is NaN or infinite, which JSON has no word for (write None), or of a kind it does not know;
        or the file cannot be written.
    """
    content = {"context": _plain(context, f"{path}: context"), "rows": _plain(list(rows), f"{path}: rows")}
    files.write(
        path, (json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode(errors="replace")
    )


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
    """The ends with the digits of their value, where there is one and it is not zero."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    # A hyphen beside a minus sign, or an exponent's, would be read as part of the number.
    ends = _decimal(low, value), _decimal(high, value)
    return f" ({' to '.join(ends) if '-' in ''.join(ends) else '-'.join(ends)})"


def _html_cells(column: Column, first: bool) -> list[str]:
    opening, closing = (f'<th scope="row"{_flush(column)}>', "</th>") if first else (f"<td{_flush(column)}>", "</td>")
    values = [f"<strong>{escape(cell.value)}</strong>" if cell.best else escape(cell.value) for cell in column.cells]
    return [opening + value + cell.interval + closing for value, cell in zip(values, column.cells, strict=True)]


def _decimal(number: Any, like: Any = None) -> str:
    """Three decimals, unless they would hide the number, or that which it is to look like, as of a learning rate, or
    drown it, as of a count of pixels."""
    size = abs(like or number)
    return f"{number:.3f}" if size == 0 or 5e-4 <= size < 1e6 else f"{number:.3g}"


def _aligned(cells: list[str], numeric: bool, *, rule: int) -> list[str]:
    """Header and cells at one width, with the line below the header; `rule` colons tell Markdown the side."""
    width = max(3 * rule, *map(len, cells))
    line = "-" * (width - rule)
    padded = [cell.rjust(width) if numeric else cell.ljust(width) for cell in cells]
    return [padded[0], line + ":" * rule if numeric else ":" * rule + line, *padded[1:]]


def _markdown_text(value: str) -> str:
    return value.replace("\n", " ").replace("|", "\\|")


def _flush(column: Column) -> str:
    return ' class="number"' if column.numeric else ""


def _plain(value: Any, where: str) -> Any:
    """`value` in JSON's own kinds; `where` is how an error names it."""
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
