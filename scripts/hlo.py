"""Read the text of optimised HLO and count what it makes a device do.

HLO is the language of XLA's programs: computations that consist of instructions. The device starts the instructions of
the entry and of loop bodies one by one; a GPU starts one kernel for each. A fusion is one instruction whose inner
computation stays in registers.

Bytes follow from the shapes. A fusion reads each operand once, and only the part that its results need. Caches are not
modelled. FLOP are those of matrix products and convolutions, without the products with padding.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

BITS = {
    **dict.fromkeys(("pred", "s8", "u8"), 8),
    **dict.fromkeys(("s4", "u4"), 4),
    **dict.fromkeys(("s16", "u16", "bf16", "f16"), 16),
    **dict.fromkeys(("s32", "u32", "f32"), 32),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 64),
    "c128": 128,
    "token": 0,
}
# Instructions that only name or wait for something.
NO_WORK = re.compile(
    r"parameter|constant|tuple|get-tuple-element|bitcast|after-all|partition-id|replica-id|opt-barrier|domain"
    r"|add-dependency|get-dimension-size|send|recv|(copy|async|slice|dynamic-slice|send|recv)-done"
    r"|(all-reduce|all-gather|collective-permute)-done"
)
MARKERS = re.compile(
    r"Sharding|SPMD\w+|AllocateBuffer|AssumeGatherIndicesInBound|GetOpaqueHandle|annotate_device_placement"
)
COLLECTIVES = re.compile(r"(ragged-)?(all-reduce|all-gather|all-to-all|reduce-scatter|collective-)")


class Array(NamedTuple):
    """Type and shape of an array; space 0 is the device's main memory (HBM), 1 is a TPU core's own memory (VMEM)."""

    dtype: str
    shape: tuple[int, ...]
    space: int = 0

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> float:
        return self.elements * BITS[self.dtype] / 8

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Instruction:
    """`name = results opcode(arguments), attributes`."""

    name: str
    results: tuple[Array, ...]
    opcode: str
    arguments: str
    attributes: str
    is_root: bool

    @functools.cached_property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.arguments)

    @functools.cached_property
    def elements(self) -> int:
        return sum(array.elements for array in self.results) or 1

    def attribute(self, name: str) -> str:
        """The word after `name=`, or an empty one."""
        return _found(rf"\b{name}=%?([\w.\-]+)", self.attributes)

    @property
    def target(self) -> str:
        """What a custom call calls."""
        return _found(r'custom_call_target="([^"]*)"', self.attributes)


Computation = dict[str, Instruction]


@dataclass(frozen=True, eq=False)
class Module:
    """The computations of a program by name, and the name of the first one."""

    computations: dict[str, Computation]
    entry: str

    def inner(self, instruction: Instruction) -> Computation:
        """The computation of a fusion."""
        return self.computations.get(instruction.attribute("calls"), {}) if instruction.opcode == "fusion" else {}


@dataclass(frozen=True)
class Operation:
    """Something that the device starts by itself. Bytes and FLOP are those of one time."""

    name: str
    kind: str
    times: int  # in one call of the program
    is_rare: bool  # in a branch of a conditional
    bytes: float
    hbm_bytes: float  # the part in the device's main memory
    flops: float
    cycles: int  # XLA's estimate, on a TPU
    is_collective: bool
    result: str
    inputs: str
    source: str  # the function of JAX


def parse(text: str) -> Module:
    """Read HLO text, such as `jax.jit(f).lower(x).compile().as_text()`."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in re.sub(r"/\*[^*]*\*/", "", text).splitlines():
        if line.startswith(("%", "ENTRY")) and line.rstrip().endswith("{"):
            name = _found(r"(?:ENTRY )?%?([\w.\-]+)", line)
            current = computations[name] = {}
            entry = name if line.startswith("ENTRY") else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (head := re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)):
            current[head[2]] = _instruction(head[2], line[head.end() :], is_root=bool(head[1]))
    if not entry:
        raise ValueError("no ENTRY computation: this is no HLO text")
    return Module(computations, entry)


def _instruction(name: str, text: str, *, is_root: bool) -> Instruction:
    """Read `f32[2]{0} add(%a, %b), metadata={}`, or the same with a tuple of shapes."""
    if text.startswith("("):
        end = _closing(text, 0) + 1
    else:
        shape = re.match(r"[a-z0-9]+\[[^\]]*\](\{[^}]*\})?", text)
        end = shape.end() if shape else text.index(" ")
    results, rest = _arrays(text[:end]), text[end:].lstrip()
    start = rest.index("(")
    stop = _closing(rest, start)
    return Instruction(name, results, rest[:start], rest[start + 1 : stop], rest[stop + 1 :], is_root)


