"""Viewer of volumes: the page contains the given values, shows them, and loads nothing.

The second half needs a Chromium on the path, or named by JAXVAE_CHROMIUM.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxvae.errors import InputError
from jaxvae.report import page, panels, style, viewer
from jaxvae.scoring.overlay import overlay

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def volume(seed: int = 0, **other: Any) -> viewer.Shown:
    """A noisy box on a constant background that is within its range, with a lesion and two maps."""
    rng = np.random.default_rng(seed)
    image = np.full((24, 30, 20), 0.25, np.float32)
    inside = (slice(5, 19), slice(4, 27), slice(3, 18))
    image[inside] = rng.uniform(size=image[inside].shape)
    mask = np.zeros(image.shape, bool)
    mask[12:16, 8:13, 9:12] = True
    mask[13, 9, 10] = False
    maps = {"combi": (rng.random(image.shape) ** 2).astype(np.float32), "mine <b>": rng.random(image.shape)}
    plain = viewer.Shown(f"head {seed}", image, maps, mask, {"combi": 0.4}, (1.0, 1.0, 2.0), {"Age": "40"})
    return plain._replace(**other)


def content_of(section: page.Section) -> dict[str, Any]:
    """The JSON of the section."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', section.html, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def levels(layer: dict[str, Any], entry: dict[str, Any]) -> np.ndarray:
    """The levels in the mosaic of a layer, [X, Y, Z]."""
    kind, content = layer["png"].split(",")
    assert kind == "data:image/png;base64"
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    width, height, depth = entry["size"]
    tiles = [divmod(z, entry["columns"]) for z in range(depth)]
    slices = [sheet[i * height : (i + 1) * height, j * width : (j + 1) * width] for i, j in tiles]
    return np.stack([plane[::-1].T for plane in slices], axis=-1)


def box(entry: dict[str, Any]) -> tuple[slice, ...]:
    """The box of the volume that the entry shows."""
    return tuple(slice(start, start + size) for start, size in zip(entry["origin"], entry["size"], strict=True))


def write(path: Path, *volumes: viewer.Shown) -> str:
    page.html(path, "Volumes", [], [], section=viewer.viewer(volumes))
    return path.read_text("utf-8")


# The content of the page


def test_mosaics_contain_the_levels_of_the_box() -> None:
    shown = volume()
    (entry,) = content_of(viewer.viewer([shown]))["volumes"]
    where = box(entry)
    # Foreground and two voxels around it.
    assert where == (slice(3, 21), slice(2, 29), slice(1, 20))
    low, high = entry["image"]["low"], entry["image"]["high"]
    np.testing.assert_array_equal(levels(entry["image"], entry), viewer.quantise(shown.image[where], low, high))
    np.testing.assert_array_equal(levels(entry["mask"], entry), shown.mask[where])
    inner = shown.image[5:19, 4:27, 3:18]
    np.testing.assert_allclose([low, high], np.percentile(inner, [0.5, 99.5]), atol=0.01)
    for (name, values), item in zip(shown.maps.items(), entry["maps"], strict=True):
        assert item["name"] == style.display(name)
        # A level is within half a step of its value, or a whole one next to a threshold, up to the top of the scale.
        error = np.abs(levels(item, entry) / 255 * item["high"] - np.minimum(values[where], item["high"]))
        assert error.max() <= (1.001 if item["above"] else 0.501) * item["high"] / 255
    for layer in (entry["image"], *entry["maps"]):
        assert layer["sum"] == levels(layer, entry).sum()
    assert entry["mask"]["sum"] == 255 * shown.mask.sum()


@pytest.mark.parametrize("threshold", [1e-6, 0.0123, 0.4, 0.97, 30.0])
def test_levels_keep_the_side_of_the_threshold(threshold: float) -> None:
    shown = volume(thresholds={"combi": threshold})
    (entry,) = content_of(viewer.viewer([shown]))["volumes"]
    item = entry["maps"][0]
    expected = shown.maps["combi"][box(entry)] >= threshold
    np.testing.assert_array_equal(levels(item, entry) >= item["above"], expected)
    assert item["high"] >= threshold
    assert entry["maps"][1]["above"] is None


def test_a_lesion_outside_the_foreground_is_shown() -> None:
    mask = np.zeros((24, 30, 20), bool)
    mask[23, 0, 19] = True
    (entry,) = content_of(viewer.viewer([volume(mask=mask)]))["volumes"]
    assert levels(entry["mask"], entry).sum() == 1
    assert entry["start"] == 19


