"""Laws of the report: what is drawn is what was given, what is written is whole, and nothing leaks out or in."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve

from jaxvae.errors import InputError
from jaxvae.metrics.curves import pr_curve, roc_curve
from jaxvae.report import operating_curves, page, panels, score_histograms, style, tables, training_curve


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def decoded(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


# Style


def test_no_two_lines_of_a_figure_are_alike() -> None:
    pixel_scores = ["rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi", "brightness", "equalised_brightness"]
    for names in (pixel_scores, ["kl", "nll", "elbo", "mine"], [*pixel_scores, "mine", "yours"], [*"abcdefghijklmn"]):
        assert len(set(style.lines(names).values())) == len(names)


def test_a_listed_score_keeps_its_line_in_any_company() -> None:
    assert style.lines(["combi"])["combi"] == style.lines(["a", "b", "combi", "kl_grad"])["combi"]


@pytest.mark.parametrize("length", [5, 6, 11, 12, 30])
def test_shortened_text_fits_and_keeps_both_ends(length: int) -> None:
    text = "test/00031.png"
    short = style.shorten(text, length)
    assert len(short) == min(length, len(text))
    assert text.startswith(short.split("…")[0])
    assert text.endswith(short.split("…")[-1])


def test_drawing_leaves_matplotlib_alone(tmp_path: Path) -> None:
    """An import brings in nothing heavy; drawing needs no pyplot, warns of nothing, and changes no global setting."""
    code = """
import sys
from jaxvae.report import operating_curves, page, panels, score_histograms, style, tables
assert "matplotlib" not in sys.modules, "matplotlib is imported with the report"
import matplotlib
import numpy as np
before = matplotlib.rcParams.copy()
image, rates = np.eye(8)[None, ..., None], np.array([0.0, 1.0])
panels.figure("panels.png", image, image, {"combi": image}, image > 0, ["$a_b"])
operating_curves.figure("curves.png", {"combi": (rates, rates)}, {"combi": (rates, rates)}, 0.5)
score_histograms.figure("histograms.png", {"combi": (image, image)})
assert matplotlib.rcParams.copy() == before, "a global setting has changed"
assert "matplotlib.pyplot" not in sys.modules, "pyplot is imported"
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["curves.png", "histograms.png", "panels.png"]


@pytest.mark.parametrize("name", ["figure.pdf", "figure.jpeg"])
def test_other_kinds_of_figure_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: figures are written as .png or .svg"):
        style.save(style.sheet(10, 10), tmp_path / name)


def test_without_an_ending_a_figure_is_written_as_both(tmp_path: Path) -> None:
    style.save(style.sheet(10, 10), tmp_path / "figure")
    assert {path.name for path in tmp_path.iterdir()} == {"figure.png", "figure.svg"}
    assert b"dc:date" not in (tmp_path / "figure.svg").read_bytes()


def test_a_sheet_no_viewer_opens_is_refused() -> None:
    with pytest.raises(InputError, match="too large to look at"):
        style.sheet(1500, 70_000)


# Panels


def test_cases_are_the_extremes_and_the_middle(rng: np.random.Generator) -> None:
    values = rng.permutation(np.append(rng.random(41), [np.nan] * 9))
    index, labels = panels.cases(values, count=3)
    ranked = np.sort(values[~np.isnan(values)])[::-1]
    assert labels == ["best"] * 3 + ["median"] * 3 + ["worst"] * 3
    np.testing.assert_array_equal(values[index], [*ranked[:3], *ranked[19:22], *ranked[-3:]])
    assert values[index[4]] == np.nanmedian(values)


@pytest.mark.parametrize("size", range(8))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_cases_come_once_each_best_first(size: int, count: int) -> None:
    values = np.append(np.nan, np.linspace(0, 1, size))
    index, labels = panels.cases(values, count=count)
    assert len(set(index.tolist())) == len(index) == len(labels) == min(size, 3 * count)
    assert np.all(np.diff(values[index]) < 0)
    assert size == 0 or labels[0] == "best"
    assert size < 2 or labels[-1] == "worst" or count > 1


