"""Score images with an exported run, and check its numbers.

It needs jax and numpy only.

JAX compiles and runs the program in the folder, so open only folders that you trust.

    python OUT/check.py         # prints one line; exit code 0 if the numbers agree, else 1

    import check                # in a program, with OUT on its path
    score = check.load("OUT")
    results = score(images)     # {name: array}, for any number of prepared images
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

PROGRAM, WEIGHTS, SAMPLE, RECORD = "score.stablehlo", "weights.safetensors", "sample.npz", "export.json"
ENTRIES = ("jax", "calling_convention_version", "platform", "images", "outputs", "tolerance", "sha256")
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}


class ExportError(ValueError):
    """An exported folder that cannot be used, in one line."""


def load(folder: str | Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Open an exported folder.

    Returns:
      A function of images [N, H, W, C], uint8 (divided by 255) or float32, prepared as export.json says. It gives the
      outputs that export.json names, [N, ...] each.

    Raises:
      ExportError: a file is missing or was changed, or this JAX does not read the program.
    """
    import jax

    folder = Path(folder)
    record = read_record(folder)
    params = jax.device_put(nested(read_safetensors(folder / WEIGHTS)))
    program = read_program(folder, record, params)
    size, *shape = record["images"]["shape"]

    def score(images: np.ndarray) -> dict[str, np.ndarray]:
        images = np.asarray(images)
        if list(images.shape[1:]) != shape:
            raise ExportError(f"images: {list(images.shape)}; must be [N, H, W, C] with [H, W, C] = {shape}")
        images = images.astype(np.float32) / (255 if images.dtype == np.uint8 else 1)
        if len(images) == 0:
            raise ExportError("images: there is none; give at least one")
        batches = []
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            filled = np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0), (0, 0)), mode="edge")
            batches.append({name: np.asarray(it)[: len(batch)] for name, it in program(params, filled).items()})
        return {name: np.concatenate([batch[name] for batch in batches]) for name in record["outputs"]}

    return score


