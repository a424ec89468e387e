"""MLflow's UI on a finished sweep, in a real browser, from the links that `kdsweep ui` prints."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright
from sweep_processes import runs_of

from kdsweep.report.model import Report
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
# Milliseconds. MLflow's page is large, and two cores may be busy.
PATIENCE = 180_000


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = tmp_path_factory.mktemp("home")
    run(
        space,
        home=home,
        assignments=(
            "trials=1",
            "confirm={seeds: 1, finalists: 1}",
            "strategies.combined=",
            "training.epochs=2",
        ),
    )
    return Home(home)


@pytest.fixture(scope="module")
def links(home: Home) -> Iterator[list[str]]:
    command = [sys.executable, "-m", "kdsweep", "ui", "tiny", "--no-open", "--home", str(home.root)]
    with (home.root / "ui.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 180
        while "press Ctrl-C to stop" not in (text := (home.root / "ui.log").read_text()):
            assert server.poll() is None, text
            assert time.monotonic() < until
            time.sleep(0.1)
        yield [word for word in text.split() if word.startswith("http://127.0.0.1")]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(120)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium isn't installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        opened = browser.new_context(viewport={"width": 1800, "height": 1000}).new_page()
        opened.set_default_timeout(PATIENCE)
        yield opened
        browser.close()


def test_the_first_link_opens_the_runs_under_the_verdict_and_they_can_be_grouped(
    page: Page, links: list[str], home: Home
) -> None:
    page.goto(links[0])
    page.get_by_text("finetune-0-seed-0").first.wait_for()
    text = page.inner_text("body")
    for shown in (
        "teacher",
        "finetune-0",
        "distill-0",
        "distill-0-seed-0",
        "best/validation",
        "alpha",
        "learning_rate",
    ):
        assert shown in text, shown
    # The experiment's description starts with the verdict.
    verdict = Report.read(home.sweep("tiny").report).verdict
    assert verdict in " ".join(text.split())
    page.get_by_role("button", name="Group by").first.click()
    page.get_by_role("menuitemcheckbox", name="kdsweep.strategy").click()
    for strategy in ("finetune", "distill"):
        page.get_by_text(f"Group: {strategy}").first.wait_for()


def test_the_second_link_draws_charts_of_the_validation_metric(
    page: Page, links: list[str]
) -> None:
    page.goto(links[1])
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    assert "validation/accuracy" in page.inner_text("body")


def test_the_report_a_student_and_the_registered_model_open(
    page: Page, links: list[str], home: Home
) -> None:
    client = MlflowClient(
        tracking_uri=home.tracking_uri("sqlite"), registry_uri=home.tracking_uri("sqlite")
    )
    root = links[0].split("/#/")[0]
    experiment = client.get_experiment_by_name("tiny").experiment_id
    best = client.get_model_version_by_alias("tiny", "best")
    parent = next(one for one in runs_of(home) if one.data.tags["kdsweep.phase"] == "sweep")
    page.goto(f"{root}/#/experiments/{experiment}/runs/{parent.info.run_id}/artifacts")
    page.get_by_text("report.html").first.wait_for()
    page.goto(f"{root}/#/experiments/{experiment}/runs/{best.run_id}/artifacts/student")
    page.get_by_text("model.safetensors").first.wait_for()
    page.goto(f"{root}/#/models/tiny")
    page.get_by_text("Version 1").first.wait_for()
    page.get_by_text("best").first.wait_for()