def test_the_outline_is_the_perimeter_and_closed(rng: np.random.Generator) -> None:
    mask = rng.random((9, 13)) < 0.5
    edges = panels.outline(mask)
    padded = np.pad(mask.astype(int), 1)
    perimeter = sum(int(np.abs(np.diff(padded, axis=axis)).sum()) for axis in (0, 1))
    assert edges.shape == (perimeter, 2, 2)
    np.testing.assert_allclose(np.linalg.norm(edges[:, 1] - edges[:, 0], axis=-1), 1)
    _, meeting = np.unique(edges.reshape(-1, 2), axis=0, return_counts=True)
    assert np.all(meeting % 2 == 0)
    # Half a pixel to either side of an edge's middle, one pixel is inside and one is not.
    middle = edges.mean(axis=1)
    across = np.abs(edges[:, 1] - edges[:, 0])[:, ::-1] / 2
    inside = [padded[tuple((end[:, ::-1] + 1).round().astype(int).T)] for end in (middle - across, middle + across)]
    assert np.all(inside[0] != inside[1])


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_an_image_in_the_figure_is_the_image(tmp_path: Path, rng: np.random.Generator, channels: int) -> None:
    """Every pixel is enlarged by one whole number and keeps its value, in grey or in colour."""
    images = rng.integers(0, 256, (2, 20, 28, channels)).astype(np.uint8)
    images[:, :2, :, :] = np.array([0, 255], np.uint8)[:, None, None]  # so that percentiles are the whole range
    panels.figure(tmp_path / "figure.png", images, None, {}, None, ["first", "second"])
    picture = decoded(tmp_path / "figure.png")
    expected = np.broadcast_to(images[..., :1], (*images.shape[:3], 3)) if channels == 2 else images
    shown = [np.broadcast_to(image, (20, 28, 3)).repeat(11, axis=0).repeat(11, axis=1) for image in expected]
    height, width = shown[0].shape[:2]
    tops = [
        top
        for top in range(picture.shape[0] - height)
        for image in shown
        if np.array_equal(picture[top : top + height, panels.MARGIN : panels.MARGIN + width], image)
    ]
    assert len(tops) == 2


