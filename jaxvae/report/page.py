"""HTML pages as single files that load nothing from elsewhere."""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import NamedTuple

from jaxvae import files
from jaxvae.errors import InputError

KINDS = {".png": "image/png", ".svg": "image/svg+xml"}


class Figure(NamedTuple):
    """A picture of the page: its file, its caption and its description."""

    path: str | os.PathLike[str]
    caption: str
    alt: str


class Section(NamedTuple):
    """HTML to insert as it is, with its own style and script."""

    html: str
    style: str
    script: str


def source(name: str) -> str:
    """The text of a file beside this module, such as `page.html`."""
    return resources.files("jaxvae.report").joinpath(name).read_text("utf-8")


def html(
    path: str | os.PathLike[str],
    title: str,
    tables: Sequence[str],
    figures: Sequence[Figure],
    *,
    facts: Mapping[str, str] | None = None,
    section: Section | None = None,
) -> None:
    """Write the page: title, facts, section, tables, figures, atomically.

    The page is light or dark like the reader's system. Pictures are embedded. The policy in its head forbids all
    requests, and all scripts but the one of the section, which is identified by its hash.

    Args:
      title: plain text.
      tables: elements from `tables.html`, inserted as they are.
      figures: pictures, .png or .svg.
      facts: plain text by name, such as `Model` and `Checkpoint`.
      section: from `viewer.viewer`.

    Raises:
      InputError: a picture is missing or has another ending, or the page cannot be written.
    """
    pairs = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in (facts or {}).items())
    parts = [f"<dl>{pairs}</dl>"] if pairs else []
    parts += [section.html] if section else []
    for i, table in enumerate(tables, 1):
        # A table that is wider than the window scrolls by itself, also with the keyboard.
        parts.append(f'<div class="wide" tabindex="0" role="group" aria-label="Table {i}">{table}</div>')
    parts += map(_figure, figures)
    style, policy = source("page.css"), "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if section:
        style += section.style
        # The hash is of the bytes between the tags. The script comes last because it needs the elements above.
        digest = hashlib.sha256(section.script.encode()).digest()
        policy += f"; script-src 'sha256-{base64.b64encode(digest).decode()}'"
        parts.append(f"<script>{section.script}</script>")
    template = Template(source("page.html"))
    content = template.substitute(title=escape(title), policy=policy, style=style, body="\n".join(parts))
    # A file's name can hold bytes that are not text.
    files.write(path, content.encode(errors="replace"))


def _figure(figure: Figure) -> str:
    path = Path(figure.path)
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: a page shows .png and .svg; save the figure as one of these")
    try:
        content = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); draw the figure before the page") from error
    picture = f'<img src="data:{kind};base64,{content}" alt="{escape(figure.alt)}">'
    return f"<figure>{picture}<figcaption>{escape(figure.caption)}</figcaption></figure>"
