"""RUN/fitted/METHOD.npz: the states of methods, fitted on healthy images.

Entry `about` is a JSON object: the checkpoint's step, the digest of the method's code, and the names of the other
entries. Names of nested entries are joined with `/`. A state of another checkpoint or of other code is not used.
"""

import hashlib
import inspect
import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae import files
from jaxvae.errors import InputError
from jaxvae.scores import METHODS, SCORES

FOLDER = "fitted"
State = dict[str, Any]


def methods_of(maps: Sequence[str]) -> list[str]:
    """The methods of these scores that need a state."""
    names = dict.fromkeys(SCORES[name].method for name in maps)
    return [name for name in names if name is not None and METHODS[name].fitted]


def write(run_dir: Path, step: int, method: str, state: Mapping[str, Any]) -> None:
    """Write the state of a method, atomically.

    Raises:
      InputError: the folder cannot be written to.
    """
    leaves = jax.tree.leaves_with_path(dict(state))
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
    about = json.dumps({"step": step, "code": code_digest(method), "names": [*arrays]})
    path = path_of(run_dir, method)
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise files.cannot_be_written(path, error) from error
    with files.replacing(path) as file:
        entries = {"about": np.array(about), **{f"state/{name}": array for name, array in arrays.items()}}
        np.savez(file, **entries)  # pyright: ignore[reportArgumentType]


def read(run_dir: Path, step: int, method: str) -> State | None:
    """The state of a method; None if missing, damaged, or of other weights or code."""
    path = path_of(run_dir, method)
    try:
        about = path.stat()
    except OSError:
        return None
    return _read(path, step, method, (about.st_ino, about.st_mtime_ns, about.st_size))


@lru_cache(maxsize=16)
def _read(path: Path, step: int, method: str, _: tuple[int, ...]) -> State | None:
    """`read`, once for each version of a file, since each part of a folder asks for it."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in opened.files}
        about = json.loads(str(arrays.pop("about")))
        of_now = {"step": step, "code": code_digest(method), "names": [name.partition("/")[2] for name in arrays]}
    # Damaged bytes raise errors of many classes in zipfile and NumPy.
    except Exception:
        return None
    if about != of_now:
        return None
    state: State = {}
    for name, array in arrays.items():
        *folders, last = name.split("/")[1:]
        inner = state
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = jnp.asarray(array)  # Copied to the device once, not with every batch.
    return state


def read_all(run_dir: Path, step: int, maps: Sequence[str]) -> dict[str, State]:
    """The states of all methods that these scores need.

    Raises:
      InputError: one is missing.
    """
    found = {method: read(run_dir, step, method) for method in methods_of(maps)}
    for method, state in found.items():
        if state is None:
            names = ", ".join(score.name for score in METHODS[method].scores)
            way_out = "call `jaxvae.fit_scores` first, which needs the run's training images or other healthy ones"
            raise InputError(f"{run_dir}: {names} is not fitted on healthy images; {way_out}")
    return {method: state for method, state in found.items() if state is not None}


def path_of(run_dir: Path, method: str) -> Path:
    """The file of a method's state."""
    return run_dir / FOLDER / f"{method}.npz"


def code_digest(method: str) -> str:
    """A digest of the files with a method's functions; empty if there is none."""
    functions = [METHODS[method].function("score")]
    functions += [METHODS[method].function("fit")] if METHODS[method].fitted else []
    paths = {inspect.getsourcefile(inspect.unwrap(function)) for function in functions}
    contents = [Path(path).read_bytes() for path in sorted(filter(None, paths)) if Path(path).is_file()]
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16] if contents else ""


def map_digest(run_dir: Path, name: str) -> str | None:
    """A digest of the code and state of a score's method; None for other scores."""
    method = SCORES[name].method
    if method is None:
        return None
    path = path_of(run_dir, method)
    state = path.read_bytes() if METHODS[method].fitted and path.is_file() else b""
    return hashlib.sha256(code_digest(method).encode() + state).hexdigest()[:16]
