"""Flags of a model that trains in seconds, and readers of what a run writes."""

from __future__ import annotations

import json
from pathlib import Path

SMALL = ["--features", "4", "8", "--latent-size", "4", "--batch-size", "4", "--epochs", "2"]
SIDE = 32


def leftovers(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.name.endswith(".part") or path.name.startswith(".")]


def read_lines(path: Path) -> list[dict]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {path}")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
