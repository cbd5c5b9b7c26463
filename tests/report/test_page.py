"""The page: it needs no other file, and escapes text."""

from __future__ import annotations

from pathlib import Path

import pytest
from html_elements import Elements

from jaxvae.errors import InputError
from jaxvae.report import page, style, tables


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    for name in ("a.png", "b.svg"):
        style.save(style.sheet(60, 40), tmp_path / name)
    path = tmp_path / "report" / "index.html"
    page.html(
        path,
        "Run <1> & {more}",
        [tables.html([{"score": "Combi"}], ["score"], caption="Pixels")],
        [page.Figure(tmp_path / "a.png", "A & b", 'said "so"'), page.Figure(tmp_path / "b.svg", "B", "b")],
        facts={"Data": "phantom <seed 0>"},
    )
    content = path.read_text("utf-8")
    elements = Elements(content)
    assert "<title>Run &lt;1&gt; &amp; {more}</title>" in content
    assert "phantom &lt;seed 0&gt;" in content
    assert [image["alt"] for image in elements.all("img")] == ['said "so"', "b"]
    assert [(image["src"] or "")[:14] for image in elements.all("img")] == ["data:image/png", "data:image/svg"]
    assert elements.all("html") == [{"lang": "en"}]
    # The page contains no element that loads something.
    assert not {"script", "link", "iframe", "a"} & {tag for tag, _ in elements.found}
    assert "url(" not in content
    assert "http" not in content.replace("http-equiv", "")


def test_errors_name_the_figure(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    with pytest.raises(InputError, match=r"gone.png: cannot be read \(No such file or directory\)"):
        page.html(path, "Title", [], [page.Figure(tmp_path / "gone.png", "", "")])
    with pytest.raises(InputError, match=r"a.pdf: a page shows"):
        page.html(path, "Title", [], [page.Figure("a.pdf", "", "")])
    assert not path.exists()
