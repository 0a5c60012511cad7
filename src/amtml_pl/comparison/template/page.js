"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const small = matchMedia("(max-width: 34rem)"); // a telephone: what stands beside a plot leaves no plot
const drawn = {}; // which variant each figure shows

const LINE = 19; // pixels of a legend's entry
const LONGEST = 16; // letters of a line beside a narrow figure

const plain = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function cut(line) {
  const letters = [...line];
  return letters.length <= LONGEST ? line : [...letters.slice(0, LONGEST / 2 - 1), "…", ...letters.slice(-LONGEST / 2)].join("");
}

function shortened(name) { // "avg temperature=2 coef.kd=0.5" on two lines: avg temp=2, kd=0.5
  const words = plain(name).split(" ").map((word) => word.replace(/^[^=]*=/, (key) => `${key.slice(0, -1).split(".").at(-1).slice(0, 4)}=`));
  const lines = [words.shift()];
  for (const word of words) {
    const longer = `${lines.at(-1)} ${word}`;
    if (longer.length <= LONGEST || lines.length === 2) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines.map(cut).map(escaped).join("<br>");
}

function narrowed({ traces, layout }) { // a variant with its legend below and short names
  const entries = layout.showlegend === false ? 0 : traces.filter((trace) => trace.showlegend !== false && trace.name).length;
  const legend = entries > 1 ? LINE * entries : 0;
  const yaxis = { ...layout.yaxis };
  if (yaxis.type === "category") {
    yaxis.tickvals = [...new Set(traces.flatMap((trace) => trace.y))];
    yaxis.ticktext = yaxis.tickvals.map(shortened);
    yaxis.tickfont = { size: 10 };
  }
  return {
    traces: traces.map((trace) => ({
      ...trace,
      ...(trace.colorbar && { colorbar: { ...trace.colorbar, orientation: "h", y: 1, yanchor: "bottom", thickness: 12 } }),
    })),
    layout: {
      ...layout, yaxis, height: (layout.height || 420) + legend, margin: { l: 45, r: 10, t: 15, b: 45 },
      legend: { orientation: "h", x: 0, xref: "container", y: 0, yref: "container", yanchor: "bottom" },
    },
  };
}

function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim();
  const faint = style.getPropertyValue("--faint").trim();
  const line = style.getPropertyValue("--line").trim();
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line };
  return {
    margin: { l: 60, r: 20, t: 40, b: 50 }, hovermode: "closest",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: faint, activecolor: ink },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, family: "system-ui, sans-serif", size: 12 },
    legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" },
    ...layout, height: undefined, xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  };
}

function draw(id, number) {
  const place = document.getElementById(id);
  const { traces, layout } = small.matches ? narrowed(figures[id][number]) : figures[id][number];
  const before = new Map((place.data || []).map((trace) => [trace.name, trace.visible]));
  const kept = traces.map((trace) => ({
    ...trace, visible: (before.has(trace.name) ? before.get(trace.name) : trace.visible) ?? true,
  }));
  drawn[id] = number;
  place.style.height = `${layout.height || 420}px`; // of the place, so that what follows keeps clear of it
  return Plotly.react(place, kept, themed(layout), {
    displaylogo: false, responsive: true, displayModeBar: small.matches ? false : undefined, toImageButtonOptions: { format: "svg", filename: id },
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]], // none that uploads
  });
}

function value(cell) {
  const number = parseFloat(cell.dataset.value ?? cell.textContent);
  return Number.isNaN(number) ? -Infinity : number;
}

function sort(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const numeric = heads[column].classList.contains("number");
  const was = heads[column].getAttribute("aria-sort");
  const descending = was === "none" ? numeric : was === "ascending"; // numbers: the largest first
  heads.forEach((head) => head.setAttribute("aria-sort", "none"));
  heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((one, other) => {
    const a = one.cells[column], b = other.cells[column];
    const order = numeric ? value(a) - value(b) || 0 : a.textContent.localeCompare(b.textContent);
    return descending ? -order : order;
  });
  body.append(...rows);
}

function filter(input) {
  const table = document.getElementById(input.dataset.table);
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...table.tBodies[0].rows];
  rows.forEach((row) => {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  });
  const shown = rows.filter((row) => !row.hidden).length;
  const count = document.getElementById(table.dataset.count);
  count.textContent = words.length ? `${shown} of ${rows.length} groups` : `${rows.length} groups`;
}

document.querySelectorAll("table.leaderboard").forEach((table) => {
  table.querySelectorAll("thead button").forEach((button, column) => {
    button.addEventListener("click", () => sort(table, column));
  });
});
document.querySelectorAll("input.filter").forEach((input) => {
  input.addEventListener("input", () => filter(input));
  filter(input);
});
document.querySelectorAll("select[data-figure]").forEach((select) => {
  select.value = "0"; // a browser that goes back keeps its own choice
  select.addEventListener("change", () => draw(select.dataset.figure, Number(select.value)));
});
[dark, small].forEach((query) => {
  query.addEventListener("change", () => Object.entries(drawn).forEach(([id, number]) => draw(id, number)));
});
Promise.all(Object.keys(figures).map((id) => draw(id, 0))).then(() => {
  document.documentElement.dataset.drawn = "true";
});