def test_maps_share_one_scale_over_the_volumes() -> None:
    quiet, loud = volume(0, thresholds={}), volume(1, thresholds={})
    loud = loud._replace(maps={"combi": 9 * loud.maps["combi"]})
    first, second = content_of(viewer.viewer([quiet, loud]))["volumes"]
    assert first["maps"][0]["high"] == second["maps"][0]["high"]
    assert levels(first["maps"][0], first).max() < 60 < levels(second["maps"][0], second).max()


def test_large_slices_are_reduced_by_whole_blocks() -> None:
    image = np.zeros((300, 17, 2), np.float32)
    image[::2] = 2
    image[1::2] = 4
    mask = np.zeros(image.shape, bool)
    mask[101, 5, 1] = True
    shown = viewer.Shown("wide", image, {"combi": image}, mask, {}, (0.5, 0.7, 3.0), {})
    (entry,) = content_of(viewer.viewer([shown]))["volumes"]
    assert (entry["size"], entry["step"], entry["spacing"]) == ([150, 9, 2], 2, [1.0, 1.4])
    assert set(levels(entry["maps"][0], entry).ravel()) == {255}  # all means are 3
    np.testing.assert_array_equal(np.argwhere(levels(entry["mask"], entry)), [[50, 2, 1]])


@pytest.mark.parametrize("value", [0.0, -3.0, np.nan])
def test_volumes_without_contrast_are_shown_whole(value: float) -> None:
    image = np.full((3, 4, 5), value, np.float32)
    shown = viewer.Shown("flat", image, {"combi": 0 * image}, None, {}, (1, 1, 1), {})
    (entry,) = content_of(viewer.viewer([shown]))["volumes"]
    assert (entry["size"], entry["mask"], entry["start"]) == ([3, 4, 5], None, 2)
    assert levels(entry["image"], entry).max() == 0


def test_equal_volumes_give_equal_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a.html", volume(0), volume(1)) == write(tmp_path / "b.html", volume(0), volume(1))


def test_the_colours_equal_those_of_overlays() -> None:
    colours = np.array(content_of(viewer.viewer([volume()]))["colours"], float)
    for level in (0, 1, 77, 128, 254, 255):
        panel = overlay(np.zeros((1, 2, 1)), np.full((1, 2, 1), level), high=255)[0, 0]
        np.testing.assert_allclose(viewer.OPACITY / 100 * level / 255 * colours[level], panel, atol=2)


def test_names_are_escaped(tmp_path: Path) -> None:
    name = '</script><script>alert("1")</script><!--'
    content = write(tmp_path / "index.html", volume(name=name, facts={name: name}, maps={name: volume().mask * 1.0}))
    assert content.count("<script") == content.count("</script>") == 2
    assert "<!--" not in content
    (entry,) = content_of(page.Section(content, "", ""))["volumes"]
    assert (entry["name"], entry["facts"], entry["maps"][0]["name"]) == (name, [[name, name]], name)


def test_the_policy_allows_only_the_viewers_script(tmp_path: Path) -> None:
    content = write(tmp_path / "index.html", volume())
    (script,) = re.findall(r"<script>(.*?)</script>", content, re.DOTALL)
    assert script == page.source("viewer.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', content)
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
    ]
    assert not re.search(r"https?:|url\(|\bimport\b|fetch\(|innerHTML", content)


def test_errors_name_the_volume() -> None:
    shown = volume()
    for other, message in (
        ({"image": shown.image[0]}, r"head 0: image has shape \(30, 20\)"),
        ({"image": shown.image[:0]}, r"head 0: image has shape \(0, 30, 20\)"),
        ({"maps": {"combi": shown.image[1:]}}, r"head 0: the map 'combi' has shape \(23, 30, 20\)"),
        ({"mask": shown.mask[1:]}, r"head 0: the mask has shape \(23, 30, 20\)"),
        ({"spacing": (1.0, 0.0, 1.0)}, "head 0: the spacing is"),
        ({"spacing": (1.0, 1.0)}, "head 0: the spacing is"),
        ({"thresholds": {"combi": float("nan")}}, "head 0: the threshold of 'combi' is"),
    ):
        with pytest.raises(InputError, match=message):
            viewer.viewer([shown._replace(**other)])
    with pytest.raises(InputError, match="no volume to show"):
        viewer.viewer([])


