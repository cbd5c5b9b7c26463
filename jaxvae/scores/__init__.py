"""The table of scores: name, label, formula, colour and inputs of each.

The command, the tables, the figures and the report read their scores from here. `score_batch` computes `MAPS` in one
program. The other scores are those of `METHODS`, each with its own program:

    score(model, params, images, *, log_scale, likelihood, state) -> {name: [B, H, W, C] or [B]}
    fit(model, params, images, *, log_scale, likelihood) -> state, a dictionary of arrays

Images are float, and for `fit` on the host. `fit` is there if the method needs statistics of healthy images. The score
of an image does not depend on its batch, and higher is more anomalous. Importing the table does not import JAX.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
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
      method: the method that computes it, a name in `METHODS`.
      of_images: whether it is one number per image.
    """

    name: str
    label: str
    formula: str
    colour: str
    dashes: Dashes = "-"
    gradient: str | None = None
    combination: Mapping[str, Any] | None = None
    method: str | None = None
    of_images: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+", self.name):
            raise ValueError(f"{self.name!r}: file names are made of it; use letters, digits and _")
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", self.colour):
            raise ValueError(f"{self.name}: colour={self.colour!r}; give one such as #cc79a7")


NEEDS = ("latent", "kl", "normal_prior", "dropout")


@dataclass(frozen=True)
class Method:
    """A program that computes one score or several.

    Args:
      name: in messages and file names; without `score`, also the module of `jaxvae.scores` with the functions.
      scores: what it returns.
      needs: of a trained model: "latent", "kl" (trained with one), "normal_prior" (no prior of the model) or "dropout".
      fitted: whether it needs healthy images, as a method with `fit` does.
      score, fit: the functions, if they are not in such a module.

    Raises:
      ValueError: `scores` is no tuple of scores, a need is unknown, or a method with `fit` lacks `score`.
    """

    name: str
    scores: tuple[Score, ...]
    needs: tuple[str, ...] = ()
    fitted: bool = False
    score: Callable[..., Mapping[str, Any]] | None = None
    fit: Callable[..., Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.scores, tuple) and all(isinstance(score, Score) for score in self.scores)):
            raise ValueError(f"{self.name}: scores={self.scores!r}; give a tuple of Score, (Score(...),)")
        if isinstance(self.needs, str) or not {*self.needs} <= {*NEEDS}:
            raise ValueError(f"{self.name}: needs={self.needs!r}; give a tuple with names of {', '.join(NEEDS)}")
        if self.fit is not None:
            object.__setattr__(self, "fitted", True)
        if self.score is None and self.fit is not None:
            raise ValueError(f"{self.name}: has `fit` and no `score`; give both")

    def function(self, which: Literal["score", "fit"]) -> Callable[..., Mapping[str, Any]]:
        """`score` or `fit`, imported when it is used."""
        return getattr(self, which) or getattr(import_module(f"jaxvae.scores.{self.name}"), which)


def _combi(name: str, label: str, formula: str, dashes: Dashes, **combination: str) -> Score:
    return Score(name, label, formula, VERMILLION, dashes, "kl_grad", combination)


def _of_images(*args: Any) -> Score:
    return Score(*args, of_images=True)


