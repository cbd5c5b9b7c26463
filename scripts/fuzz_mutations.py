"""Ways to damage a file: at random, and by the fields of its format. All draws come from one `random.Random`."""

from __future__ import annotations

import gzip
import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

Draw = random.Random


class Damage(NamedTuple):
    """A damaged file. `cut`: it is the beginning of the good one, so it must be refused or read as the good one."""

    content: bytes
    what: str
    cut: bool = False


WHOLE_NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    127,
    128,
    255,
    256,
    1000,
    32767,
    -32768,
    65535,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    10**12,
)
REAL_NUMBERS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e-45,
    1e-30,
    1e30,
    3.4e38,
    1e300,
    -1e300,
    float("nan"),
    float("inf"),
    -float("inf"),
)
OTHERS = {
    "nothing": b"",
    "one byte": b"\x00",
    "a web page": b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body></body></html>\n" * 20,
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
    "zeros": bytes(4096),
    "an empty gzip": gzip.compress(b""),
    "a gzip of text": gzip.compress(b"hello " * 100),
    "an empty zip": b"PK\x05\x06" + bytes(18),
    "a pickle": b"\x80\x04cos\nsystem\n(S'touch pickled'\ntR.",
    "text": "Grüße\n".encode("utf-16"),
}
PATHS = ("../../outside", "/outside", "..", "a/../../outside", "", "a\0b", "x" * 5000, "\ud800", "~", ".", "a\nb")
NESTED: Any = None
for _ in range(200):
    NESTED = [NESTED]
JSON_VALUES: tuple[Any, ...] = (
    *(None, True, False, {}, [], [[]], NESTED, float("nan"), float("inf"), 10**30, 0.5),
    *WHOLE_NUMBERS,
    *PATHS,
)


@cache
def bomb() -> bytes:
    """A gzip of 2 GB of zeros, a thousandth as long, in 32 members."""
    return gzip.compress(bytes(1 << 26)) * 32


def at_random(draw: Draw, content: bytes) -> Damage:
    """Change, remove, repeat or replace bytes, without knowledge of the format."""
    kind = draw.choice(("flip", "flip", "overwrite", "number", "cut", "cut", "remove", "repeat", "append", "other"))
    if kind == "other" or not content:
        name = draw.choice(list(OTHERS))
        return Damage(OTHERS[name], name)
    # The first bytes decide most about how the rest is read.
    place = draw.randrange(min(len(content), draw.choice((64, 512, len(content)))))
    end = min(len(content), place + draw.choice((1, 2, 4, 8, 64, 1000)))
    damaged = bytearray(content)
    if kind == "flip":
        for _ in range(draw.choice((1, 1, 2, 8))):
            damaged[draw.randrange(place, end)] ^= 1 << draw.randrange(8)
    elif kind == "overwrite":
        damaged[place:end] = draw.randbytes(end - place)
    elif kind == "number":
        form = draw.choice(("<h", ">h", "<i", ">i", "<q", ">q", "<f", ">f", "<d", ">d"))
        value = _packed(form, draw.choice(REAL_NUMBERS if form[1] in "fd" else WHOLE_NUMBERS))
        damaged[place : place + len(value)] = value
    elif kind == "cut":
        keep = draw.choice((draw.randrange(len(content)), len(content) - draw.randint(1, 16), place))
        return Damage(content[: max(keep, 0)], f"cut to {max(keep, 0)} bytes", cut=True)
    elif kind == "remove":
        del damaged[place:end]
    elif kind == "repeat":
        damaged[place:place] = content[place:end] * draw.choice((1, 2, 100))
    else:
        damaged += draw.randbytes(draw.choice((1, 16, 1000)))
    return Damage(bytes(damaged), f"{kind} at {place}")


def _packed(form: str, value: float) -> bytes:
    """The number as bytes, cut to the width of the type."""
    size = struct.calcsize(form)
    if form[1] in "fd":
        try:
            return struct.pack(form, value)
        except OverflowError:
            return struct.pack(form, float("inf"))
    return (int(value) % 2 ** (8 * size)).to_bytes(size, "little" if form[0] == "<" else "big")


