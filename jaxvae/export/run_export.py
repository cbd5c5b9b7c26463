"""Writing a run as standard files that need no jaxvae.

OUT/
  weights.safetensors   the parameters, by their dotted names
  score.stablehlo       the score program, as `jax.export` writes it: (parameters, images) -> maps and image scores
  export.json           preprocessing, shapes, versions, hashes of the files, tolerances
  sample.npz            a few images with the outputs that jaxvae computed for them
  check.py              loads, runs and compares all of this, with jax and numpy only (`jaxvae.export.check`)
  README.md             what this is

The parameters are arguments of the program. It has one size of batch, because the form of its operations depends on
that size (`jaxvae.ops.forms`); the function in check.py takes any number of images.
"""

import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import jaxvae
from jaxvae.data import kinds
from jaxvae.data.normalization import as_float
from jaxvae.errors import ArgumentError, InputError, cannot_be_written, refuse_unless_positive
from jaxvae.export import check
from jaxvae.models.model import reconstruct
from jaxvae.ops.forms import PLATFORMS, name_here
from jaxvae.ops.spacing import evenly_spaced
from jaxvae.parity import ARITHMETICS
from jaxvae.runs import run_images, run_scores, score_names
from jaxvae.runs.config import likelihood_of
from jaxvae.runs.run import Run, refuse_among_images
from jaxvae.scores import DEFAULT_MAPS, MAPS, SCORES
from jaxvae.scores.batches import score_batch
from jaxvae.types import Array, Params

BATCH = 48  # images; the fastest on CPUs
SAMPLES = 4
# Of the largest value of an output. NVIDIA GPUs round the factors of matrix products to 10 bits, and TPUs to 7. A model
# with a 16-bit dtype rounds everywhere.
TOLERANCE = {"cpu": 1e-4, "cuda": 1e-2, "tpu": 1e-1}
TOLERANCE_16_BITS = {"cpu": 3e-2, "cuda": 3e-2, "tpu": 1e-1}
README = """# A model that scores anomalies, exported by jaxvae {version}

`score.stablehlo` computes {outputs} of {batch} images {shape} with `weights.safetensors`.
`export.json` says how to prepare the images. `python check.py` compares the numbers with `sample.npz`{privacy}.
In a program: `import check; score = check.load("FOLDER"); results = score(images)`, for any number of prepared images.
"""


def export_run(
    run: Run,
    out: Path,
    *,
    maps: Sequence[str] | None = None,
    batch_size: int = BATCH,
    sample: Literal["own", "noise"] = "own",
) -> str:
    """Write a run as a folder of standard files, and check it.

    The folder appears whole or not at all. An earlier export there is replaced.

    Args:
      out: a new folder, or an earlier export.
      maps: names from `scores.MAPS`; None: those of `scores.DEFAULT_MAPS` that the run has.
      batch_size: images per call of the program.
      sample: the images of sample.npz: "own" test, validation or training images of the run if they can be read, else
        noise; or "noise".

    Returns:
      The line of check.py.

    Raises:
      InputError: a map that is not one of `scores.MAPS` or that the run does not have; a run with the released
        arithmetic; a folder that holds something else; a package that is not installed.
    """
    _check_packages()
    refuse_unless_positive("batch_size", batch_size)
    maps = _checked_maps(run, maps)
    refuse_among_images(run, out)
    images = _sample_images(run) if sample == "own" else None
    own = images is not None
    images = _noise(run) if images is None else images
    with _new_folder(out) as part:
        _write_weights(part / check.WEIGHTS, run.params)
        exported = _export_program(run, maps, batch_size)
        (part / check.PROGRAM).write_bytes(exported.serialize())
        expected = _outputs(run, maps, images)
        arrays: dict[str, Any] = {"images": images, **expected}
        np.savez(part / check.SAMPLE, **arrays)
        shutil.copyfile(str(check.__file__), part / "check.py")
        record = _record(run, exported, list(expected), batch_size, own=own)
        words = {"version": jaxvae.__version__, "outputs": ", ".join(expected), "batch": batch_size}
        privacy = f", which holds {len(images)} of the run's own images" if own else ""
        (part / "README.md").write_text(README.format(**words, shape=list(images.shape[1:]), privacy=privacy))
        files = (check.WEIGHTS, check.PROGRAM, check.SAMPLE)
        hashed = {name: hashlib.sha256((part / name).read_bytes()).hexdigest() for name in files}
        text = json.dumps({**record, "sha256": hashed}, indent=2, allow_nan=False, ensure_ascii=False)
        (part / check.RECORD).write_text(f"{text}\n", encoding="utf-8")
        line = check.compare(part)
    return line.replace(str(part), str(out))


