"""The page draws everything in a real browser, quickly, from nothing but itself; whatever the sweep was like, and whatever things are called."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects
import pytest
from made_up_sweeps import NAMES, TEACHER, full_sweep, report_of, schedule, trial

from kdsweep.compare.pareto import pareto as pareto_of
from kdsweep.compare.records import COLORS, TrialRecord
from kdsweep.report.charts import draw_charts, pareto
from kdsweep.report.figures import looks_of
from kdsweep.report.page import write_page
from kdsweep.report.schedule_words import in_words, sample

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SECONDS_TO_LOAD = (
    4.0  # it takes 1.3 on two shared cores, and must take less than 2; tests run beside others
)
EVERY_CHART = [
    "strategies",
    "curves",
    "best",
    "alpha",
    "temperature",
    "learning-rate",
    "importance",
    "settings",
    "cost",
]
HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    '<img src=http://example.invalid/x onerror="window.hacked = 2">\'"&amp;',
    '<a href="javascript:window.hacked=3">%{y} $x^2$ {{ 7 * 7 }}</a>',
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


class Opened:
    """A page in the browser, and what went wrong: `problems` and `requests` that would have left the machine."""

    def __init__(self, browser: Any, file: Path, **context: Any) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.context = browser.new_context(
            offline=True, **({"viewport": {"width": 1280, "height": 900}} | context)
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(180_000)  # two cores may be busy with other tests
        self.page.on(
            "console",
            lambda message: self.problems.append(message.text) if message.type == "error" else None,
        )
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.route(re.compile("^(?!file:)"), self._refuse)
        self.page.goto(file.as_uri())

    def _refuse(self, route: Any) -> None:
        self.requests.append(route.request.url)
        route.abort()

    def drawn(self) -> Opened:
        self.page.wait_for_selector("html[data-charts=drawn]", state="attached")
        return self

    def assert_quiet(self) -> None:
        assert self.problems == [] and self.requests == []

    def width(self) -> int:
        return int(self.page.evaluate("document.documentElement.scrollWidth"))


@pytest.fixture(scope="module")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 trials."""
    file = tmp_path_factory.mktemp("the sweep's «page»") / "report.html"
    write_page(*full_sweep(), file)
    return file


@pytest.fixture(scope="module")
def desktop(browser: Any, full_page: Path) -> Iterator[Opened]:
    """The page of 500 trials, opened once: whoever changes it changes it back."""
    one = Opened(browser, full_page)
    yield one
    one.context.close()


# --- in the browser --------------------------------------------------------------------------------------------------


def test_500_trials_load_in_time_and_every_chart_draws(desktop: Opened) -> None:
    one, seconds = desktop, list[float]()
    while (
        len(seconds) < 5 and min(seconds, default=SECONDS_TO_LOAD) >= SECONDS_TO_LOAD
    ):  # beside other tests one try may have to wait for a core
        if seconds:
            one.page.reload()
        seconds.append(
            one.page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
        )
    print(f"loaded in {seconds} s")
    assert min(seconds) < SECONDS_TO_LOAD
    one.drawn()
    assert one.page.evaluate("[...document.querySelectorAll('figure')].map(one => one.id)") == [
        f"chart-{name}" for name in EVERY_CHART
    ]
    marks = one.page.evaluate(
        """[...document.querySelectorAll(".plot")].map(plot => {
            const lines = [...plot.querySelectorAll("canvas")].some(canvas => {
                const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
                copy.drawImage(canvas, 0, 0);
                return copy.getImageData(0, 0, canvas.width, canvas.height).data.some(value => value);
            });
            return [plot.querySelectorAll(".main-svg").length, lines || plot.querySelectorAll(".points path, .js-line, .bars path").length];
        })"""
    )
    assert len(marks) >= 16
    assert all(figures and drawn for figures, drawn in marks)
    one.assert_quiet()


