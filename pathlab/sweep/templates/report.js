"use strict";
const FONT = {family: "system-ui, sans-serif", size: 13, color: "#1b1f24"};
const AXIS = {automargin: true, zeroline: false, gridcolor: "#e6e9ec", linecolor: "#8a8f98", showline: true, ticks: "outside", tickcolor: "#8a8f98"};

const axis = given => ({...AXIS, ...given, title: {font: FONT, standoff: 10, ...given.title}});

function draw(place, spec) {
  const {xaxis, yaxis, margin, ...rest} = spec.layout;
  const layout = {
    font: FONT, hovermode: "closest", paper_bgcolor: "#fff", plot_bgcolor: "#fff",
    hoverlabel: {align: "left", namelength: -1}, autosize: true,
    xaxis: axis(xaxis), yaxis: axis(yaxis),
    margin: {l: 56, r: 16, t: 16, b: 48, ...margin}, ...rest,
  };
  const config = {
    responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: {format: "svg", filename: place.getAttribute("aria-label")},
  };
  return Plotly.newPlot(place, spec.data, layout, config).then(() => {
    if (place.getAttribute("aria-label") === "parallel") chooseLines(place, spec.data);
  });
}

// Parallel coordinates: a click on a point keeps the lines through its value, a second one undoes it.
function chooseLines(place, data) {
  const heights = data.map(trace => trace.y);
  const chosen = new Map();  // axis -> value, both by index
  place.on("plotly_click", event => {
    const [, axis, value] = event.points[0].customdata;
    if (chosen.get(axis) === value) chosen.delete(axis); else chosen.set(axis, value);
    const kept = new Map();  // configuration -> on how many of the chosen values it lies
    data.forEach(trace => trace.customdata.forEach(point => {
      if (point && chosen.get(point[1]) === point[2]) kept.set(point[0], (kept.get(point[0]) || 0) + 1);
    }));
    const y = data.map((trace, t) => heights[t].map((height, i) => {
      const point = trace.customdata[i];
      return point && (kept.get(point[0]) || 0) === chosen.size ? height : null;
    }));
    Plotly.restyle(place, {y: y});
  });
}

// Sorting: numbers by their exact value, text as people sort it, empty cells last either way.
function makeSortable(table) {
  const body = table.tBodies[0];
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell.hasAttribute("data-value") ? cell.dataset.value : cell.textContent;
  };
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const filled = [...body.rows].map(row => valueOf(row, column)).filter(value => value !== "");
    const numeric = filled.length > 0 && filled.every(value => !isNaN(value));
    head.classList.toggle("number", numeric);
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].map(row => [valueOf(row, column), row]);
      rows.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = numeric ? a - b : a.localeCompare(b, undefined, {numeric: true});
        return up ? order : -order;
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}

function makeFilterable(explorer) {
  const input = explorer.querySelector("input"), select = explorer.querySelector("select");
  const rows = [...explorer.querySelector("tbody").rows], output = explorer.querySelector("output");
  const texts = new Map(rows.map(row => [row, [...row.cells].map(cell => cell.textContent).join(" ").toLowerCase()]));
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const state = !select || !select.value || row.dataset.state === select.value;
      row.hidden = !(state && words.every(word => texts.get(row).includes(word)));
      shown += !row.hidden;
    }
    output.textContent = shown + " of " + rows.length + " rows";
  };
  input.addEventListener("input", filter);
  if (select) select.addEventListener("change", filter);
  filter();
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll(".explorer").forEach(makeFilterable);
const specs = JSON.parse(document.getElementById("figures").textContent);
const places = [...document.querySelectorAll("[data-figure]")];
// One figure a task, so that the page responds while hundreds of lines are drawn.
window.drawn = places.reduce(
  (before, place) => before.then(() => new Promise(resolve => setTimeout(resolve)))
    .then(() => draw(place, specs[place.dataset.figure])),
  Promise.resolve());

// Paper is narrower than the screen, and a closed <details> would be lost.
function fit(printing) {
  document.body.classList.toggle("printing", printing);
  for (const place of places.filter(place => place.querySelector("svg"))) {
    Plotly.relayout(place, printing ? {width: place.clientWidth} : {autosize: true, width: null});
  }
}
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach(details => { details.open = true; });
  fit(true);
});
addEventListener("afterprint", () => fit(false));
