"""Only core/tasks names the kinds of tasks and the heads of their models."""

from __future__ import annotations

import ast
import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from kdsweep.core.settings import TaskSettings
from kdsweep.core.tasks import DEFAULT_KIND, KINDS, kind_named, kind_of_problem
from kdsweep.core.tasks.base import TaskKind

PACKAGE = Path(__file__).parents[3] / "kdsweep"
HOME = PACKAGE / "core" / "tasks"


def test_no_file_outside_core_tasks_names_a_kind_or_a_head() -> None:
    files = [file for file in PACKAGE.rglob("*.py") if HOME not in file.parents]
    assert len(files) > 50
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        texts = {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        problem_types = {kind.problem_type for kind in KINDS.values()}
        assert not texts & (KINDS.keys() | problem_types), file
        assert "AutoModelForSequenceClassification" not in names | texts, file


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_copying_or_pickling_a_kind_gives_the_same_object(kind: TaskKind) -> None:
    assert kind_named(kind.name) is kind
    assert copy.deepcopy(kind) is kind
    assert pickle.loads(pickle.dumps(kind)) is kind
    assert kind_of_problem(kind.problem_type) is kind


def test_a_model_without_a_problem_type_is_a_classifier() -> None:
    assert kind_of_problem(None) is DEFAULT_KIND


def test_settings_hold_the_kind_and_json_holds_its_name() -> None:
    task = TaskSettings(dataset="x", text=("t",), label="l", kind="regression", metric="pearson")
    assert task.kind is kind_named("regression")
    assert task.model_dump(mode="json")["kind"] == "regression"
    assert TaskSettings.model_validate_json(task.model_dump_json()) == task


def test_importing_the_kinds_imports_no_heavy_package() -> None:
    heavy = ("numpy", "scipy", "sklearn", "torch", "transformers")
    code = f"import sys, kdsweep.core.tasks; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