def test_it_is_one_file_that_may_load_nothing_and_run_no_other_script(
    desktop: Opened, full_page: Path
) -> None:
    assert [file.name for file in full_page.parent.iterdir()] == ["report.html"]
    one = desktop
    outcome = one.page.evaluate(
        """(async () => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
            const image = new Image(); image.src = "http://127.0.0.1:9/x.png";
            const fetched = await fetch("http://127.0.0.1:9/").then(() => "fetched", () => "refused");
            return [window.hacked, fetched];
        })()"""
    )
    assert outcome == [None, "refused"]
    assert one.requests == []
    one.problems.clear()  # the browser says what it refused


def test_on_a_phone_the_page_never_scrolls_sideways_and_tables_do(
    browser: Any, full_page: Path
) -> None:
    one = Opened(
        browser, full_page, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True
    ).drawn()
    one.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert one.width() == 360
    wide = one.page.evaluate(
        "[...document.querySelectorAll('.wide')].filter(box => box.scrollWidth > box.clientWidth).length"
    )
    assert wide > 3
    outside = one.page.evaluate(
        "[...document.querySelectorAll('.fit .main-svg')].filter(svg => svg.getBoundingClientRect().right > 360).length"
    )
    assert outside == 0
    one.assert_quiet()
    one.context.close()


COLORS_NOW = """[getComputedStyle(document.body).backgroundColor,
    ...[".xtick text", ".infolayer .annotation text", ".legendtext"].map(place => getComputedStyle(document.querySelector(".plot " + place)).fill)]"""


def test_dark_mode_changes_page_and_charts_while_it_is_open_and_print_is_light(
    desktop: Opened,
) -> None:
    one = desktop.drawn()
    light = one.page.evaluate(COLORS_NOW)
    one.page.emulate_media(color_scheme="dark")
    dark = one.page.evaluate(COLORS_NOW)
    assert light[0] == "rgb(255, 255, 255)" and len(set(light[1:])) == 1
    assert all(now != before for now, before in zip(dark, light, strict=True))
    one.page.emulate_media(media="print", color_scheme="dark")
    one.page.wait_for_function("document.documentElement.classList.contains('printing')")
    printed = one.page.evaluate(COLORS_NOW)
    assert printed[0] == "rgb(255, 255, 255)" and set(printed[1:]) == {"rgb(0, 0, 0)"}
    assert (
        max(
            one.page.evaluate(
                "[...document.querySelectorAll('.main-svg')].map(svg => svg.getBoundingClientRect().width)"
            )
        )
        <= 700
    )
    one.page.emulate_media(media="screen", color_scheme="light")
    one.page.wait_for_function("!document.documentElement.classList.contains('printing')")
    assert one.page.evaluate(COLORS_NOW) == light
    assert (
        max(
            one.page.evaluate(
                "[...document.querySelectorAll('.main-svg')].map(svg => svg.getBoundingClientRect().width)"
            )
        )
        > 1000
    )
    one.assert_quiet()


def test_the_keyboard_reaches_the_content_the_tables_and_the_numbers(desktop: Opened) -> None:
    page = desktop.drawn().page
    page.evaluate("document.activeElement.blur(), getSelection().removeAllRanges(), scrollTo(0, 0)")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.matches('main *') && (document.activeElement.ariaLabel ?? document.activeElement.textContent)"
            )
        )
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert reached[0] == "Strategies: results and costs"
    assert "Numbers of Strategies on the test split" in reached
    while not page.evaluate("document.activeElement.matches('summary')"):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open")


