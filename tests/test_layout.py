"""The layout holds: no modules that import each other in a circle, and arrows between packages that point one way."""

import ast
from pathlib import Path

import pytest

import nlp_ssl

ROOT = Path(nlp_ssl.__file__).parent
FILES = {".".join(("nlp_ssl", *p.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): p
         for p in ROOT.rglob("*.py")}  # fmt: skip
TOP = {"classifier", "config", "errors", "method", "registry", "run", "task", "testing", "types"}


def imports(tree, inside):
    """Modules of the project that a file imports; those within functions only where `inside` is true, never those for
    types alone.
    """
    found, open_nodes = set(), [tree]
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in FILES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        open_nodes += ast.iter_child_nodes(node)
    return found & FILES.keys()


def graph(inside):
    return {name: imports(ast.parse(path.read_text()), inside) - {name} for name, path in FILES.items()}


def reached(start, arrows):
    found, todo = set(), list(arrows[start])
    while todo:
        if (name := todo.pop()) not in found:
            found.add(name)
            todo += arrows[name]
    return found


def in_circles(arrows):
    return {name for name in arrows if name in reached(name, arrows)}


def package(name):
    return name.split(".")[1] if name.count(".") > 1 or FILES[name].name == "__init__.py" and "." in name else None


def packages():
    arrows = {}
    for name, others in graph(inside=True).items():
        for other in others:
            if (a := package(name)) and (b := package(other)) and a != b:
                arrows.setdefault(a, set()).add(b)
    return arrows | {b: set() for others in arrows.values() for b in others if b not in arrows}


def test_the_walker_sees_circles():
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {"b", "c"}
    tree = ast.parse("import nlp_ssl.config\ndef f():\n    from nlp_ssl.utils import atomic\n")
    assert imports(tree, inside=False) == {"nlp_ssl.config"}
    assert imports(tree, inside=True) == {"nlp_ssl.config", "nlp_ssl.utils.atomic"}


def test_no_modules_import_each_other():
    assert not in_circles(graph(inside=False))
    assert not in_circles(graph(inside=True))


def test_no_packages_import_each_other():
    assert not in_circles(packages())


@pytest.mark.parametrize("name", ["ops", "utils", "nets", "data", "methods", "training", "rounds", "experiments"])
def test_what_trains_knows_nothing_of_what_shows(name):
    assert not reached(name, packages()) & {"report", "cli", "integrations"}


def test_few_modules_are_at_the_top():
    assert {path.stem for path in ROOT.glob("*.py")} == TOP | {"__init__", "__main__"}