def _check_packages() -> None:
    try:
        import flatbuffers  # noqa: F401
        import safetensors  # noqa: F401
    except ImportError as error:
        problem = f"the package {error.name} is not installed"
        raise InputError(f"export: {problem}; run `pip install safetensors flatbuffers`") from error


def _checked_maps(run: Run, maps: Sequence[str] | None) -> tuple[str, ...]:
    """The maps to export. Raises ArgumentError if one cannot be, and InputError for the released arithmetic."""
    if ARITHMETICS[run.config["arithmetic"]].at_draw:
        problem = "its arithmetic is released, whose image scores depend on the place in the batch"
        raise InputError(f"{run.run_dir}: {problem}; train a run with the corrected arithmetic")
    if maps is None:
        return score_names.maps_of(run.model, run.objective, DEFAULT_MAPS)
    for name in maps:
        if name in SCORES and name not in MAPS:
            fits = ", ".join(run.maps)
            raise ArgumentError("maps", name, f"has its own program, which is not exported; choose from {fits}")
    score_names.check_maps(run.model, run.objective, maps)
    return tuple(maps)


def _sample_images(run: Run) -> np.ndarray | None:
    """A few images of the run, prepared, [n, H, W, C] float32; None if they cannot be read."""
    try:
        splits = run_images.open_own(run)
    except InputError:
        return None
    images = next(part.images for part in (splits.test, splits.validation, splits.train) if len(part))
    chosen = evenly_spaced(len(images), SAMPLES)
    return as_float(np.asarray(images[chosen])).astype(np.float32)


def _noise(run: Run) -> np.ndarray:
    return np.random.default_rng(0).random((SAMPLES, *run.model.image_shape), np.float32)


def _write_weights(path: Path, params: Params) -> None:
    from safetensors.numpy import save

    leaves = jax.tree.leaves_with_path(params)
    arrays = {jax.tree_util.keystr(place, simple=True, separator="."): np.asarray(leaf) for place, leaf in leaves}
    path.write_bytes(save({name: np.array(array, order="C") for name, array in arrays.items()}))


def _export_program(run: Run, maps: tuple[str, ...], batch_size: int) -> Any:
    """The `jax.export.Exported` of (params, images [B, H, W, C] float32) -> {name: array}, for all platforms."""
    from jax import export

    log_scale = jnp.float32(run.config["hparams"]["log_scale"])

    def program(params: Params, images: Array) -> dict[str, Array]:
        settings: dict[str, Any] = {"log_scale": log_scale, "likelihood": likelihood_of(run.config)}
        settings |= {"maps": maps, "reconstructions": True}
        batch = score_batch(run.model, params, images, **settings)
        # The mean over the channels, as in `Run.score` and in the files of `jaxvae score`.
        averaged = {name: jnp.mean(values, axis=-1, keepdims=True) for name, values in batch.maps.items()}
        assert batch.reconstructions is not None
        kept = {name: batch.samples._asdict()[name] for name in _image_scores(run)}
        return {**averaged, **kept, "reconstruction": batch.reconstructions}

    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), run.params)
    images = jax.ShapeDtypeStruct((batch_size, *run.model.image_shape), jnp.float32)
    return export.export(jax.jit(program), platforms=tuple(PLATFORMS))(params, images)