def test_names_that_are_markup_are_shown_and_do_nothing(browser: Any, tmp_path: Path) -> None:
    records = [
        trial(name, number, 0.8 + 0.01 * number, kind_of(at))
        for at, name in enumerate(HOSTILE)
        for number in range(6)
    ]
    report = report_of(
        records, HOSTILE, teacher=TEACHER, sweep=HOSTILE[0], verdict=" ".join(HOSTILE)
    )
    report["importance"] = {name: dict.fromkeys(HOSTILE, 1 / 3) for name in HOSTILE}
    report["reproduce"] = {
        "command": HOSTILE[1],
        "versions": {HOSTILE[0]: HOSTILE[1]},
        "hashes": {HOSTILE[2]: HOSTILE[0]},
    }
    report["questions"] = [
        {"question": HOSTILE[0], "answer": HOSTILE[1], "n": 1, "effect": None, "ci95": None}
    ]
    file = tmp_path / "report.html"
    write_page(report, records, file)
    one = Opened(browser, file, viewport={"width": 360, "height": 740}).drawn()
    one.page.mouse.click(180, 400)
    assert one.page.evaluate("window.hacked") is None
    assert one.page.evaluate("document.querySelectorAll('script').length") == 3
    assert (
        one.page.evaluate("document.querySelectorAll('img, a[href^=javascript], svg a').length")
        == 0
    )
    assert one.page.evaluate("document.querySelector('h1').textContent") == HOSTILE[0]
    assert one.page.evaluate(
        "[...document.querySelectorAll('#chart-curves h4')].map(one => one.textContent)"
    ) == list(HOSTILE)
    drawn = one.page.evaluate(
        "[...document.querySelectorAll('#chart-best .legendtext')].map(one => one.textContent)"
    )
    assert drawn == list(HOSTILE)
    assert one.width() == 360
    one.assert_quiet()
    one.context.close()


def test_odd_sweeps_draw_too(desktop: Opened) -> None:
    figures = [
        [f"{name}, {chart.name}", panel.data, panel.layout]
        for name, make in ODD.items()
        for chart in draw_charts(*make())
        for panel in chart.panels[:2]
    ]
    assert {name.split(", ")[0] for name, _, _ in figures} == {
        name.split(", ")[0] for name in ODD
    } - {"nothing finished"}
    for _, data, layout in figures:
        plotly.graph_objects.Figure(data, layout)  # knows every key and value
    wrong = desktop.drawn().page.evaluate(
        """async figures => {
            const place = document.createElement("div"), wrong = [];
            document.body.append(place);
            for (const [name, data, layout] of figures) {
                await Plotly.newPlot(place, data, layout);
                if (!place.querySelector(".points path, .js-line, .bars path, canvas")) wrong.push(name);
            }
            place.remove();
            return wrong;
        }""",
        [
            one
            for one in figures
            if not one[0].endswith(", settings") or one[0] == "all alike, settings"
        ],  # a second each
    )
    assert wrong == []
    desktop.assert_quiet()


# --- sweeps of all kinds ---------------------------------------------------------------------------------------------


def kind_of(at: int) -> dict[str, Any]:
    alphas: list[Any] = [1.0, 0.5, {"shape": "per_epoch", "values": [0.7, 0.5], "after": 0.2}]
    return {
        "alpha": schedule(alphas[at]),
        "temperature": schedule(4.0),
        "learning_rate": schedule(2e-5),
    }


def made(*names: str, trials: int = 6, **more: Any) -> tuple[dict[str, Any], list[TrialRecord]]:
    metric, value = (
        more.get("metric", "accuracy"),
        more.pop("value", lambda number: 0.8 + 0.01 * number),
    )
    records = [
        trial(name, number, value(number), metric=metric)
        for name in names
        for number in range(trials)
    ]
    return report_of(records, names, **more), records


def one_has_failed() -> tuple[dict[str, Any], list[TrialRecord]]:
    records = [trial("finetune", number, 0.8) for number in range(3)] + [
        trial("distill", number, None, state="failed") for number in range(3)
    ]
    return report_of(records, ("finetune", "distill"), teacher=TEACHER), records


def only_pruned_and_one() -> tuple[dict[str, Any], list[TrialRecord]]:
    records = [trial("combined", number, 0.7, state="pruned") for number in range(4)] + [
        trial("combined", 4, 0.8),
        trial("combined", 5, 0.6, state="running"),
    ]
    return report_of(records, ("combined",), teacher=TEACHER, state="stopped"), records


def nothing_finished() -> tuple[dict[str, Any], list[TrialRecord]]:
    records = [trial("combined", number, None, state="failed") for number in range(2)]
    return report_of(records, ("combined",), seeds=0), records