def read_record(folder: Path) -> dict[str, Any]:
    """export.json, after each file was compared with its hash in it."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if missing := [name for name in ENTRIES if name not in record]:
            raise ExportError(f"{folder / RECORD}: lacks {missing[0]}; restore it, or export the run again")
        for name, expected in record["sha256"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
                raise ExportError(f"{folder / name}: was changed since the export; restore it, or export the run again")
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError(f"{folder}: is not a whole export ({error}); restore it, or export the run again") from error
    return record


def read_program(folder: Path, record: dict[str, Any], params: dict[str, Any]) -> Any:
    """The score program of the folder, compiled: a function of params and images."""
    import jax
    from jax import export

    written = record["calling_convention_version"]
    low, high = export.minimum_supported_calling_convention_version, export.maximum_supported_calling_convention_version
    here = f"jax {jax.__version__} reads calling conventions {low} to {high}"
    way_out = f"install jax {record['jax']}, or write it again with this jax: jaxvae export RUN OUT"
    refused = f"{folder / PROGRAM}: was written by jax {record['jax']} with calling convention {written}, and {here}"
    if not low <= written <= high:
        raise ExportError(f"{refused}; {way_out}")
    try:
        with flatbuffers_here():
            exported = export.deserialize(bytearray((folder / PROGRAM).read_bytes()))
        # Some versions read the file of another version, and refuse it when they compile.
        images = jax.ShapeDtypeStruct(record["images"]["shape"], np.float32)
        return jax.jit(exported.call).lower(params, images).compile()
    except Exception as error:  # JAX has no common class for the files that it does not read.
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ExportError(f"{refused}, but it refuses this file ({reason}); {way_out}") from error


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file: 8 bytes with the length of a JSON header, the header, and the data."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            count, offset = math.prod(entry["shape"]), start + entry["data_offsets"][0]
            arrays[name] = np.frombuffer(content, DTYPES[entry["dtype"]], count, offset).reshape(entry["shape"])
    return arrays


def nested(arrays: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries of arrays by their dotted names."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *outer, last = name.split(".")
        inner = tree
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[last] = array
    return tree


def compare(folder: str | Path) -> str:
    """Score the sample and compare the outputs with those that jaxvae computed.

    The error of an output is relative to its largest value in the sample. The tolerance depends on the device that
    computes it and on the one that computed the sample, because some round the factors of matrix products.

    Returns:
      One line for the user.

    Raises:
      ExportError: as `load`, or an output differs.
    """
    import jax

    folder = Path(folder)
    got, record = load(folder), read_record(folder)
    with np.load(folder / SAMPLE) as file:
        sample = dict(file)
    results = got(sample.pop("images"))
    here = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    tolerance = max(record["tolerance"].get(name, 0.1) for name in (here, record["platform"]))
    errors = {
        name: float(np.abs(results[name] - expected).max() / (np.abs(expected).max() or 1))
        for name, expected in sample.items()
    }
    worst = max(errors, key=lambda name: math.inf if math.isnan(errors[name]) else errors[name])
    where = f"on {here} with jax {jax.__version__}"
    limits = f"{errors[worst]:.1e} of its largest value, tolerance {tolerance:.0e}"
    if not errors[worst] <= tolerance:
        way_out = f"export the run again, or use jax {record['jax']}"
        raise ExportError(f"{folder}: {worst} differs from the sample {where} ({limits}); {way_out}")
    return f"{folder}: {len(errors)} outputs agree with the sample {where} (worst {worst}: {limits})"


@contextmanager
def flatbuffers_here() -> Any:
    """A stand-in for the package flatbuffers, with which JAX reads its files, if it is not installed."""
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        modules = _flatbuffers()
        sys.modules.update(modules)
        try:
            yield
        finally:
            for name in modules:
                del sys.modules[name]
    else:
        yield


def _flatbuffers() -> dict[str, ModuleType]:
    """The modules of flatbuffers, with the parts that read a file (https://flatbuffers.dev/internals)."""

    def number(data: bytearray, code: str, at: int) -> Any:
        return struct.unpack_from(code, data, at)[0]

    class Table:
        def __init__(self, data: bytearray, position: int) -> None:
            self.Bytes, self.Pos = data, position

        def Get(self, kind: Any, at: int) -> Any:
            return kind.py_type(number(self.Bytes, kind.code, at))

        def Offset(self, slot: int) -> int:
            slots = self.Pos - number(self.Bytes, "<i", self.Pos)
            return number(self.Bytes, "<H", slots + slot) if slot < number(self.Bytes, "<H", slots) else 0

        def Indirect(self, at: int) -> int:
            return at + number(self.Bytes, "<I", at)

        def String(self, at: int) -> bytes:
            start = self.Indirect(at)
            return bytes(self.Bytes[start + 4 : start + 4 + number(self.Bytes, "<I", start)])

        def Vector(self, at: int) -> int:
            return self.Indirect(self.Pos + at) + 4

        def VectorLen(self, at: int) -> int:
            return number(self.Bytes, "<I", self.Indirect(self.Pos + at))

        def GetVectorAsNumpy(self, kind: Any, at: int) -> np.ndarray:
            return np.frombuffer(self.Bytes, kind.code, self.VectorLen(at), self.Vector(at))

    codes = {"Bool": "?", "Uint8": "B", "Uint16": "H", "Uint32": "I", "Uint64": "Q", "UOffsetT": "I"}
    codes |= {"Int8": "b", "Int16": "h", "Int32": "i", "Int64": "q"}
    kinds = {
        f"{name}Flags": SimpleNamespace(code=f"<{code}", py_type=bool if code == "?" else int)
        for name, code in codes.items()
    }
    parts: dict[str, dict[str, Any]] = {
        "compat": {"import_numpy": lambda: np},
        "encode": {"Get": lambda code, data, at: number(data, code, at)},
        "number_types": kinds,
        "packer": {"uoffset": "<I"},
        "table": {"Table": Table},
    }
    package = ModuleType("flatbuffers")
    modules = {"flatbuffers": package}
    for part, names in parts.items():
        modules[f"flatbuffers.{part}"] = module = ModuleType(f"flatbuffers.{part}")
        vars(module).update(names)
        setattr(package, part, module)
    return modules


def main() -> int:
    """Check the folder of this file, or the one that was named."""
    try:
        print(compare(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent))
    except ExportError as error:
        print(error, file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"{error}; install jax and numpy: pip install jax", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
