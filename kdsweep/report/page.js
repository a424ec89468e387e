"use strict";
// Draws the charts: those in sight at once, the others when the browser is idle, and all of them
// before the page is printed.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = figures.map((_, at) => document.getElementById(`plot-${at}`));
  const waiting = new Set(figures.keys());
  const touched = matchMedia("(pointer: coarse)").matches;
  const common = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: {
      family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
      size: 12,
    },
    hoverlabel: { bgcolor: "#22272e", bordercolor: "#8a94a0", font: { color: "#ffffff" } },
    // A finger scrolls the page.
    dragmode: touched ? false : "zoom",
    autosize: true,
  };
  const config = { displayModeBar: false, responsive: true, scrollZoom: false };

  function draw(at) {
    if (!waiting.delete(at)) return;
    const { data, layout } = figures[at];
    Plotly.newPlot(plots[at], data, { ...common, ...layout }, config);
    if (!waiting.size) document.documentElement.dataset.charts = "drawn";
  }

  for (const select of document.querySelectorAll("select[data-plot]")) {
    select.addEventListener("change", () => {
      const at = Number(select.dataset.plot);
      const { data, layout, choices } = figures[at];
      const { x, axis } = choices[select.selectedIndex];
      data.forEach((trace, i) => { trace.x = x[i]; });
      layout.xaxis = axis;
      waiting.add(at);
      draw(at);
    });
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(plots.indexOf(entry.target));
  }, { rootMargin: "300px" });
  for (const plot of plots) watcher.observe(plot);

  const whenIdle = window.requestIdleCallback ?? ((run) => setTimeout(run, 50));
  function drawNext() {
    const [next] = waiting;
    if (next === undefined) return;
    draw(next);
    whenIdle(drawNext);
  }
  if (waiting.size) addEventListener("load", () => whenIdle(drawNext));
  else document.documentElement.dataset.charts = "drawn";

  function print(begins) {
    for (const at of [...waiting]) if (begins) draw(at);
    if (document.documentElement.classList.contains("printing") === begins) return;
    document.documentElement.classList.toggle("printing", begins);
    for (const plot of plots) if (plot.data) Plotly.relayout(plot, { width: plot.clientWidth });
    if (begins) return;
    for (const plot of plots) {
      if (plot.data) Plotly.relayout(plot, { autosize: true, width: null });
    }
  }
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  matchMedia("print").addEventListener("change", (change) => print(change.matches));
})();

// Sorts and filters the table of all trials.
(() => {
  const table = document.getElementById("all-trials");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const words = rows.map((row) => row.textContent.toLowerCase());
  const heads = [...table.tHead.rows[0].cells];

  // Missing values stand last either way, then numbers, then words.
  function compare(a, b) {
    const [one, other] = [a, b].map((text) => parseFloat(text.replaceAll(",", "")));
    if (one !== other && !Number.isNaN(one) && !Number.isNaN(other)) return one - other;
    return a.localeCompare(b, undefined, { numeric: true });
  }

  function sort(column) {
    const up = heads[column].ariaSort !== "ascending";
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].ariaSort = up ? "ascending" : "descending";
    const keyed = rows.map((row) => [row.cells[column].textContent, row]);
    keyed.sort(([a], [b]) => {
      if ((a === "–") !== (b === "–")) return a === "–" ? 1 : -1;
      return up ? compare(a, b) : compare(b, a);
    });
    body.append(...keyed.map(([, row]) => row));
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });

  const filter = document.getElementById("filter");
  const told = document.getElementById("filtered");
  filter.parentElement.hidden = false;
  filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, at) => {
      row.hidden = !wanted.every((word) => words[at].includes(word));
      count += !row.hidden;
    });
    told.textContent = `${count} of ${rows.length} shown`;
  });
})();
