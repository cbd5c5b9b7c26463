"""`jaxvae train`: from healthy images to a run folder, continued by the same command."""

from __future__ import annotations

import math
import shlex
import signal
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any

from jaxvae.cli import flags
from jaxvae.cli.recipe import Recipe, check_recipe, is_dense
from jaxvae.cli.source import Source, is_fashion_mnist, is_volumes, open_splits, to_config, volumes_of
from jaxvae.cli.words import counted, flag, spaced
from jaxvae.errors import InputError, command
from jaxvae.runs import signals

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jaxvae.data.dataset import Splits
    from jaxvae.models import Model


LARGE = 512 * 512  # Pixels of an image that is usually resized.
FEW_STEPS = 1000  # The demo learns its phantoms in some 2,000; the paper's FashionMNIST takes 10,000.


@dataclass(frozen=True)
class Train:
    """Learn what healthy images look like.

    The same command on the same folder continues a run that was stopped.
    """

    run: flags.Run
    """the run folder: made if missing, continued if it holds a run made with the same flags"""
    source: Source = field(default_factory=Source)
    recipe: Recipe = field(default_factory=Recipe)
    latent_size: Annotated[int | None, flags.optional("INT", "as in the paper, dense 20, conv 256")] = None
    """dimensions of the latent"""
    learning_rate: Annotated[float | None, flags.optional("FLOAT", "as in the paper, dense 1e-3, conv 1e-4")] = None
    """of Adam"""
    beta: float = 1.0
    """weight of the KL term"""
    log_scale: float = 0.0
    """natural logarithm of the decoder's standard deviation"""
    patience: Annotated[int | None, flags.optional("INT", "off")] = None
    """stop after so many epochs without a better validation ELBO, and keep the best"""
    seed: int = 0
    """decides the first weights, the order of the images and the noise"""
    checkpoint_seconds: float = 30.0
    """at least so much time between two checkpoints; one is always written at the end"""

    def execute(self) -> bool:
        """Trains; whether the run is at its end, not stopped on the way."""
        check_flags(self)
        # From here on, so that the answer to SIGTERM is the same whether training has begun or not.
        with signals.noted(signal.SIGTERM) as stop:
            splits = open_splits(self.source)
            check_images(self.source, splits)
            config = run_config(self, splits)
            from jaxvae import files
            from jaxvae.evaluation import thresholds
            from jaxvae.runs import checkpoint, training

            _check_memory(config)
            training.claim(self.run, config)
            with files.locked(self.run):
                print(_announced(self, config, checkpoint.latest_step(self.run / "checkpoints" / "last")), flush=True)
                record_notices(self.run, splits.notices, splits.left_out)
                ending = training.train(self.run, config, splits, checkpoint_seconds=self.checkpoint_seconds, stop=stop)
                if ending.finished:
                    run = checkpoint.load(self.run)
                    try:
                        thresholds.keep(self.run, run, splits)
                    except InputError as error:
                        print(f"  no thresholds of healthy images, and so no masks without --threshold: {error}")
        next_step = (
            f"see how good it is with {command('evaluate', self.run)}"
            if len(splits.test)
            else f"look for anomalies with {command('score', self.run, 'FOLDER')}"
        )
        print(f"{self.run}: {ending.words}; {next_step if ending.finished else 'the same command goes on from there'}")
        return ending.finished