def _method(name: str, *scores: Score, needs: tuple[str, ...] = (), fitted: bool = False) -> Method:
    return Method(name, scores, needs, fitted)


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
    _of_images("elbo", "ELBO", "KL + NLL, the negative ELBO", GREEN),
    _of_images("kl", "KL", "KL(q(z|x) ‖ p(z))", BLUE),
    _of_images("nll", "NLL", "−log p(x|z), summed over pixels", ORANGE),
)
# One value per pixel without a model (`jaxvae.metrics.baselines`).
BASELINES = _by_name(
    Score("brightness", "|x|", "|x|", LIGHT),
    Score("equalised_brightness", "equalised x", "rank(x) / n within the image", DARK),
)
_BUILT_IN = (
    # Of a trained model.
    _method(
        "draws",
        Score("rec_probability", "Rec-Probability", "−mean over z of log p(x|z)", ORANGE, "--"),
        Score("draw_variance", "Draw variance", "variance over z of x̂", ORANGE, ":"),
        Score("mahalanobis", "Mahalanobis", "(x − mean x̂)² / (variance of x̂ + ε)", ORANGE, "-."),
        needs=("kl",),
    ),
    _method(
        "dropout",
        Score("dropout_error", "Dropout error", "mean over dropout of (x − x̂)²", SKY, "--"),
        Score("dropout_variance", "Dropout variance", "variance over dropout of x̂", SKY, ":"),
        needs=("dropout",),
    ),
    _method(
        "restoration",
        Score("restoration", "Restoration", "|x − y|, y the MAP restoration with total variation", GREEN, "--"),
        needs=("kl",),
        fitted=True,
    ),
    _method(
        "importance",
        _of_images("iwae", "IWAE", "−log mean over z of p(x, z) / q(z|x)", GREEN, ":"),
        needs=("kl", "normal_prior"),
    ),
    _method(
        "complexity",
        _of_images("complexity", "Input complexity", "ELBO − length of the PNG file", GREEN, "-."),
        needs=("kl",),
    ),
    _method(
        "background",
        _of_images("likelihood_ratio", "Likelihood ratio", "ELBO − ELBO of a background model", BLUE, "--"),
        needs=("kl",),
        fitted=True,
    ),
    _method(
        "regret",
        _of_images("likelihood_regret", "Likelihood regret", "ELBO − ELBO at the best q(z)", BLUE, ":"),
        needs=("kl",),
    ),
    _method(
        "latent_neighbours",
        _of_images("knn_latent", "kNN latent", "distance to the k-th nearest posterior mean", BLUE, "-."),
        needs=("latent",),
        fitted=True,
    ),
    # Without a model.
    _method(
        "atlas",
        Score("atlas", "Atlas z", "|x − mean| / deviation of healthy images", DARK, "--"),
        fitted=True,
    ),
    _method(
        "components",
        Score("pca", "PCA", "(x − projection on principal components)²", LIGHT, "--"),
        fitted=True,
    ),
    _method(
        "patch_neighbours",
        Score("knn_patches", "kNN patches", "distance to the k-th nearest patch at its place", LIGHT, ":"),
        fitted=True,
    ),
    _method(
        "tissues",
        Score("tissues", "Tissue mixture", "−log p(x) of a mixture of Gaussians, in a Markov field", DARK, ":"),
        fitted=True,
    ),
    _method("symmetry", Score("asymmetry", "Asymmetry", "least |patch − mirrored patch| nearby", DARK, "-.")),
)
METHODS: dict[str, Method] = {}
SCORES = PIXEL_SCORES | IMAGE_SCORES | BASELINES
MAPS = tuple(PIXEL_SCORES)
# The maps of a folder of images or volumes. Overlays and masks show the first.
DEFAULT_MAPS = ("elbo_grad", "combi", "rec_error", "kl_grad", "rec_grad")


def add(method: Method) -> None:
    """Add a method and its scores to the tables that the library and the commands read.

    Raises:
      ValueError: another method or score has that name.
    """
    for name, table in ((method.name, METHODS), *((score.name, SCORES) for score in method.scores)):
        if name in table:
            raise ValueError(
                f"{name}: there is a {'method' if table is METHODS else 'score'} of this name; name another"
            )
    METHODS[method.name] = method
    SCORES.update({score.name: replace(score, method=method.name) for score in method.scores})


def known_maps() -> tuple[str, ...]:
    """The names that `maps` may hold: those of `MAPS`, then the scores of all methods."""
    return (*MAPS, *(name for name, score in SCORES.items() if score.method))


def per_pixel(names: Iterable[str]) -> tuple[str, ...]:
    """The names of scores with one value per pixel."""
    return tuple(name for name in names if not SCORES[name].of_images)


def of_whole_images(names: Iterable[str]) -> tuple[str, ...]:
    """The names of scores with one value per image."""
    return tuple(name for name in names if SCORES[name].of_images)


for _one in _BUILT_IN:
    add(_one)
