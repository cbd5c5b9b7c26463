"""The table of scores: name, label, formula, colour and inputs of each.

The command, the tables, the figures and the report read their scores from here. A new way to combine maps is a variant
in `combine` and a line here; a new gradient is a field of `PixelScores`, its pullback in `gradients`, and a line here.
Importing the table does not import JAX.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

# Okabe & Ito 2008: distinct with any colour vision. Their yellow is left out because it is lost on white.
ORANGE, SKY, GREEN, BLUE, VERMILLION = "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00"
LIGHT, DARK = "#b0b0b0", "#7a7a7a"
Dashes = Literal["-", "--", ":", "-."] | tuple[float, Sequence[float]]


@dataclass(frozen=True)
class Score:
    """One score of pixels or images; higher is more anomalous.

    Args:
      name: in files, flags and Python.
      label: in tables, figures and the report.
      formula: in Unicode. x is the image, x̂ its reconstruction, G a Gaussian filter.
      colour: of its curves; one colour per quantity, so the KL divergence is blue for images and pixels alike.
      dashes: of its curves, as matplotlib writes them.
      gradient: the gradient that it is computed from, a field of `PixelScores`.
      combination: the arguments of `combine`, for a map that combines others.
    """

    name: str
    label: str
    formula: str
    colour: str
    dashes: Dashes = "-"
    gradient: str | None = None
    combination: Mapping[str, Any] | None = None


def _combi(name: str, label: str, formula: str, dashes: Dashes, **combination: str) -> Score:
    return Score(name, label, formula, VERMILLION, dashes, "kl_grad", combination)


def _by_name(*scores: Score) -> dict[str, Score]:
    return {score.name: score for score in scores}


# One value per pixel.
PIXEL_SCORES = _by_name(
    Score("rec_error", "Rec-Error", "(x − x̂)²", ORANGE),
    Score("elbo_grad", "ELBO-Grad", "G ∗ |∂(KL + NLL)/∂x|", GREEN, gradient="elbo_grad"),
    Score("kl_grad", "KL-Grad", "G ∗ |∂KL/∂x|", BLUE, gradient="kl_grad"),
    Score("rec_grad", "Rec-Grad", "G ∗ |∂NLL/∂x|", SKY, gradient="rec_grad"),
    _combi("combi", "Combi", "(x − x̂)² · (G ∗ |∂KL/∂x|)", "-"),
    _combi("combi_smoothed", "Combi smooth", "(G ∗ (x − x̂)²) · (G ∗ |∂KL/∂x|)", "--", smoothed="both"),
    _combi("combi_nll", "Combi NLL", "−log p(x|z) of the pixel · (G ∗ |∂KL/∂x|)", ":", variant="nll_product"),
    _combi("combi_sum", "Combi sum", "½ (x − x̂)² + ½ (G ∗ |∂KL/∂x|)", (0, (3, 1, 1, 1)), variant="weighted_sum"),
)
# One value per image, in nats: the fields of `SampleScores`.
IMAGE_SCORES = _by_name(
    Score("elbo", "ELBO", "KL + NLL, the negative ELBO", GREEN),
    Score("kl", "KL", "KL(q(z|x) ‖ N(0, I))", BLUE),
    Score("nll", "NLL", "−log p(x|z), summed over pixels", ORANGE),
)
# One value per pixel without a model (`jaxvae.metrics.baselines`).
BASELINES = _by_name(
    Score("brightness", "|x|", "|x|", LIGHT),
    Score("equalised_brightness", "equalised x", "rank(x) / n within the image", DARK),
)
SCORES = PIXEL_SCORES | IMAGE_SCORES | BASELINES
MAPS = tuple(PIXEL_SCORES)
# The maps of a folder of images or volumes. Overlays and masks show the first.
DEFAULT_MAPS = ("elbo_grad", "combi", "rec_error", "kl_grad", "rec_grad")