def _announced(train: Train, config: dict[str, Any], done: int | None) -> str:
    """What is going to be trained, and whether it is little; or from which step it goes on."""
    count, batch_size, epochs = config["images"]["train"], config["train"]["batch_size"], train.recipe.epochs
    steps = epochs * (count // batch_size)
    if done is not None:
        return f"{train.run}: is at step {done} of {steps}"
    height, width, channels = config["images"]["shape"]
    size = f"{width}x{height} pixels with {counted(channels, 'channel')}"
    extent = f"{counted(epochs, 'epoch')}, {counted(steps, 'step')}"
    lines = [f"{train.run}: {count} healthy images of {train.source.data}, {size}, {extent}"]
    if steps < FEW_STEPS:
        more = -(-FEW_STEPS * epochs // steps)
        few = f"only {counted(steps, 'step')}: expect an undertrained model"
        lines.append(f"  {few}. --epochs {more} gives {FEW_STEPS} steps; so does a smaller --batch-size")
    return "\n".join(lines)


def record_notices(directory: Path, notices: Sequence[str], left_out: Sequence[dict[str, str]]) -> None:
    """Print what was noticed while the images were read, and list the files that are not used."""
    from jaxvae import files

    for line in notices:
        print(f"  {line}", flush=True)
    path = directory / "left_out.jsonl"
    if left_out or path.is_file():
        files.write_lines(path, list(left_out))


def run_config(train: Train, splits: Splits) -> dict[str, Any]:
    """config.json: everything that decides the result, with the paper's values filled in."""
    from jaxvae import __version__
    from jaxvae.data.dataset import contents, fingerprint
    from jaxvae.models import ConvVAE, DenseVAE
    from jaxvae.runs import checkpoint

    height, width, channels = splits.train.images.shape[1:]
    shape = (height, width, channels)
    recipe, dense = train.recipe, is_dense(train.recipe, train.source)
    if dense:
        model: Model = DenseVAE(shape, train.latent_size or 20, recipe.hidden_size)
    else:
        _check_levels(train, shape)
        model = ConvVAE(shape, train.latent_size or 256, recipe.features)
    batch_size = min(recipe.batch_size or (128 if dense else 64), len(splits.train))
    steps_per_epoch = len(splits.train) // batch_size
    decay_epochs = recipe.epochs - recipe.warmup_epochs if recipe.schedule == "cosine" else recipe.decay_epochs
    return {
        "jaxvae": __version__,
        "data": to_config(train.source),
        "volumes": volumes_of(train.source),
        "images": {
            "shape": list(shape),
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
            "learnt_from": fingerprint(splits),
            # Prepared volumes have a hash of their own, and too many slices to look at all of them.
            "contents": None if is_volumes(train.source) else contents(splits.train.images, splits.validation.images),
        },
        "model": checkpoint.model_to_config(model),
        "train": {
            "batch_size": batch_size,
            "clip_norm": recipe.clip_norm,
            "schedule": recipe.schedule,
            "warmup_steps": round(recipe.warmup_epochs * steps_per_epoch),
            "decay_steps": max(1, round(decay_epochs * steps_per_epoch)),
            "decay_rate": recipe.decay_rate,
        },
        "hparams": {
            "learning_rate": train.learning_rate or (1e-3 if dense else 1e-4),
            "beta": train.beta,
            "log_scale": train.log_scale,
        },
        "augment": recipe.augment,
        "arithmetic": recipe.arithmetic,
        "patience": train.patience,
        "seed": train.seed,
        "epochs": recipe.epochs,
    }


def as_command(train: Train) -> str:
    """What to type for a run, its folder left open: the flags that are not at their defaults.

    >>> from pathlib import Path
    >>> recipe, source = Recipe(features=(8, 16)), Source(data="a b", size=(64,))
    >>> as_command(Train(run=Path("any"), source=source, recipe=recipe, beta=0.5))
    "jaxvae train RUN --data 'a b' --size 64 --features 8 16 --beta 0.5"
    """
    words = ["jaxvae", "train", "RUN"]
    rest = Train(run=train.run, source=train.source, recipe=train.recipe)
    for given, default in ((train.source, Source()), (train.recipe, Recipe()), (train, rest)):
        for name in (part.name for part in fields(given)):
            value = getattr(given, name)
            if value != getattr(default, name):
                words += [flag(name), *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def check_flags(train: Train) -> None:
    check_recipe(train.recipe, is_dense(train.recipe, train.source))
    for name in ("latent_size", "learning_rate", "patience"):
        flags.refuse_unless_positive(name, getattr(train, name))
    for name in ("beta", "log_scale"):
        if not math.isfinite(getattr(train, name)):
            raise InputError(f"{flag(name)} {getattr(train, name)}: must be a finite number")
    for name in ("beta", "checkpoint_seconds"):
        flags.refuse_below_zero(name, getattr(train, name))
    if not 0 <= train.seed < 2**32:
        raise InputError(f"--seed {train.seed}: must lie in 0..4294967295")
    if train.patience is not None and train.source.validation == 0:
        raise InputError("--patience needs a validation set; set --validation to a fraction above 0")


def _check_memory(config: dict[str, Any]) -> None:
    """Refuses a model that cannot be held; XLA would try for minutes."""
    from jaxvae.runs import capacity, checkpoint

    # With Adam's two moments and the gradient.
    needed = 4 * capacity.parameter_bytes(checkpoint.model_from_config(config["model"]))
    if (free := capacity.free_bytes()) is not None and needed > free:
        height, width, _ = config["images"]["shape"]
        there = f"needs {needed / 1e9:.1f} GB for {width}x{height} pixels, and {free / 1e9:.1f} GB are free"
        way_out = "resize the images, as with --size 64" if height * width > LARGE else "make it smaller"
        raise InputError(f"--latent-size, --features, --hidden-size: the model {there}; {way_out}")


def check_images(source: Source, splits: Splits) -> None:
    import numpy as np

    data = f"--data {source.data}"
    if len(splits.train) == 0:
        raise InputError(f"{data}: no healthy image is left to train on; lower --validation or --test")
    for part in (splits.train, splits.validation, splits.test):
        if part.images.dtype != np.uint8 and not np.isfinite(part.images).all():
            worst = int(np.argmin(np.isfinite(part.images).all(axis=(1, 2, 3))))
            raise InputError(f"{data}: {part.names[worst]} holds NaN or infinity; repair it or take it out")


def _check_levels(train: Train, shape: tuple[int, int, int]) -> None:
    height, width, _ = shape
    features = train.recipe.features
    factor = 2 ** len(features)
    if height % factor == 0 and width % factor == 0:
        return
    # The lowest set bit of a number is the largest power of two that divides it.
    most = (math.gcd(height, width) & -math.gcd(height, width)).bit_length() - 1
    ways_out = []
    if not is_fashion_mnist(train.source):
        verb = "prepare them anew with" if is_volumes(train.source) else "add"
        nearest = (max(1, round(side / factor)) * factor for side in (height, width))
        ways_out.append(f"{verb} --size {spaced(tuple(dict.fromkeys(nearest)))}")
    ways_out += [f"give at most {most}"] if most else []
    raise InputError(
        f"--features {spaced(features)}: {len(features)} halvings need sides that {factor} divides, "
        f"and the images are {height} high and {width} wide; {', or '.join(ways_out)}"
    )
