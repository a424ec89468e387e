"""Imports point one way, and each third-party system has one home. Read from the syntax tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "kdsweep"
# What each part may import of kdsweep: itself and what comes before it.
ORDER = [
    "errors",
    "trial_id",
    "metric_names",
    "formatting",
    "shipped_files",
    "core",
    "databases",
    "config",
    "drafting",
    "compare",
    "report",
    "serving",
    "tracking",
    "sweep",
    "housekeeping",
    "advise",
    "replay",
    "ui",
    "terminal",
    "export",
    "predict",
    "cli",
]
# The files, or the packages (with a slash), that may import a third-party system.
ONLY_IN = {
    "optuna": [
        "sweep/drawn_values.py",
        "sweep/restored_trials.py",
        "sweep/studies.py",
        "sweep/open_study.py",
        "sweep/parameter_importance.py",
        "sweep/study_storage.py",
        "sweep/study_writer.py",
        "sweep/study_removal.py",
        "sweep/samplers_and_pruners.py",
        "sweep/paired_pruner.py",
        "sweep/shown_trials.py",
        "sweep/cheapest_search.py",
        "sweep/start_from.py",
    ],
    "mlflow": ["tracking/"],
    "click": ["cli/"],
    "rich": ["terminal/"],
    "ray": ["sweep/engines/"],
    "onnxruntime": ["core/evaluation/onnx_format.py"],
}
NOT_IN_CORE = {"optuna", "mlflow", "ray", "click", "rich"}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: import by full name"
            found.add(node.module)
    return found


def sources() -> list[Path]:
    found = [file for file in PACKAGE.rglob("*.py") if file.name != "__main__.py"]
    assert len(found) > 20
    return found


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_imports_point_one_way() -> None:
    for file in sources():
        own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for module in imports(file):
            other = part_of(module) if module.startswith("kdsweep.") else ""
            if other:
                assert ORDER.index(other) <= ORDER.index(own), (
                    f"{file.relative_to(PACKAGE)} must not import {module}"
                )


def test_a_third_party_system_has_one_home() -> None:
    for file in sources():
        for module in imports(file):
            root = module.split(".")[0]
            if root in ONLY_IN:
                allowed = tuple(ONLY_IN[root])
                assert str(file.relative_to(PACKAGE)).startswith(allowed), (
                    f"{file.relative_to(PACKAGE)} must not import {module}"
                )


def test_the_core_imports_no_optuna_mlflow_ray_or_click() -> None:
    for file in sources():
        if file.relative_to(PACKAGE).parts[0] == "core":
            assert not {module.split(".")[0] for module in imports(file)} & NOT_IN_CORE, file


def test_the_core_settings_are_read_without_torch() -> None:
    code = (
        "import sys, kdsweep.core.settings, kdsweep.config; "
        "assert not {'torch', 'optuna', 'mlflow', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_training_loop_receives_teachers_and_never_makes_one() -> None:
    makers = {
        f"kdsweep.core.teachers.{name}" for name in ("fine_tuning", "publishing", "selection")
    }
    files = list((PACKAGE / "core" / "training").glob("*.py"))
    assert len(files) > 5
    for file in files:
        assert not imports(file) & makers, file
