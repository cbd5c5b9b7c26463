"""`jaxvae train`: from healthy images to a run folder, continued by the same command."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxvae.cli.source import Source, open_splits, to_config
from jaxvae.errors import InputError

if TYPE_CHECKING:
    from jaxvae.data.dataset import Splits
    from jaxvae.models import Model


@dataclass(frozen=True)
class Train:
    """Train a VAE on healthy images. The same command on the same folder continues a run that was stopped."""

    run: Annotated[Path, tyro.conf.Positional]
    """the run folder: made if missing, continued if it holds a run made with the same flags"""
    source: Source = field(default_factory=Source)
    model: Literal["auto", "dense", "conv"] = "auto"
    """dense is the paper's FashionMNIST network, conv its brain network; auto takes dense for fashion_mnist"""
    latent_size: int | None = None
    """dimensions of the latent [the paper's: dense 20, conv 256]"""
    hidden_size: int = 400
    """dense only: hidden units"""
    features: tuple[int, ...] = (16, 32, 64, 256)
    """conv only: channels after each halving of the image"""
    epochs: int = 25
    """times to go through the images; may be raised later to train a finished run further"""
    batch_size: int | None = None
    """images a step [the paper's: dense 128, conv 64]"""
    learning_rate: float | None = None
    """of Adam [the paper's: dense 1e-3, conv 1e-4]"""
    beta: float = 1.0
    """weight of the KL term"""
    log_scale: float = 0.0
    """natural logarithm of the decoder's standard deviation"""
    schedule: Literal["constant", "cosine", "exponential", "step"] = "constant"
    """of the learning rate; cosine falls to 0 at the last epoch"""
    warmup_epochs: float = 0.0
    """the learning rate first rises from 0 over so many epochs"""
    decay_epochs: float = 10.0
    """exponential and step: epochs to multiply the learning rate by --decay-rate once"""
    decay_rate: float = 0.1
    clip_norm: float | None = None
    """shorten gradients longer than this"""
    patience: int | None = None
    """stop after so many epochs without a better validation ELBO, and keep the best"""
    arithmetic: Literal["corrected", "released"] = "corrected"
    """released: the published FashionMNIST script's own objective (dense only)"""
    seed: int = 0
    """decides the first weights, the order of the images and the noise"""
    checkpoint_seconds: float = 30.0
    """at least so much time between two checkpoints; one is always written at the end"""

    def execute(self) -> None:
        _check(self)
        splits = open_splits(self.source)
        _check_images(self, splits)
        config = run_config(self, splits)
        from jaxvae import runs

        runs.claim(self.run, config)
        ending = runs.train(self.run, config, splits, checkpoint_seconds=self.checkpoint_seconds)
        print(f"{self.run}: {ending}; see how good it is with `jaxvae evaluate {self.run}`")


def run_config(flags: Train, splits: Splits) -> dict[str, Any]:
    """config.json: everything that decides the result, with the paper's values filled in."""
    from jaxvae import __version__, checkpoint
    from jaxvae.models import ConvVAE, DenseVAE

    height, width, channels = splits.train.images.shape[1:]
    shape = (height, width, channels)
    dense = flags.model == "dense" or (flags.model == "auto" and flags.source.data.startswith("fashion_mnist:"))
    if flags.arithmetic == "released" and not dense:
        raise InputError("--arithmetic released: the released objective is that of the dense model; add --model dense")
    if dense:
        model: Model = DenseVAE(shape, flags.latent_size or 20, flags.hidden_size)
    else:
        model = ConvVAE(shape, flags.latent_size or 256, flags.features)
        _check_levels(flags, shape)
    batch_size = min(flags.batch_size or (128 if dense else 64), len(splits.train))
    steps_per_epoch = len(splits.train) // batch_size
    decay_epochs = flags.epochs - flags.warmup_epochs if flags.schedule == "cosine" else flags.decay_epochs
    return {
        "jaxvae": __version__,
        "data": to_config(flags.source),
        "images": {
            "shape": list(shape),
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
        },
        "model": checkpoint.model_to_config(model),
        "train": {
            "batch_size": batch_size,
            "clip_norm": flags.clip_norm,
            "schedule": flags.schedule,
            "warmup_steps": round(flags.warmup_epochs * steps_per_epoch),
            "decay_steps": max(1, round(decay_epochs * steps_per_epoch)),
            "decay_rate": flags.decay_rate,
        },
        "hparams": {
            "learning_rate": flags.learning_rate or (1e-3 if dense else 1e-4),
            "beta": flags.beta,
            "log_scale": flags.log_scale,
        },
        "arithmetic": flags.arithmetic,
        "patience": flags.patience,
        "seed": flags.seed,
        "epochs": flags.epochs,
    }


def _check(flags: Train) -> None:
    positive = {
        "latent_size": flags.latent_size,
        "hidden_size": flags.hidden_size,
        "epochs": flags.epochs,
        "batch_size": flags.batch_size,
        "learning_rate": flags.learning_rate,
        "decay_epochs": flags.decay_epochs,
        "decay_rate": flags.decay_rate,
        "clip_norm": flags.clip_norm,
        "patience": flags.patience,
        "features": min(flags.features, default=0),
    }
    for name, value in positive.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise InputError(f"--{name.replace('_', '-')} {getattr(flags, name)}: must be positive")
    for name in ("beta", "log_scale", "warmup_epochs"):
        if not math.isfinite(getattr(flags, name)):
            raise InputError(f"--{name.replace('_', '-')} {getattr(flags, name)}: must be a finite number")
    if flags.schedule == "cosine" and flags.warmup_epochs >= flags.epochs:
        raise InputError(f"--warmup-epochs {flags.warmup_epochs}: must be below --epochs {flags.epochs}")
    if flags.patience is not None and flags.source.validation == 0:
        raise InputError("--patience needs a validation set; set --validation to a fraction above 0")


def _check_images(flags: Train, splits: Splits) -> None:
    import numpy as np

    if len(splits.train) == 0:
        raise InputError(
            f"--data {flags.source.data}: no healthy image is left to train on; lower --validation or --test"
        )
    for name, part in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        if part.images.dtype != np.uint8 and not np.isfinite(part.images).all():
            worst = int(np.argmin(np.isfinite(part.images).all(axis=(1, 2, 3))))
            raise InputError(
                f"--data {flags.source.data}: {part.names[worst]} ({name}) holds NaN or infinity; repair it"
            )


def _check_levels(flags: Train, shape: tuple[int, int, int]) -> None:
    factor = 2 ** len(flags.features)
    if shape[0] % factor or shape[1] % factor:
        size = max(factor, round(max(shape[:2]) / factor) * factor)
        raise InputError(
            f"--features has {len(flags.features)} levels, which do not divide images of {shape[0]}x{shape[1]} pixels; "
            f"add --size {size}, or give fewer features"
        )