def field(name: str, offset: int, form: str) -> Callable[[Draw, bytes], Damage]:
    """Damage one field of a header with fixed places."""

    def damage(draw: Draw, content: bytes) -> Damage:
        value = draw.choice(REAL_NUMBERS if form[1] in "fd" else WHOLE_NUMBERS)
        packed = _packed(form, value)
        return Damage(content[:offset] + packed + content[offset + len(packed) :], f"{name} = {value}")

    return damage


def fields(order: str, start: int, names: str) -> list[Callable[[Draw, bytes], Damage]]:
    """`field` for consecutive names with their types: "width:i height:i"."""
    made = []
    for word in names.split():
        name, form = word.split(":")
        count, form = int(form[:-1] or 1), order + form[-1]
        made += [field(f"{name}[{i}]", start + i * struct.calcsize(form), form) for i in range(count)]
        start += count * struct.calcsize(form)
    return made


NIFTI1 = [
    *fields("<", 0, "sizeof_hdr:i"),
    *fields("<", 40, "dim:8h intent:3f intent_code:h datatype:h bitpix:h slice_start:h pixdim:8f vox_offset:f"),
    *fields("<", 112, "scl_slope:f scl_inter:f slice_end:h slice_code:b xyzt_units:b cal:2f"),
    *fields("<", 252, "qform_code:h sform_code:h quatern:3f qoffset:3f srow:12f"),
    *fields("<", 344, "magic:i extension:i esize:i"),
]
NIFTI2 = [
    *fields("<", 0, "sizeof_hdr:i magic:2i datatype:h bitpix:h dim:8q intent:3d pixdim:8d vox_offset:q"),
    *fields("<", 176, "scl_slope:d scl_inter:d"),
    *fields("<", 344, "qform_code:i sform_code:i quatern:3d qoffset:3d srow:12d"),
]
ANALYZE = [
    *fields("<", 0, "sizeof_hdr:i"),
    *fields("<", 40, "dim:8h"),
    *fields("<", 70, "datatype:h bitpix:h dim_un0:h pixdim:8f vox_offset:f scl_slope:f"),
    *fields("<", 253, "origin:5h"),
]
MGH = fields(">", 0, "version:i dims:4i type:i dof:i good_ras:h delta:3f directions:9f centre:3f")
BMP = fields("<", 2, "size:i reserved:i offset:i header:i width:i height:i planes:h depth:h compression:i bytes:i")
IDX = fields(">", 0, "magic:i dims:3i")


def png(draw: Draw, content: bytes) -> Damage:
    """Damage a field of IHDR, or remove, repeat, move or damage a chunk, with valid checksums."""
    chunks, place = [], 8
    while place + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        chunks.append((name, content[place + 8 : place + 8 + length]))
        place += 12 + length
    number = draw.randrange(len(chunks))
    name, data = chunks[number]
    if draw.random() < 0.01:
        width, height, colour = draw.choice(
            ((13_000, 13_000, 0), (13_000, 13_000, 2), (7000, 7000, 2), (100_000, 10, 2))
        )
        chunks = [
            (b"IHDR", struct.pack(">2I5B", width, height, 8, colour, 0, 0, 0)),
            (b"IDAT", _zeros(width, height, colour)),
        ]
        return Damage(_as_png([*chunks, (b"IEND", b"")]), f"{width}x{height} zeros")
    kind = draw.choice(("header", "header", "remove", "repeat", "move", "inside"))
    if kind == "header":
        damaged = draw.choice(fields(">", 0, "width:i height:i depth:b colour:b compression:b filter:b interlace:b"))
        inner = damaged(draw, chunks[0][1])
        chunks[0], what = (chunks[0][0], inner.content), inner.what
    else:
        what = f"{kind} {name.decode(errors='replace')}"
        if kind == "remove":
            del chunks[number]
        elif kind == "repeat":
            chunks.insert(number, (name, data))
        elif kind == "move":
            chunks.insert(draw.randrange(len(chunks)), chunks.pop(number))
        else:
            chunks[number] = (name, at_random(draw, data).content)
    return Damage(_as_png(chunks), what)


