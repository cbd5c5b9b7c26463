"""Figure of the training: the loss and its two terms over the steps."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from jaxvae.errors import InputError
from jaxvae.report import style

PANELS = {"loss": "Loss (β KL + NLL)", "nll": "NLL", "kl": "KL"}
VALIDATION = style.PURPLE


def figure(path: str | os.PathLike[str], records: Sequence[Mapping[str, float]]) -> None:
    """Draw one panel each for loss, NLL and KL, and the validation loss.

    The axis fits the records after the first tenth; earlier ones may be cut off at the top.

    Args:
      path: ends in .png or .svg; without an ending both are written.
      records: lines of metrics.jsonl: step, loss, nll, kl, and validation_elbo if it was measured.

    Raises:
      InputError: no record, or a file that cannot be written.
    """
    if not records:
        raise InputError(f"{path}: no training record to draw; train the run first")
    steps = np.array([record["step"] for record in records])
    validated = [record for record in records if "validation_elbo" in record]
    margin, gap, top, height, below = 110, 110, 64, 300, 84
    width = (style.WIDTH - margin - 28 - (len(PANELS) - 1) * gap) / len(PANELS)
    sheet = style.sheet(style.WIDTH, top + height + below)
    wide = style.points(3)
    for k, (name, title) in enumerate(PANELS.items()):
        left = margin + k * (width + gap)
        style.text(sheet, left, top - 32, title, weight="bold")
        panel = style.axes(sheet, left, top, width, height)
        style.plain_axes(panel, xlabel="Step", ylabel="nats per image" if k == 0 else "")
        values = np.array([record[name] for record in records])
        shown = [values[len(values) // 10 :]]
        panel.plot(steps, values, color=style.INK if name == "loss" else style.LINES[name].colour, linewidth=wide)
        if name == "loss" and validated:
            ends = np.array([record["step"] for record in validated])
            losses = -np.array([record["validation_elbo"] for record in validated])
            panel.plot(ends, losses, color=VALIDATION, linestyle="--", linewidth=wide)
            style.text(sheet, left + width, top + 12, "validation", size=style.SMALL, color=VALIDATION, ha="right")
            shown.append(losses[len(losses) // 10 :])
        low, high = min(map(np.min, shown)), max(map(np.max, shown))
        spare = 0.06 * (high - low) or 0.5
        panel.set(xlim=(0, steps[-1]), ylim=(low - spare, high + spare))
        panel.locator_params(nbins=4)
    style.save(sheet, path)