# The page in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = os.environ.get("JAXVAE_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on the path: install one, or name it in JAXVAE_CHROMIUM")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open a page with these volumes. At the end it must have made no other request and logged nothing."""
    contexts, requests, complaints = [], [], []

    def open_page(*volumes: viewer.Shown, width: int = 1280, before: str = "", **look: Any) -> Any:
        write(tmp_path / "index.html", *volumes)
        context = browser.new_context(viewport={"width": width, "height": 900}, **look)
        contexts.append(context)
        context.add_init_script(before)
        tab = context.new_page()
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.goto((tmp_path / "index.html").as_uri())
        ready(tab)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert set(requests) == {(tmp_path / "index.html").as_uri()}
    assert complaints == []


def ready(tab: Any) -> None:
    tab.locator('.viewer[aria-busy="false"]').wait_for()


def canvas(tab: Any) -> np.ndarray:
    """The pixels of the picture, [height, width, 3] int."""
    url = tab.evaluate("document.querySelector('.slices').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")).astype(int)


def shown_voxels(tab: Any, entry: dict[str, Any]) -> np.ndarray:
    """[X, Y, 3]: the colour at the middle of each voxel of the slice."""
    pixels = canvas(tab)
    width, height = entry["size"][:2]
    columns = (np.arange(width) + 0.5) * pixels.shape[1] / width
    rows = (np.arange(height) + 0.5) * pixels.shape[0] / height
    return pixels[rows.astype(int)[::-1]][:, columns.astype(int)].transpose(1, 0, 2)


def expected_voxels(entry: dict[str, Any], colours: list, z: int, name: str | None, opacity: float) -> np.ndarray:
    """[X, Y, 3]: grey and heat, blended as `overlay` does."""
    z -= entry["origin"][2]
    grey = levels(entry["image"], entry)[..., z, None].astype(float)
    if name is None:
        return np.repeat(grey, 3, axis=-1)
    item = next(item for item in entry["maps"] if item["name"] == name)
    heat = levels(item, entry)[..., z]
    alpha = opacity * heat[..., None] / 255
    return (1 - alpha) * grey + alpha * np.array(colours)[heat]


@pytest.mark.parametrize("ratio", [1, 2])
def test_pixels_blend_image_and_map(opened, ratio: int) -> None:
    shown = volume()
    content = content_of(viewer.viewer([shown]))
    (entry,) = content["volumes"]
    tab = opened(shown, device_scale_factor=ratio)
    tab.uncheck(".outline")
    for name, opacity in (("Combi", 80), ("Combi", 35), ("mine <b>", 100), (None, 80)):
        tab.select_option(".map", label=name or "none")
        ready(tab)
        tab.locator(".opacity").evaluate(
            "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", opacity
        )
        expected = expected_voxels(entry, content["colours"], entry["start"], name, opacity / 100)
        np.testing.assert_allclose(shown_voxels(tab, entry), expected, atol=2)