def _arrays(text: str) -> tuple[Array, ...]:
    found = []
    for dtype, sizes, layout in re.findall(r"([a-z][a-z0-9]*)\[([\d,<=\s]*)\](?:\{([^}]*)\})?", text):
        if dtype in BITS:
            shape = tuple(int(re.sub(r"\D", "", size)) for size in sizes.split(",") if size.strip())
            found.append(Array(dtype, shape, int(_found(r"S\((\d+)\)", layout) or 0)))
    return tuple(found)


def _closing(text: str, start: int) -> int:
    """The place of the bracket that closes the one at `start`."""
    depth, quoted = 0, False
    for place in range(start, len(text)):
        character = text[place]
        if character == '"':
            quoted = not quoted
        elif not quoted and character in "({[":
            depth += 1
        elif not quoted and character in ")}]":
            depth -= 1
            if depth == 0:
                return place
    raise ValueError(f"a bracket is not closed: {text[:60]}")


def _found(pattern: str, text: str) -> str:
    """The first group of a pattern, or an empty word."""
    found = re.search(pattern, text)
    return found[1] if found else ""


def operations(module: Module) -> list[Operation]:
    """What the device starts during one call of a program."""
    return list(_walk(module, module.entry, 1, is_rare=False))


def grouped_convolutions(module: Module) -> int:
    """The number of convolutions that compute several independent groups, which few devices do well."""
    return sum(
        bool(re.search(r"(feature|batch)_group_count=([2-9]|\d\d)", instruction.attributes))
        for computation in module.computations.values()
        for instruction in computation.values()
    )


def _walk(module: Module, name: str, times: int, *, is_rare: bool) -> Iterator[Operation]:
    computation = module.computations[name]
    for instruction in computation.values():
        attributes = instruction.attributes
        if instruction.opcode == "while":
            known = _found(r'known_trip_count"?:\{"n":"(\d+)"', attributes)
            repeats = int(known) if known else _repeats(module, instruction.attribute("condition"))
            yield from _walk(module, instruction.attribute("body"), times * repeats, is_rare=is_rare)
        elif instruction.opcode == "conditional":
            listed = _found(r"branch_computations=\{([^}]*)\}", attributes)
            pair = re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", attributes)
            for branch in pair + re.findall(r"[\w.\-]+", listed):
                yield from _walk(module, branch, times, is_rare=True)
        elif instruction.opcode == "call":
            yield from _walk(module, instruction.attribute("to_apply"), times, is_rare=is_rare)
        elif not NO_WORK.fullmatch(instruction.opcode) and not MARKERS.fullmatch(instruction.target):
            yield _operation(module, computation, instruction, times, is_rare=is_rare)


def _repeats(module: Module, condition: str) -> int:
    """How often a loop runs without a known count, as on TPUs: the constant that its counter is compared with."""
    instructions = dict(module.computations[condition])
    for instruction in list(instructions.values()):
        if instruction.is_root:
            instructions |= module.inner(instruction)
    for instruction in instructions.values():
        is_integer = instruction.results and instruction.results[0].dtype == "s32"
        if instruction.opcode == "constant" and is_integer and instruction.arguments.isdigit():
            return int(instruction.arguments)
    return 1


def _operation(
    module: Module, computation: Computation, instruction: Instruction, times: int, *, is_rare: bool
) -> Operation:
    if instruction.opcode == "async-start":  # An operation that runs beside the others.
        computation = module.computations[instruction.attribute("calls")]
        instruction = next(each for each in computation.values() if not NO_WORK.fullmatch(each.opcode))
    inputs = [computation[name] for name in instruction.operands if name in computation]
    moved: dict[int, float] = defaultdict(float)  # bytes by memory space
    for place, source in enumerate(inputs):
        if len(source.results) == 1:
            share = _share_read(module, computation, instruction, place)
            moved[source.results[0].space] += share * source.results[0].bytes
    for array, written in _written(module, computation, instruction):
        moved[array.space] += written
    everything = [instruction, *_nested(module, instruction)]
    return Operation(
        name=instruction.name,
        kind=_kind(module, instruction),
        times=times,
        is_rare=is_rare,
        bytes=sum(moved.values()),
        hbm_bytes=moved[0],
        flops=_flops(module, computation, instruction),
        cycles=int(_found(r'"estimated_cycles":"(\d+)"', instruction.attributes) or 0),
        is_collective=any(COLLECTIVES.match(each.opcode) for each in everything),
        result=" ".join(map(str, instruction.results[:4])),
        inputs=" ".join(str(array) for source in inputs for array in source.results[:1]),
        source=_found(r'op_name="([^"]*)"', instruction.attributes),
    )


