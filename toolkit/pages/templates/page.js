"use strict";
// A reading of every line under the pointer; the numbers are in the tables below the charts too.
for (const plot of document.querySelectorAll(".plot[data-chart]")) {
  const chart = JSON.parse(plot.dataset.chart);
  const [low, high] = chart.ends;
  const cursor = document.createElement("div"), tip = document.createElement("div");
  cursor.className = "cursor";
  tip.className = "tip";
  const near = (points, x) => points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const x = near(chart.s.flatMap((series) => series.p), low + share * (high - low))[0];
    const left = (100 * (x - low)) / (high - low || 1);
    const lines = chart.s.map((series) => [series.n, near(series.p, x)])
      .map(([name, point]) => name + "  " + point[1] + (point[0] === x ? "" : "  (at " + point[0] + ")"));
    tip.textContent = [chart.x + " " + x, ...lines].join("\n");
    cursor.style.left = left + "%";
    tip.style.left = "calc(" + left + "% + 8px)";
    tip.classList.toggle("flip-side", left > 50);
    plot.append(cursor, tip);
  });
  plot.addEventListener("pointerleave", () => { cursor.remove(); tip.remove(); });
}