def _image_scores(run: Run) -> tuple[str, ...]:
    """The image scores of the program; a run without a KL has the NLL only."""
    return ("elbo", "kl", "nll") if run.objective.kl else ("nll",)


def _log_scale(run: Run) -> float | None:
    """The natural logarithm of the decoder's standard deviation; None if the model has learned it."""
    images = jax.ShapeDtypeStruct((1, *run.model.image_shape), jnp.float32)
    learned = jax.eval_shape(partial(reconstruct, run.model), run.params, images).log_scale
    return run.config["hparams"]["log_scale"] if learned is None else None


def _outputs(run: Run, maps: tuple[str, ...], images: np.ndarray) -> dict[str, np.ndarray]:
    """What the program returns, computed by jaxvae."""
    scores = run_scores.score_prepared(run, images, maps=maps, reconstructions=True)
    kept = {name: scores.image_scores[name] for name in _image_scores(run)}
    return {**{name: scores.maps[name] for name in maps}, **kept, "reconstruction": scores.reconstructions}


def _record(run: Run, exported: Any, outputs: list[str], batch_size: int, *, own: bool) -> dict[str, Any]:
    """export.json, but for the hashes."""
    known = {name: SCORES[name] for name in outputs if name in SCORES}
    dtype = getattr(run.model, "dtype", jnp.float32)
    return {
        "jaxvae": jaxvae.__version__,
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "calling_convention_version": exported.calling_convention_version,
        "platforms": list(exported.platforms),
        "images": {"shape": [batch_size, *run.model.image_shape], "dtype": "float32"},
        "preprocessing": _preprocessing(run),
        "outputs": {
            name: {
                "shape": list(aval.shape),
                "dtype": str(aval.dtype),
                "formula": known[name].formula if name in known else "x̂, the mean of p(x|z)",
            }
            for name in outputs
            for aval in [jax.tree.unflatten(exported.out_tree, exported.out_avals)[name]]
        },
        "model": run.config["model"],
        "objective": run.objective.name,
        "log_scale": _log_scale(run),
        "step": run.step,
        "sample": "images of the run" if own else "noise",
        "platform": name_here(),
        "tolerance": TOLERANCE if jnp.dtype(dtype).itemsize > 2 else TOLERANCE_16_BITS,
    }


def _preprocessing(run: Run) -> dict[str, Any]:
    """How images become the model's, without the folder that they were in."""
    settings = kinds.to_config(run.source)
    kept = {name: settings[name] for name in ("size", "channels", "normalise", "scaling")}
    volumes = run.config.get("volumes")
    slicing = {"slicing": volumes["slicing"]} if volumes else {}
    order = "channels are chosen, images are resized, then normalised; uint8 values are divided by 255"
    return {"kind": run.kind.name, **kept, **slicing, "order": order}


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes it, if no error occurs.

    Raises:
      InputError: there is something else than an export, or the folder cannot be written.
    """
    own = {check.WEIGHTS, check.PROGRAM, check.RECORD, check.SAMPLE, "check.py", "README.md", "__pycache__"}
    try:
        place = out.absolute()  # The name of "." is empty.
        there = {it.name for it in out.iterdir()} if out.is_dir() else {""} if out.exists() else set()
        if there and not (check.RECORD in there and there <= own):
            raise InputError(f"{out}: exists and is not an export; name a new folder")
        place.parent.mkdir(parents=True, exist_ok=True)
        for left in place.parent.glob(f".{glob.escape(place.name)}.*.part"):
            shutil.rmtree(left, ignore_errors=True)  # A killed export left it.
        part, old = (place.with_name(f".{place.name}.{uuid.uuid4().hex}.part") for _ in range(2))
        part.mkdir()
        try:
            yield part
            if there:
                os.replace(place, old)
            os.replace(part, place)
        finally:
            for folder in (part, old):
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise cannot_be_written(out, error) from error