def _kind(module: Module, instruction: Instruction) -> str:
    """The opcode, or what a fusion or a custom call contains."""
    if instruction.opcode == "custom-call":
        return _found(r"__(cudnn|cublas)", instruction.target) or instruction.target
    if instruction.opcode != "fusion":
        return instruction.opcode
    opcodes = Counter(each.opcode for each in _nested(module, instruction))
    if "__triton" in instruction.attributes:
        return "triton product" if opcodes["dot"] else "triton fusion"
    for product in ("convolution", "dot"):
        if opcodes[product]:
            return f"{product} fusion"
    return _found(r"kind=k(\w+)", instruction.attributes).lower() + " fusion"


def _nested(module: Module, instruction: Instruction) -> Iterator[Instruction]:
    for each in module.inner(instruction).values():
        yield each
        yield from _nested(module, each)


def _share_read(module: Module, computation: Computation, instruction: Instruction, place: int) -> float:
    """The part of an operand that an operation reads."""
    if instruction.opcode == "fusion":
        return _share_needed(module, instruction.attribute("calls"), place)
    if place == 0 and instruction.opcode in ("slice", "dynamic-slice", "gather", "slice-start"):
        source = computation[instruction.operands[0]].results[0].bytes
        taken = _targets(instruction)[0].bytes
        return min(1.0, taken / source) if source else 1.0
    return 0.0 if place == 0 and instruction.opcode in ("dynamic-update-slice", "scatter") else 1.0


@functools.cache
def _share_needed(module: Module, name: str, place: int) -> float:
    """The part of an operand that the results of a fusion need."""
    for instruction in module.computations.get(name, {}).values():
        if instruction.opcode == "parameter" and instruction.arguments.strip() == str(place):
            return min(1.0, _needed(module, name)[instruction.name] / instruction.elements)
    return 1.0


@functools.cache
def _needed(module: Module, name: str) -> dict[str, float]:
    """The number of elements of each instruction of a fusion that the results need; uses of the same part add up."""
    computation = module.computations[name]
    needed: dict[str, float] = defaultdict(float)
    for user in reversed(computation.values()):
        if user.is_root:
            needed[user.name] = user.elements
        used = min(needed[user.name], user.elements)
        for place, operand in enumerate(user.operands if used else ()):
            if operand in computation:
                needed[operand] += _asked_of(module, user, used, place, computation[operand].elements)
    return needed


def _asked_of(module: Module, user: Instruction, used: float, place: int, elements: int) -> float:
    """How many elements of an operand an instruction needs, to compute `used` elements of its result."""
    first = place == 0
    match user.opcode:
        case "slice" | "dynamic-slice" | "gather":
            return used if first else elements
        case "dynamic-update-slice":
            return 0 if first else elements
        case "scatter":
            return 0 if first and len(user.operands) == 3 else elements
        case "pad" | "concatenate":
            return used * min(1, elements / user.elements) if elements > 1 else elements
        case "reduce" | "reduce-window":
            return used * elements / user.elements if first else elements
        case "dot" | "convolution" | "tuple":
            return elements
        case "fusion":
            return elements * _share_needed(module, user.attribute("calls"), place)
        case _:
            return min(used, elements)


def _targets(instruction: Instruction) -> tuple[Array, ...]:
    """The results of an instruction that it writes."""
    results = instruction.results
    if instruction.opcode == "copy-start":  # target, source, context
        return results[:1]
    if instruction.opcode == "slice-start" and len(results) > 1:  # source, target, context
        return results[1:2]
    return results


def _written(module: Module, computation: Computation, instruction: Instruction) -> Iterator[tuple[Array, float]]:
    """Each array that an operation writes, and the bytes of it that change."""
    results = _targets(instruction)
    inner = module.inner(instruction)
    root = next((each for each in inner.values() if each.is_root), None)
    if root is None:
        sources = [instruction] * len(results)
    else:
        computation = inner
        sources = [inner.get(name) for name in root.operands] if root.opcode == "tuple" else [root]
    for array, source in zip(results, [*sources, *[None] * len(results)], strict=False):
        if instruction.opcode == "custom-call" and array.dtype in ("s8", "u8"):
            continue  # scratch memory
        changed = None if source is None else _changed(computation, source)
        yield array, array.bytes if changed is None else changed