def _as_png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@cache
def _zeros(width: int, height: int, colour: int) -> bytes:
    packer, row = zlib.compressobj(1), bytes(1 + width * (3 if colour else 1))
    return b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()


def tiff(draw: Draw, content: bytes) -> Damage:
    """Damage a tag of the first directory: its number, type, count or value."""
    if len(content) < 16 or content[:4] not in (b"II*\0", b"MM\0*"):
        return at_random(draw, content)
    order = "<" if content[:1] == b"I" else ">"
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, start)
    if draw.random() < 0.1:
        return draw.choice(fields(order, start, "tags:h"))(draw, content)
    tag = start + 2 + 12 * draw.randrange(count)
    (number,) = struct.unpack_from(f"{order}H", content, tag)
    damage = draw.choice(fields(order, tag, "tag:h type:h count:i value:i") + 2 * fields(order, tag + 8, "value:i"))
    damaged = damage(draw, content)
    return damaged._replace(what=f"tag {number}: {damaged.what}")


def npy(draw: Draw, content: bytes) -> Damage:
    """Write another dtype, shape or order into the header, or a header that is not such a dict."""
    head, body = content[: content.index(b"\n") + 1], content[content.index(b"\n") + 1 :]
    text = head[10:].decode().rstrip()
    value = draw.choice(WHOLE_NUMBERS)
    changes = (
        (r"'descr': '[^']*'", f"'descr': {draw.choice(DTYPES)}"),
        (
            r"\([\d, ]*\)",
            draw.choice((f"({value},)", f"({value}, {value})", "()", f"({value}, 4, 4)", "(4.5, 4)", "'x'")),
        ),
        (r"False", draw.choice(("True", "None", "2"))),
        (r"\{", draw.choice(("[" * 3000, "{{", "", "__import__('os').system('touch ran') or {", "{'more': 1, "))),
    )
    pattern, new = draw.choice(changes)
    text = re.sub(pattern, lambda _: new, text, count=1)
    length = len(text) + 1 if draw.random() < 0.9 else draw.choice((0, 1, 65535))
    return Damage(head[:8] + struct.pack("<H", length % 65536) + text.encode() + b"\n" + body, text[:200])


DTYPES = (
    *(
        "'|O'",
        "'<U5'",
        "'|S3'",
        "'<M8[s]'",
        "'|V8'",
        "'<c8'",
        "'<f2'",
        "'>f8'",
        "'|b1'",
        "'<i8'",
        "'<f16'",
        "'nonsense'",
    ),
    *("[('a', '<f4'), ('b', '|O')]", "[('a', '<f4', (1000000, 1000000))]", "('<f4', (3,))", "None", "7"),
)


def json_record(draw: Draw, content: bytes) -> Damage:
    """Replace or remove one value of a JSON object, at any depth."""
    record = json.loads(content)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        steps = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for step in steps:
            places.append((value, step))
            walk(value[step])

    walk(record)
    if not places or draw.random() < 0.05:
        return Damage(json.dumps(draw.choice(JSON_VALUES)).encode(), "another value")
    holder, step = draw.choice(places)
    if draw.random() < 0.15:
        del holder[step]
        return Damage(json.dumps(record).encode(), f"without {step}")
    holder[step] = draw.choice(JSON_VALUES)
    return Damage(json.dumps(record).encode(), f"{step} = {str(holder[step])[:40]}")


def json_lines(draw: Draw, content: bytes) -> Damage:
    """Damage, repeat or remove one record."""
    lines = content.split(b"\n")[:-1]
    if not lines:
        return at_random(draw, content)
    number, kind = draw.randrange(len(lines)), draw.choice(("damage", "damage", "repeat", "remove"))
    what = f"line {number + 1}: {kind}"
    if kind == "damage":
        damaged = json_record(draw, lines[number])
        lines[number], what = damaged.content, f"line {number + 1}: {damaged.what}"
    elif kind == "repeat":
        lines.insert(number, lines[number])
    else:
        del lines[number]
    return Damage(b"".join(line + b"\n" for line in lines), what)
