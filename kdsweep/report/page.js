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
