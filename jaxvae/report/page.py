"""One page with everything: a single HTML file that opens anywhere and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from jaxvae import files
from jaxvae.errors import InputError

KINDS = {".png": "image/png", ".svg": "image/svg+xml"}


class Figure(NamedTuple):
    """A picture of the page: its file, the line below it, and what it shows in words for those who cannot see it."""

    path: str | os.PathLike[str]
    caption: str
    alt: str


def html(
    path: str | os.PathLike[str],
    title: str,
    tables: Sequence[str],
    figures: Sequence[Figure],
    *,
    facts: Mapping[str, str] | None = None,
    sections: Sequence[str] = (),
    style: str = "",
    script: str = "",
) -> None:
    """Writes the page: title, facts, sections, tables, figures, in this order; whole or not at all.

    Light or dark as the reader's system is; pictures are embedded; the policy in its head forbids every request, and
    every script but the one given here, which it knows by its hash.

    Args:
      path: the file, `report/index.html` of a run.
      title: plain text.
      tables: elements as `tables.html` makes them, put in as they are.
      figures: pictures, .png or .svg.
      facts: what the numbers rest on (`Data`, `Model`, `Checkpoint`), plain text.
      sections: elements as `viewer.viewer` makes them, put in as they are.
      style, script: what the sections need beside themselves (`viewer.STYLE`, `viewer.SCRIPT`).

    Raises:
      InputError: a picture is missing or of another kind, or the page cannot be written.
    """
    shown = [
        f"<dl>{''.join(f'<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>' for k, v in facts.items())}</dl>"
        if facts
        else "",
        *sections,
        # A table wider than the window scrolls by itself, and can be reached by keyboard to do so.
        *(
            f'<div class="wide" tabindex="0" role="group" aria-label="Table {i}">{t}</div>'
            for i, t in enumerate(tables, 1)
        ),
        *map(_figure, figures),
    ]
    body = "\n".join(part for part in shown if part)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if script:
        # The hash is of the bytes between the tags. The script comes last, when what it works on is there.
        policy += f"; script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        body += f"\n<script>{script}</script>"
    content = PAGE.format(title=escape(title), policy=policy, style=STYLE + style, body=body)
    # A file's name may hold bytes that are no text.
    files.write(path, content.encode(errors="replace"))


def _figure(figure: Figure) -> str:
    kind = KINDS.get(Path(figure.path).suffix.lower())
    if kind is None:
        raise InputError(f"{figure.path}: a page shows .png and .svg; save the figure as one of these")
    try:
        content = base64.b64encode(Path(figure.path).read_bytes()).decode()
    except OSError as error:
        raise InputError(
            f"{figure.path}: cannot be read ({error.strerror}); draw the figure before the page"
        ) from error
    picture = f'<img src="data:{kind};base64,{content}" alt="{escape(figure.alt)}">'
    return f"<figure>{picture}<figcaption>{escape(figure.caption)}</figcaption></figure>"


PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""

STYLE = """\
:root { color-scheme: light dark; --ink: #1f2328; --muted: #626a73; --line: #d8dce1; --page: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --muted: #9aa3ad; --line: #363c44; --page: #16191d; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 3rem 1.5rem 4rem; }
h1 { margin: 0 0 1.5rem; font-size: 1.75rem; line-height: 1.25; font-weight: 650; overflow-wrap: anywhere; }
dl { display: flex; flex-wrap: wrap; gap: 0.75rem 2.5rem; margin: 0 0 2.5rem; }
dt { color: var(--muted); font-size: 0.8125rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 0 0 2.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.5rem; position: sticky; left: 0;
  max-width: min(60rem, 100vw - 3rem); }
caption small { display: block; color: var(--muted); font-size: 0.8125rem; font-weight: 400; }
th, td { padding: 0.35rem 1.1rem 0.35rem 0; text-align: left; font-weight: 400; white-space: nowrap; }
td { font-size: 0.9375rem; }
thead th { color: var(--muted); font-size: 0.8125rem; border-bottom: 1px solid var(--line); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0; }
th.number, td.number { text-align: right; }
strong { font-weight: 700; }
figure { margin: 0 0 2.5rem; }
img { display: block; max-width: 100%; height: auto; background: #ffffff; border-radius: 6px; }
figcaption { margin-top: 0.5rem; color: var(--muted); font-size: 0.875rem; }
"""