def _changed(computation: Computation, source: Instruction | None) -> float | None:
    """The bytes that an update in place writes; None if the instruction is no such update."""
    while source is not None and source.opcode in ("bitcast", "reshape", "copy") and source.operands:
        source = computation.get(source.operands[0])
    if source is None or source.opcode not in ("dynamic-update-slice", "scatter"):
        return None
    update = computation.get(source.operands[1 if source.opcode == "dynamic-update-slice" else -1])
    return None if update is None else update.results[0].bytes


def _flops(module: Module, computation: Computation, instruction: Instruction) -> float:
    """FLOP of the products that an instruction contains."""
    inner = module.inner(instruction)
    if inner:
        return sum(_flops(module, inner, each) for each in inner.values())
    is_cudnn = instruction.target.startswith("__cudnn$conv")
    is_cublas = instruction.target.startswith("__cublas")
    if instruction.opcode not in ("dot", "convolution") and not is_cudnn and not is_cublas:
        return 0.0
    left, right = (computation[name].results[0] for name in instruction.operands[:2])
    if instruction.opcode == "convolution" or is_cudnn:
        return _convolution_flops(instruction, left, right)
    name = 'lhs_contracting_dimensions":\\[' if is_cublas else r"lhs_contracting_dims=\{"
    axes = re.findall(r"\d+", _found(name + r'([\d,"]*)', instruction.attributes))
    return 2.0 * instruction.results[0].elements * math.prod(left.shape[int(axis)] for axis in axes)


def _convolution_flops(instruction: Instruction, left: Array, right: Array) -> float:
    """Two per product of a kernel element with an input element, padding and holes excluded."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if labels is None:
        raise ValueError(f"{instruction.name}: a convolution without dim_labels")
    of_input, of_kernel, of_output = labels.groups()
    result = instruction.results[0]
    if "convBackward" in instruction.target:  # The work is that of the forward convolution.
        window = math.prod(map(int, _found(r"window=\{size=([\dx]+)", instruction.attributes).split("x")))
        if "BackwardFilter" in instruction.target:
            return 2.0 * right.elements * window * result.shape[of_kernel.index("i")]
        return 2.0 * left.elements * window * right.shape[of_kernel.index("i")]
    axes = sorted(label for label in of_input if label.isdigit())
    sizes = [(left.shape[of_input.index(axis)], result.shape[of_output.index(axis)]) for axis in axes]
    pixels = math.prod(size for _, size in sizes)
    meetings = _meetings(instruction.attributes, sizes)
    return 2.0 * result.elements / pixels * meetings * right.shape[of_kernel.index("i")]


def _meetings(attributes: str, sizes: list[tuple[int, int]]) -> int:
    """How many pairs of a kernel position and an output position meet a real input element.

    Args:
      sizes: input and output size of each spatial axis.
    """
    window = _found(r"window=\{([^}]*)\}", attributes)

    def values(name: str, default: str) -> list[str]:
        found = _found(rf"\b{name}=([\d_x\-]+)", window)
        return found.split("x") if found else [default] * len(sizes)

    total = 1
    fields = (values("size", "1"), values("stride", "1"), values("lhs_dilate", "1"), values("rhs_dilate", "1"))
    for (size, out), pad, *numbers in zip(sizes, values("pad", "0_0"), *fields, strict=True):
        taps, stride, holes, spacing = map(int, numbers)
        starts = (tap * spacing - int(pad.split("_")[0]) for tap in range(taps))
        places = (place for start in starts for place in range(start, start + out * stride, stride))
        total *= sum(place >= 0 and place % holes == 0 and place // holes < size for place in places)
    return total


def host_launches(thunks: str) -> tuple[int, bool]:
    """What the host of a GPU starts per turn of the innermost loop, or per call if the host runs no loop.

    A command buffer is one launch, whatever is in it.

    Args:
      thunks: XLA's dump of its list of host actions, `*.thunk_sequence_after_thunk_passes.txt`.

    Returns:
      The number, and whether it is that of a loop.
    """
    counts, sections, is_condition, buffer = {0: 0}, {0: "body"}, False, None
    for line in thunks.splitlines():
        indent, words = len(line) - len(line.lstrip()), line.strip()
        is_action = re.match(r"\d+: k", words) is not None
        if buffer is not None and not (is_action and indent <= buffer):
            continue  # inside a command buffer
        buffer = indent if "kCommandBuffer" in words else None
        if words.endswith(":"):
            sections[indent + 2] = words.rstrip(":")
            is_condition = words == "condition:"  # of a loop; its body follows
        elif is_action and not is_condition and sections.get(indent) == "body":
            counts[indent] = counts.get(indent, 0) + 1
    innermost = max(counts)
    return counts[innermost], innermost > 0
