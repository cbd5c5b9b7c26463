"""The layout of the package: imports point downwards, and each file has a unique name."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

import jaxvae

PACKAGE = Path(jaxvae.__file__).parent
MODULES = {
    ".".join(("jaxvae", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
# From the ground to the roof: a module imports from its own group and from those before it.
GROUPS = (
    ("errors", "types"),
    ("files", "progress", "machine", "rendezvous", "ops", "metrics"),
    ("models",),
    ("objectives",),
    ("train", "scores", "augment", "parity", "sharding", "population"),
    ("data",),
    ("runs",),
    ("scoring",),
    ("evaluation",),
    ("export",),
    ("sweeps",),
    ("report",),
    ("cli",),
    ("__main__",),
)
HEIGHT = {name: height for height, group in enumerate(GROUPS) for name in group}


def imports_of(module: str) -> set[str]:
    """The modules of jaxvae that a module imports, but for those that only a type checker reads."""
    tree = ast.parse(MODULES[module].read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxvae":
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else str(node.module) for name in full}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
    return found - {module}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"jaxvae"}))
def test_imports_point_downwards(module: str) -> None:
    height = HEIGHT[module.split(".")[1]]
    # The facade offers every name, and __version__.
    above = [name for name in imports_of(module) - {"jaxvae"} if HEIGHT[name.split(".")[1]] > height]
    assert not above, f"{module} imports {', '.join(sorted(above))}"


def test_there_are_no_circular_imports() -> None:
    graph = {module: imports_of(module) - {"jaxvae"} for module in MODULES}
    while leaves := [module for module, imported in graph.items() if not imported & graph.keys()]:
        for module in leaves:
            del graph[module]
    assert not graph


def test_every_file_has_a_unique_name() -> None:
    names = Counter(path.name for path in PACKAGE.rglob("*.py") if path.parent.name != "cli")
    del names["__init__.py"]
    assert [name for name, count in names.items() if count > 1] == []


def test_flags_are_named_in_cli_only() -> None:
    named = [
        f"{module}:{node.lineno}"
        for module, path in MODULES.items()
        if not module.startswith("jaxvae.cli")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.search(r"(^|[ `'(])--[a-z][a-z-]+", node.value)
    ]
    assert named == []


def test_folders_contain_few_modules() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 16