def confirm_has_failed() -> tuple[dict[str, Any], list[TrialRecord]]:
    report, records = made("finetune", "distill", seeds=0, teacher=TEACHER)
    report["strategies"]["distill"]["confirm"] = {
        "seeds": 0,
        "asked": 5,
        "failed": 5,
        "test": [],
        "mean": None,
        "ci95": None,
        "retention": None,
        "validation": [],
    }
    return report, records


def other_epochs() -> tuple[dict[str, Any], list[TrialRecord]]:
    """Per-epoch schedules that end before, and long after, the training; a constant temperature everywhere."""
    lists = [
        {"shape": "per_epoch", "values": [0.9 - 0.1 * i for i in range(length)]}
        for length in (1, 3, 8)
    ]
    records = [
        trial(
            "combined",
            number,
            0.8 + 0.001 * number,
            {
                "alpha": schedule(lists[number % 3]),
                "temperature": schedule(2.0),
                "learning_rate": schedule(1e-4),
            },
        )
        for number in range(9)
    ]
    return report_of(records, ("combined",)), records


ODD: dict[str, Callable[[], tuple[dict[str, Any], list[TrialRecord]]]] = {
    "one strategy": lambda: made("distill", teacher=TEACHER),
    "two trials": lambda: made("distill", trials=2, teacher=TEACHER),
    "one trial": lambda: made("distill", trials=1, seeds=0),
    "all alike": lambda: made("distill", "combined", value=lambda number: 0.75, teacher=TEACHER),
    "no confirm": lambda: made(*NAMES, seeds=0, teacher=TEACHER | {"test": None}),
    "one seed": lambda: made(*NAMES[:2], seeds=1, teacher=TEACHER),
    "no teacher": lambda: made("finetune"),
    "a teacher that is worse": lambda: made(
        *NAMES[:2], teacher=TEACHER | {"validation": 0.5, "test": 0.48}
    ),
    "a metric below zero": lambda: made(
        *NAMES[:2],
        metric="matthews",
        value=lambda number: -0.2 + 0.05 * number,
        teacher=TEACHER | {"validation": 0.0, "test": -0.1},
    ),
    "ten strategies": lambda: made(*(f"s{i}" for i in range(10)), trials=2, teacher=TEACHER),
    "one has failed": one_has_failed,
    "only pruned, and one": only_pruned_and_one,
    "confirm has failed": confirm_has_failed,
    "other epochs": other_epochs,
    "nothing finished": nothing_finished,
}


