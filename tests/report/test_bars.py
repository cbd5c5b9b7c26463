"""Bar charts: the place and the height of each bar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxvae.report import bars, style


def test_bars_of_a_tick_lie_side_by_side_around_it() -> None:
    panel = style.axes(style.sheet(300, 200), 20, 20, 260, 160)
    scores = [bars.Bars(name, style.INK, [0.1, 0.2], [0.01, 0.02]) for name in "abc"]
    middles = bars.draw(panel, ["first", "second"], scores)
    drawn = [(patch.get_x() + patch.get_width() / 2, patch.get_height()) for patch in panel.patches]
    np.testing.assert_allclose(drawn, [(x, y) for row in middles for x, y in zip(row, [0.1, 0.2], strict=True)])
    np.testing.assert_allclose(middles.mean(axis=0), [0, 1])
    assert np.diff(middles, axis=0).min() >= panel.patches[0].get_width()


def test_missing_bars_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "bars.png"
    bars.figure(path, ["a", "b"], [bars.Bars("Combi", style.INK, [np.nan, 0.5], [np.nan, np.nan])], ylabel="AUROC")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [1, 7])
def test_a_group_of_bars_is_narrower_than_a_tick(count: int) -> None:
    panel = style.axes(style.sheet(300, 200), 20, 20, 260, 160)
    middles = bars.draw(panel, ["a"], [bars.Bars(str(i), style.INK, [1.0], [0.0]) for i in range(count)])
    assert np.ptp(middles) + panel.patches[0].get_width() < 1