def test_the_patients_left_is_left_and_the_front_is_up(opened) -> None:
    image = np.zeros((20, 20, 3), np.float32)
    image[4:16, 4:16] = 0.2
    image[12:16, 4:16] = 1.0  # right
    tab = opened(viewer.Shown("halves", image, {}, None, {}, (1, 1, 1), {}))
    pixels = canvas(tab)
    assert pixels[:, pixels.shape[1] // 2 :].sum() > 2 * pixels[:, : pixels.shape[1] // 2].sum()
    front = np.where(image > 0, np.linspace(0.1, 1, 20, dtype=np.float32)[None, :, None], 0)
    tab = opened(viewer.Shown("front", front, {}, None, {}, (1, 1, 1), {}))
    pixels = canvas(tab)
    assert pixels[: len(pixels) // 2].sum() > 1.5 * pixels[len(pixels) // 2 :].sum()
    sides = [tab.locator(f".side.{side}").bounding_box() for side in ("left", "right", "front", "back")]
    assert sides[0]["x"] < sides[1]["x"]
    assert sides[2]["y"] < sides[3]["y"]
    assert tab.locator(".side").all_inner_texts() == ["L", "R", "A", "P"]


def test_every_slice_can_be_reached(opened) -> None:
    shown = volume()
    content = content_of(viewer.viewer([shown]))
    (entry,) = content["volumes"]
    tab = opened(shown)
    tab.uncheck(".outline")
    slider = tab.locator(".slice")
    first, depth = entry["origin"][2], entry["size"][2]
    assert (slider.get_attribute("min"), slider.get_attribute("max")) == (str(first), str(first + depth - 1))
    for z in (first, first + 7, first + depth - 1):
        slider.fill(str(z))
        expected = expected_voxels(entry, content["colours"], z, "Combi", 0.8)
        np.testing.assert_allclose(shown_voxels(tab, entry), expected, atol=2)
        assert tab.locator(".slice-value").inner_text() == f"{z}"


def test_the_outline_follows_the_lesion_and_can_be_hidden(opened) -> None:
    shown = volume()
    (entry,) = content_of(viewer.viewer([shown]))["volumes"]
    tab = opened(shown)
    colour = [int(panels.OUTLINE[i : i + 2], 16) for i in (1, 3, 5)]
    drawn = np.all(canvas(tab) == colour, axis=-1)
    scale = drawn.shape[1] // entry["size"][0]
    assert drawn.shape == (scale * entry["size"][1], scale * entry["size"][0])
    # The middle of each edge of panels.outline is coloured, and no coloured pixel is far from an edge.
    plane = shown.mask[box(entry)][..., entry["start"] - entry["origin"][2]]
    middles = (panels.outline(plane.T[::-1]).mean(axis=1) + 0.5) * scale
    assert drawn[middles[:, 1].astype(int), middles[:, 0].astype(int)].all()
    away = np.argwhere(drawn)[:, None, ::-1] + 0.5 - middles
    assert np.abs(away).max(axis=-1).min(axis=1).max() <= scale / 2 + 2
    tab.uncheck(".outline")
    assert not np.all(canvas(tab) == colour, axis=-1).any()


def test_the_threshold_hides_lower_values(opened) -> None:
    shown = volume()
    (entry,) = content_of(viewer.viewer([shown]))["volumes"]
    tab = opened(shown)
    tab.uncheck(".outline")
    tab.check(".threshold")
    above = (shown.maps["combi"] > 0.4)[box(entry)][..., entry["start"] - entry["origin"][2]]
    coloured = np.ptp(shown_voxels(tab, entry), axis=-1) > 2
    np.testing.assert_array_equal(coloured, above)
    # This map has no threshold, so the ticked box does not apply.
    tab.select_option(".map", label="mine <b>")
    ready(tab)
    assert not tab.locator(".threshold").is_visible()
    assert (np.ptp(shown_voxels(tab, entry), axis=-1) > 2).mean() > 0.8


def test_the_keyboard_reaches_everything(opened) -> None:
    tab = opened(volume(0), volume(1))
    reached = []
    for _ in range(7):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.className"))
    assert reached == ["slices", "slice", "volume", "map", "opacity", "outline", "threshold"]

    picture, z = tab.locator(".slices"), lambda: int(tab.locator(".slice").input_value())
    picture.focus()
    for key, moved in (("ArrowUp", 1), ("ArrowRight", 1), ("ArrowDown", -1), ("ArrowLeft", -1), ("PageDown", -8)):
        before, pixels = z(), canvas(tab)
        tab.keyboard.press(key)
        assert z() - before == (max(1, before - 10) - before if key == "PageDown" else moved)
        assert np.any(canvas(tab) != pixels)
        assert picture.get_attribute("aria-valuenow") == str(z())
    before = z()
    tab.keyboard.press("PageUp")
    assert z() == before + 10
    for key, read, value in (
        ("[", lambda: tab.locator(".opacity").input_value(), "70"),
        ("]", lambda: tab.locator(".opacity").input_value(), "80"),
        ("o", lambda: tab.locator(".outline").is_checked(), False),
        ("t", lambda: tab.locator(".threshold").is_checked(), True),
        ("m", lambda: tab.evaluate("document.querySelector('.map').selectedOptions[0].text"), "mine <b>"),
        ("m", lambda: tab.evaluate("document.querySelector('.map').selectedOptions[0].text"), "none"),
        ("m", lambda: tab.evaluate("document.querySelector('.map').selectedOptions[0].text"), "Combi"),
    ):
        tab.keyboard.press(key)
        ready(tab)
        assert read() == value, key


def test_the_pointer_shows_the_values_of_the_voxel(opened) -> None:
    shown = volume()
    (entry,) = content_of(viewer.viewer([shown]))["volumes"]
    tab = opened(shown, volume(1))
    place = tab.locator(".slices").bounding_box()
    for x, y in ((13, 9), (14, 10), (7, 20)):
        column, row = x - entry["origin"][0], entry["size"][1] - 1 - (y - entry["origin"][1])
        tab.mouse.move(
            place["x"] + (column + 0.5) * place["width"] / entry["size"][0],
            place["y"] + (row + 0.5) * place["height"] / entry["size"][1],
        )
        line = tab.locator(".values").inner_text()
        found = re.fullmatch(
            r"Voxel (\d+), (\d+), (\d+) Image [≤≥]? ?(\S+) Combi ≥? ?(\S+) Known lesion (yes|no)", line
        )
        assert found, line
        z = entry["start"]
        assert found.groups()[:3] == (str(x), str(y), str(z))
        assert float(found[4]) == pytest.approx(shown.image[x, y, z], abs=0.01)
        assert float(found[5]) == pytest.approx(shown.maps["combi"][x, y, z], abs=0.01)
        assert found[6] == ("yes" if shown.mask[x, y, z] else "no")
    tab.mouse.move(1, 1)
    assert "Voxel" not in tab.locator(".values").inner_text()


def test_positions_are_in_millimetres_of_the_scan(opened) -> None:
    affine = np.array([[1.0, 0, 0, -20.3], [0, 1.0, 0, 5.0], [0, 0.5, 2.0, -90.0], [0, 0, 0, 1]])
    shown = volume(affine=affine)
    (entry,) = content_of(viewer.viewer([shown]))["volumes"]
    tab = opened(shown)
    place = tab.locator(".slices").bounding_box()
    tab.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    x = entry["origin"][0] + entry["size"][0] // 2
    y = entry["origin"][1] + entry["size"][1] - 1 - entry["size"][1] // 2
    right, front, up = (affine @ [x, y, entry["start"], 1])[:3]
    assert right < 0 < front
    assert up < 0
    line = tab.locator(".values").inner_text()
    assert f"Position L {-right:.1f}, A {front:.1f}, I {-up:.1f} mm " in line


def test_a_failed_picture_is_not_replaced_by_another_volume(opened) -> None:
    break_later = """
        const decode = HTMLImageElement.prototype.decode;
        HTMLImageElement.prototype.decode = function () {
            return window.broken ? Promise.reject(new Error("broken")) : decode.call(this);
        };
    """
    tab = opened(volume(0), volume(1), before=break_later)
    blank = """() => {
        const picture = document.querySelector(".slices"), empty = document.createElement("canvas");
        [empty.width, empty.height] = [picture.width, picture.height];
        return picture.toDataURL() === empty.toDataURL();
    }"""
    assert not tab.evaluate(blank)
    tab.evaluate("window.broken = true")
    tab.select_option(".volume", label="head 1")
    tab.wait_for_selector(".problem:not([hidden])")
    assert "A picture of head 1 cannot be decoded: broken" in tab.locator(".problem").inner_text()
    assert tab.evaluate(blank)
    tab.evaluate("window.broken = false")
    tab.select_option(".volume", label="head 0")
    ready(tab)
    assert not tab.locator(".problem").is_visible()
    assert not tab.evaluate(blank)


def test_another_volume_keeps_the_chosen_map(opened) -> None:
    bare = volume(1, mask=None, thresholds={}, facts={}, maps={"mine <b>": volume(1).maps["mine <b>"]})
    empty = bare._replace(name="empty", maps={})
    content = content_of(viewer.viewer([volume(0), bare, empty]))
    tab = opened(volume(0), bare, empty)
    tab.select_option(".map", label="mine <b>")
    ready(tab)
    for name, entry, label in (("head 1", content["volumes"][1], "mine <b>"), ("empty", content["volumes"][2], None)):
        tab.select_option(".volume", label=name)
        ready(tab)
        assert tab.evaluate("document.querySelector('.map').selectedOptions[0].text") == (label or "none")
        assert not tab.locator(".outline").is_visible()
        expected = expected_voxels(entry, content["colours"], entry["start"], label, 0.8)
        np.testing.assert_allclose(shown_voxels(tab, entry), expected, atol=2)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_window_in_light_and_dark(opened, width: int, scheme: str) -> None:
    tab = opened(volume(spacing=(1.0, 1.5, 4.0)), width=width, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    place = tab.locator(".slices").bounding_box()
    # A voxel has the shape of its spacing.
    assert place["height"] / place["width"] == pytest.approx(1.5 * 27 / 18, rel=0.01)
    ink = tab.evaluate("getComputedStyle(document.querySelector('.map')).color")
    assert (max(map(int, re.findall(r"\d+", ink)[:3])) > 128) == (scheme == "dark")


def test_a_browser_that_changes_pixels_is_reported(opened) -> None:
    """Some browsers change the pixels that a page reads from a canvas, so that it cannot recognise the user."""
    falsify = """
        const read = CanvasRenderingContext2D.prototype.getImageData;
        CanvasRenderingContext2D.prototype.getImageData = function (...where) {
            const pixels = read.apply(this, where);
            pixels.data[0] ^= 1;
            return pixels;
        };
    """
    problem = opened(volume()).locator(".problem")
    assert not problem.is_visible()
    problem = opened(volume(), before=falsify).locator(".problem")
    assert "This browser changes the pixels" in problem.inner_text()