class Reader(HTMLParser):
    """Headings in order, the text, and ids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.within = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.within = tag
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_data(self, data: str) -> None:
        if self.within not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize("name", ODD)
def test_every_page_has_its_parts_in_order(name: str, tmp_path: Path) -> None:
    report, records = ODD[name]()
    write_page(report, records, tmp_path / "report.html")
    read = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert read.headings[0] == 1 and read.headings.count(1) == 1
    assert all(
        later <= earlier + 1
        for earlier, later in zip(read.headings, read.headings[1:], strict=False)
    )
    assert len(set(read.ids)) == len(read.ids)
    parts = [
        report["verdict"],
        "Strategies",
        *report["strategies"],
        report["questions"][1]["answer"][1:],
        "Charts",
        report["reproduce"]["command"],
    ]
    places = [read.text.index(" ".join(part.split())) for part in parts[:1] + parts[-3:]]
    assert places == sorted(places)
    assert all(part in read.text for part in parts)
    assert ("was stopped before it was done" in read.text) == (report["state"] == "stopped")
    assert "None" not in read.text and "nan" not in read.text


def test_a_strategy_without_a_finished_trial_is_said_to_have_none(tmp_path: Path) -> None:
    report, records = one_has_failed()
    write_page(report, records, tmp_path / "report.html")
    assert (
        "no trial finished" in Reader((tmp_path / "report.html").read_text(encoding="utf-8")).text
    )


def test_with_several_objectives_the_front_is_a_table_with_the_teacher_first_and_without_them_there_is_none(
    tmp_path: Path,
) -> None:
    report, records = full_sweep(6)
    write_page(report, records, tmp_path / "report.html")
    assert "pareto" not in Reader((tmp_path / "report.html").read_text(encoding="utf-8")).ids
    front = pareto_of("accuracy", {"latency": "latency_ms", "parameters": "parameters"}, records)
    assert len(front) > 1
    write_page(report | {"pareto": front}, records, tmp_path / "report.html")
    text = Reader((tmp_path / "report.html").read_text(encoding="utf-8")).text
    table = text[
        text.index("Student Validation accuracy Latency Parameters") : text.index(
            "Of all complete trials of the search"
        )
    ]
    assert table.split()[5:13] == [
        "✶",
        "teacher",
        "0.9300",
        "31.2",
        "ms",
        "109.5",
        "M",
        f"{front[0]['strategy']}-{front[0]['trial']}",
    ]
    assert table.count(" ms ") == len(front) + 1
    assert all(
        f"{one['strategy']}-{one['trial']} {one['validation']:.4f} {one['latency']:.3g} ms" in table
        for one in front
    )


# --- figures ---------------------------------------------------------------------------------------------------------


def test_the_number_of_traces_does_not_grow_with_the_trials() -> None:
    def traces(trials: int) -> int:
        return sum(
            len(panel.data) for chart in draw_charts(*full_sweep(trials)) for panel in chart.panels
        )

    assert traces(125) == traces(60) < 80


def test_every_chart_has_its_numbers_and_the_teacher_where_it_makes_sense() -> None:
    for chart in draw_charts(*full_sweep(12)):
        assert (
            chart.caption and chart.rows and all(len(row) == len(chart.head) for row in chart.rows)
        )
        shapes = [shape for panel in chart.panels for shape in panel.layout.get("shapes", [])]
        assert bool(shapes) == (chart.name not in ("importance", "settings"))


def test_strategies_are_told_apart_by_color_as_in_mlflow_and_without_it() -> None:
    looks = list(looks_of(f"s{i}" for i in range(16)).values())
    assert [look.color for look in looks[:7]] == list(COLORS[:7])
    assert len({(look.symbol, look.dash) for look in looks[:8]}) == 8
    assert len({(look.color, look.symbol) for look in looks}) == 16


def test_schedules_are_drawn_as_trials_followed_them() -> None:
    def drawn(value: Any, epochs: int = 2) -> list[tuple[float, float]]:
        progress, values = sample(
            {"alpha": schedule(value), "training": {"epochs": epochs}}, "alpha"
        )
        return [(round(at, 3), round(one, 3)) for at, one in zip(progress, values, strict=True)]

    assert drawn(0.5) == [(0, 0.5), (1, 0.5)]
    assert drawn({"shape": "linear", "start": 0.2, "end": 0.8}) == [(0, 0.2), (1, 0.8)]
    assert drawn({"shape": "step", "values": [0, 1], "at": 0.4}) == [
        (0, 0),
        (0.4, 0),
        (0.4, 1),
        (1, 1),
    ]
    assert drawn({"shape": "per_epoch", "values": [0.7], "after": 0.2}) == [
        (0, 0.7),
        (0.5, 0.7),
        (0.5, 0.2),
        (1, 0.2),
    ]
    assert drawn({"shape": "per_epoch", "values": [0.7, 0.5, 0.3]}) == [
        (0, 0.7),
        (0.5, 0.7),
        (0.5, 0.5),
        (1, 0.5),
    ]
    assert len(drawn({"shape": "cosine", "start": 1, "end": 0})) == 25
    assert (
        in_words({"shape": "per_epoch", "values": [0.7, 0.5], "after": 0.2})
        == "0.7, 0.5 by epoch, then 0.2"
    )
    assert in_words({"shape": "step", "values": [0, 1], "at": 0.4}) == "0, 1 from 40%"


def test_nobody_on_the_pareto_front_is_beaten() -> None:
    points = [
        (2.0, 0.8, "a"),
        (1.0, 0.7, "b"),
        (3.0, 0.75, "c"),
        (1.0, 0.6, "d"),
        (4.0, 0.8, "e"),
        (5.0, 0.9, "f"),
    ]
    assert pareto(points) == [(1.0, 0.7, "b"), (2.0, 0.8, "a"), (5.0, 0.9, "f")]