def test_maps_share_one_scale_over_the_rows(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8, 1))
    maps = np.stack([np.full((8, 8, 1), 0.5), np.full((8, 8, 1), 1.0)])
    panels.figure(tmp_path / "figure.png", images, None, {"combi": maps}, None, ["a", "b"])
    from matplotlib import colormaps

    picture = decoded(tmp_path / "figure.png")
    areas = [
        np.count_nonzero(np.all(picture == np.round(255 * np.array(colormaps["inferno"](value)[:3])), axis=-1))
        for value in (128, 255)
    ]
    assert min(areas) > 250**2  # both rows are of one colour, half and full; the rest is the colour bar


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("shape", [(1, 28, 28, 1), (2, 112, 28, 1), (1, 3, 500, 3), (1, 512, 512, 1), (2, 1, 1, 1)])
def test_figures_of_any_shape_are_written(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    images = np.random.default_rng(0).normal(size=shape)
    maps = np.abs(images[..., :1])
    path = tmp_path / f"figure.{suffix}"
    panels.figure(path, images, images, {"kl_grad": maps, "flat": 0 * maps}, maps > 3, ["$x_1$"] * len(images))
    assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")
    assert list(tmp_path.iterdir()) == [path]


def test_a_figure_names_what_does_not_fit(tmp_path: Path) -> None:
    images = np.zeros((2, 4, 4, 1))
    path = tmp_path / "figure.png"
    with pytest.raises(InputError, match=r"the map 'combi': shape \(2, 4, 5, 1\)"):
        panels.figure(path, images, None, {"combi": np.zeros((2, 4, 5, 1))}, None, ["", ""])
    with pytest.raises(InputError, match="the masks"):
        panels.figure(path, images, None, {}, np.zeros((2, 4, 4), bool), ["", ""])
    with pytest.raises(InputError, match="1 titles for 2 images"):
        panels.figure(path, images, None, {}, None, [""])
    with pytest.raises(InputError, match="at least one"):
        panels.figure(path, images[:0], None, {}, None, [])
    assert not path.exists()


# Curves


def test_the_area_below_the_steps_is_the_average_precision(rng: np.random.Generator) -> None:
    labels = rng.random(300) < 0.2
    scores = np.round(rng.normal(size=300) + labels, 1)  # with ties
    expected = average_precision_score(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    for curve in (pr_curve(scores, labels)[:2], (recall, precision)):
        x, y = operating_curves.steps(*curve)
        assert x[0] == 0
        assert x[-1] == 1
        assert np.sum(np.diff(x) * y[1:]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("numbers", [None, {"combi": 0.9, "mine": 0.5}])
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_curves_are_drawn(tmp_path: Path, rng: np.random.Generator, numbers: dict | None, suffix: str) -> None:
    labels = rng.random(200) < 0.3
    scores = {"combi": rng.normal(size=200) + labels, "mine": rng.normal(size=200)}
    path = tmp_path / f"curves.{suffix}"
    operating_curves.figure(
        path,
        {name: roc_curve(values, labels) for name, values in scores.items()},
        {name: pr_curve(values, labels) for name, values in scores.items()},
        labels.mean(),
        auroc=numbers,
    )
    if suffix == "png":
        for colour in ((0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)):
            assert np.count_nonzero(np.all(decoded(path) == colour, axis=-1)) > 500
    else:
        assert "#d55e00" in path.read_text()


def test_curves_refuse_what_is_no_rate(tmp_path: Path) -> None:
    rates, path = np.array([0.0, 1.0]), tmp_path / "curves.png"
    with pytest.raises(InputError, match="ROC curve of 'a': holds values outside"):
        operating_curves.figure(path, {"a": (rates, 100 * rates)}, {}, 0.1)
    with pytest.raises(InputError, match="precision-recall curve of 'a': holds values outside"):
        operating_curves.figure(path, {}, {"a": (rates, np.array([0.0, np.nan]))}, 0.1)
    with pytest.raises(InputError, match="both must be"):
        operating_curves.figure(path, {"a": (rates, rates[:1])}, {}, 0.1)
    with pytest.raises(InputError, match="no curve"):
        operating_curves.figure(path, {}, {}, 0.1)
    assert not path.exists()


# Histograms


@pytest.mark.parametrize(
    ("draw", "heavy"),
    [
        (lambda rng, size: rng.normal(size=size), False),
        (lambda rng, size: rng.uniform(size=size), False),
        (lambda rng, size: rng.exponential(size=size), False),
        (lambda rng, size: rng.lognormal(sigma=2, size=size), True),
        (lambda rng, size: rng.lognormal(sigma=2, size=size) * (rng.random(size) < 0.4), True),
        (lambda rng, size: np.zeros(size), False),
        (lambda rng, size: np.full(size, 3e5, np.float32), False),
    ],
)
def test_histograms_have_area_one_and_a_fitting_axis(rng: np.random.Generator, draw, heavy: bool) -> None:
    healthy, anomalous = draw(rng, 5000), draw(rng, 400)
    edges, log = score_histograms.bins(healthy, anomalous)
    assert log == heavy
    assert np.all(np.diff(edges) > 0)
    for values in (healthy, anomalous):
        heights = score_histograms.densities(values, edges, log=log)
        assert np.sum(heights * np.diff(np.log10(edges) if log else edges)) == pytest.approx(1)


def test_an_outlier_does_not_squeeze_the_axis(rng: np.random.Generator) -> None:
    values = rng.normal(size=5000)
    edges, _ = score_histograms.bins(np.append(values, 1e6), values)
    assert edges[-1] < 5


def test_histograms_are_drawn_and_bad_scores_named(tmp_path: Path, rng: np.random.Generator) -> None:
    path, values = tmp_path / "histograms.png", rng.normal(size=(5, 4, 4, 1))
    score_histograms.figure(path, {f"score {i}": (values, values[:i]) for i in range(5)})
    assert decoded(path).shape[1] == style.WIDTH
    with pytest.raises(InputError, match="score 'kl': holds 2 values that are not finite"):
        score_histograms.figure(path, {"kl": (values, np.array([np.nan, 1.0, np.inf]))})
    with pytest.raises(InputError, match="score 'kl': holds no value"):
        score_histograms.figure(path, {"kl": (values[:0], values[:0])})
    with pytest.raises(InputError, match="no score"):
        score_histograms.figure(path, {})


# Tables

ROWS = [
    {"score": "Combi", "auroc": (0.8123, 0.79, 0.834), "n": 12, "seconds": 1.5, "ok": True},
    {"score": "a|b\nc", "auroc": 0.6, "n": 7, "seconds": np.float32(0.25), "rate": 2e-5},
    {"score": "<none>", "auroc": float("nan"), "n": np.int64(9), "seconds": 0.2501, "rate": None},
]
COLUMNS = {"score": "Score", "auroc": "AUROC", "n": "n", "seconds": "s", "rate": "Rate", "ok": "OK"}


@pytest.mark.parametrize(("low", "high"), [(1e-6, 1.0), (0.2, 30.0), (2.5, 26.0), (0.99, 10.1)])
def test_a_logarithmic_axis_has_ticks_and_few(low: float, high: float) -> None:
    sheet = style.sheet(400, 300)
    panel = style.axes(sheet, 30, 30, 330, 200)
    panel.set(xscale="log", xlim=(low, high))
    score_histograms._few_ticks(panel, low, high)
    ticks = panel.get_xticks()
    assert 0 < len(ticks) <= 4
    assert all(low <= tick <= high for tick in ticks)


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("count", [1, 30])
def test_a_training_is_drawn(tmp_path: Path, count: int, validated: bool) -> None:
    extra = {"validation_elbo": -90.0} if validated else {}
    records = [{"step": 5 * i, "loss": 1e3 / i, "nll": 9e2 / i, "kl": 1e2 / i, **extra} for i in range(1, count + 1)]
    training_curve.figure(tmp_path / "training.png", records)
    assert decoded(tmp_path / "training.png").std() > 0
    with pytest.raises(InputError, match="no record of training to draw"):
        training_curve.figure(tmp_path / "training.png", [])


def test_markdown_by_hand() -> None:
    expected = """\
| Score  |                   AUROC |   n |         s |  Rate | OK  |
| :----- | ----------------------: | --: | --------: | ----: | :-- |
| Combi  | **0.812** (0.790-0.834) |  12 |     1.500 |     – | yes |
| a\\|b c |                   0.600 |   7 | **0.250** | 2e-05 | –   |
| <none> |                       – |   9 | **0.250** |     – | –   |"""
    assert tables.markdown(ROWS, COLUMNS, best={"auroc": max, "seconds": min}) == expected


def test_text_by_hand() -> None:
    expected = """\
score                  auroc   n
------  --------------------  --
Combi   0.812* (0.790-0.834)  12
a|b c                 0.600    7
<none>                    –    9"""
    rows = [{**row, "score": row["score"].replace("\n", " ")} for row in ROWS]
    assert tables.text(rows, ["score", "auroc", "n"]) == expected


@pytest.mark.parametrize("values", [[0.5], [0.5, None], [0.5, 0.50001], [3, 7], ["a", "b"], [None, None]])
def test_nothing_wins_without_a_contest(values: list) -> None:
    assert "**" not in tables.markdown([{"x": value} for value in values], ["x"])


def test_whole_numbers_win_when_asked() -> None:
    assert "**7**" in tables.markdown([{"x": 3}, {"x": 7}], ["x"], best={"x": max})


def test_the_ends_of_an_interval_have_the_digits_of_their_value() -> None:
    rows = [{"a": (0.019, 0.000478, 0.101)}, {"a": (1e-4, 5e-5, 2e-3)}, {"a": (0.0, 0.0, 1e-4)}]
    shown = tables.markdown(rows, ["a"], best={})
    assert "0.019 (0.000-0.101)" in shown
    assert "0.0001 (5e-05 to 0.002)" in shown
    assert "0.000 (0.000-0.0001)" in shown


def test_negative_intervals_are_not_read_as_sums() -> None:
    assert "-1.000 (-1.500 to -0.500)" in tables.text([{"x": (-1.0, -1.5, -0.5)}], ["x"])


def test_a_table_without_rows_is_its_header() -> None:
    assert tables.markdown([], ["score"]).splitlines() == ["| score |", "| :---- |"]
    assert tables.text([], ["score"]).splitlines() == ["score", "-----"]


class Elements(HTMLParser):
    """The elements of a page with their attributes, in order, and whether all were closed in turn."""

    VOID = ("meta", "img", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_html_tables_tell_headers_from_cells() -> None:
    element = tables.html(ROWS, COLUMNS, caption="Pixels & images")
    elements = Elements(element)
    scopes = [attributes["scope"] for attributes in elements.all("th")]
    assert scopes == ["col"] * 6 + ["row"] * 3
    assert len(elements.all("td")) == 5 * 3
    assert "<caption>Pixels &amp; images</caption>" in element
    noted = tables.html(ROWS, COLUMNS, caption="Pixels; a < b; c")
    assert "<caption>Pixels <small>a &lt; b; c</small></caption>" in noted
    assert "&lt;none&gt;" in element
    assert "<strong>0.812</strong> (0.790-0.834)" in element


def test_json_keeps_every_number(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    rows = [{"auroc": 0.1 + 0.2, "n": np.int64(3), "interval": (0.5, np.float64(0.25), 1.0), "none": None}]
    tables.write_json(path, rows, {"data": Path("a/b"), "edges": np.arange(3), "name": "é"})
    assert json.loads(path.read_text("utf-8")) == {
        "context": {"data": "a/b", "edges": [0, 1, 2], "name": "é"},
        "rows": [{"auroc": 0.1 + 0.2, "n": 3, "interval": [0.5, 0.25, 1.0], "none": None}],
    }


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), np.array([1, np.nan]), {1, 2}, object()])
def test_json_names_what_it_cannot_hold(tmp_path: Path, value: object) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(InputError, match=r"results.json: rows\[1\].auroc(\[1\])? is"):
        tables.write_json(path, [{"auroc": 1.0}, {"auroc": value}], {})
    assert not path.exists()


# The page


def test_the_page_stands_alone(tmp_path: Path) -> None:
    for name in ("a.png", "b.svg"):
        style.save(style.sheet(60, 40), tmp_path / name)
    path = tmp_path / "report" / "index.html"
    page.html(
        path,
        "Run <1> & {more}",
        [tables.html(ROWS, COLUMNS, caption="Pixels")],
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
    # Nothing that could fetch anything.
    assert not {"script", "link", "iframe", "a"} & {tag for tag, _ in elements.found}
    assert "url(" not in content
    assert "http" not in content.replace("http-equiv", "")


def test_the_page_names_a_figure_it_cannot_show(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    with pytest.raises(InputError, match=r"gone.png: cannot be read \(No such file or directory\)"):
        page.html(path, "Title", [], [page.Figure(tmp_path / "gone.png", "", "")])
    with pytest.raises(InputError, match=r"a.pdf: a page shows"):
        page.html(path, "Title", [], [page.Figure("a.pdf", "", "")])
    assert not path.exists()
