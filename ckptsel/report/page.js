"use strict";

// Charts. They draw with the text colour of the page (currentColor), in light and in dark.
const specifications = JSON.parse(document.getElementById("specifications").textContent);
const actions = { export: true, source: false, compiled: false, editor: false };
function drawCharts() {
  // A chart takes the width of its place, and what is hidden has none: it is drawn when it is shown.
  const waiting = [...document.querySelectorAll(".chart:not([data-begun])")].filter(
    (element) => !element.closest("[hidden]")
  );
  const drawn = waiting.map((element) => {
    element.dataset.begun = "yes";
    return vegaEmbed(element, specifications[element.dataset.chart], { renderer: "svg", actions });
  });
  Promise.all(drawn).then(() => {
    document.querySelectorAll(".chart summary").forEach((menu) => {
      menu.setAttribute("aria-label", "Save this chart");
    });
    document.body.setAttribute("data-drawn", "yes");
  });
}
document.addEventListener("shown", drawCharts);
drawCharts();

// Sorting: by number where a cell starts with one (89.8 [88.5, 91.1], *1, 3=), else by text.
function sortKey(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = text.match(/^\*?(-?\d+(\.\d+)?)/);
  return number ? Number(number[1]) : text;
}

function compare(a, b) {
  const empty = (a === "") - (b === "");
  if (empty) return empty;
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
  return typeof a === "number" ? -1 : 1;
}

function makeSortable(table) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const body = table.querySelector("tbody");
      const falling = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [sortKey(a, column), sortKey(b, column)];
        // What is missing stays last in both orders.
        return falling && x !== "" && y !== "" ? compare(y, x) : compare(x, y);
      });
      body.append(...rows);
    });
  });
}
document.querySelectorAll("main table").forEach(makeSortable);

// Copying. Pages opened from disk may lack the clipboard, but can always select.
document.querySelectorAll("[data-copy]").forEach((button) => {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    const status = button.nextElementSibling;
    try {
      await navigator.clipboard.writeText(source.textContent);
      status.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(source);
      status.textContent = "selected: copy with the keyboard";
    }
  });
});
