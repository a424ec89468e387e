"""The limits of STYLE that ruff doesn't know, read from the syntax tree of the package."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kdsweep"
LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS, MOST_ANY = 450, 60, 7, 120
# Functions that take more parameters, each with its reason.
MORE_PARAMETERS = {
    "kdsweep/core/objective/distillation_loss.py:distillation_loss": "the loss as users call it",
    "kdsweep/core/training/dropout.py:_attention": "those of the torch function it replaces",
    "kdsweep/export/folder.py:export": "the options of `kdsweep export`, as users call it",
    "kdsweep/sweep/run_sweep.py:run": "the options of `kdsweep run`, as users call it",
}
FILES = sorted(PACKAGE.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE.parent))


def functions_of(file: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree_of(file)) if isinstance(node, Function))


def is_command(function: Function) -> bool:
    """Whether Click calls it: its parameters are a command's options."""
    return any(
        "click." in ast.unparse(one) or "command" in ast.unparse(one)
        for one in function.decorator_list
    )


def test_the_package_was_found() -> None:
    assert len(FILES) > 80


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_file_tells_one_story(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_function_fits_on_a_screen(file: Path) -> None:
    for function in functions_of(file):
        first = min([function.lineno, *(one.lineno for one in function.decorator_list)])
        lines = (function.end_lineno or first) - first + 1
        assert lines <= LONGEST_FUNCTION, f"{name_of(file)}:{function.lineno}: {function.name}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_function_takes_few_parameters(file: Path) -> None:
    for function in functions_of(file):
        given = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        count = len([one for one in given if one.arg not in ("self", "cls")])
        reason = MORE_PARAMETERS.get(f"{name_of(file)}:{function.name}")
        if count > MOST_PARAMETERS and not is_command(function):
            assert reason, f"{name_of(file)}:{function.lineno}: {function.name} takes {count}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_conditional_expression_hides_in_another_or_in_an_f_string(file: Path) -> None:
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.IfExp):
            parts = (node.test, node.body, node.orelse)
            inner = [one for part in parts for one in ast.walk(part)]
        elif isinstance(node, ast.FormattedValue):
            inner = list(ast.walk(node))
        else:
            continue
        assert not any(isinstance(one, ast.IfExp) for one in inner), (
            f"{name_of(file)}:{node.lineno}"
        )


def test_any_stands_for_third_parties_alone() -> None:
    uses = {
        name_of(file): sum(
            isinstance(one, ast.Name) and one.id == "Any" for one in ast.walk(tree_of(file))
        )
        for file in FILES
    }
    assert sum(uses.values()) <= MOST_ANY, sorted(uses.items(), key=lambda entry: -entry[1])[:10]


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports of types and imports inside of functions count: a reader follows them too."""
    modules = {module_of(file): file for file in FILES}
    imported = {
        module: (set(_imported(file, modules)) - {module}) for module, file in modules.items()
    }
    assert "kdsweep.core.tasks" in imported["kdsweep.core.settings"], "packages count as files"
    assert "kdsweep.core.tasks.floor" in imported["kdsweep.core.tasks.base"], "types count"
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in finished:
            for other in sorted(imported[module]):
                visit(other, (*path, module))
            finished.add(module)

    for module in modules:
        visit(module, ())


def module_of(file: Path) -> str:
    """The module's full name; that of a package for its `__init__.py`."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def _imported(file: Path, modules: Collection[str]) -> Iterator[str]:
    """The modules of the package that the file names anywhere: at its top, for types, inside."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                name = inner if inner in modules else node.module
                if name in modules:
                    yield name
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
