"use strict";
// The tools of every page: sort a table, save a table or a chart, show a chart's values at the pointer, and scroll wide
// tables and charts by keyboard. Without this script the page shows the same content.

// An element with its attributes and children; text is text, never markup.
const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "click") made.addEventListener("click", value);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
};

const save = (text, kind, name) => {
  const url = URL.createObjectURL(new Blob([text], { type: kind }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
};

// The name of a saved file: the page, the section, and the number within its kind.
const fileName = (part, ending) => {
  const section = part.closest("section");
  const all = [...document.querySelectorAll(`section[id="${section ? section.id : ""}"] ${part.localName === "svg" ? "svg.chart" : "table"}`)];
  const number = all.length > 1 && all.includes(part) ? `_${all.indexOf(part) + 1}` : "";
  return `${document.title}_${section ? section.id : "page"}${number}`.replace(/[^\p{L}\p{N}._-]+/gu, "_") + ending;
};

// --- tables ---

// The number at the beginning of a cell: "88.1% [80.9, 95.3]", "1,574", "−0.4".
const numberIn = (text) => {
  const match = /^[+\u2212±-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?/i.exec(text);
  return match ? Number(match[0].replace(/,/g, "").replace("\u2212", "-").replace("±", "")) : NaN;
};

const compareCells = (a, b) => {
  const [x, y] = [numberIn(a), numberIn(b)];
  if (!Number.isNaN(x) && !Number.isNaN(y) && x !== y) return x - y;
  return a.localeCompare(b, "en", { numeric: true });
};

const sortBy = (table, column) => {
  const heads = [...table.tHead.rows[0].cells];
  const falling = heads[column].getAttribute("aria-sort") === "ascending";
  const isEmpty = (text) => text === "" || text === "\u2013" || text === "-";
  const rows = [...table.tBodies[0].rows].map((row) => [row.cells[column] ? row.cells[column].textContent.trim() : "", row]);
  rows.sort(([a], [b]) => isEmpty(a) - isEmpty(b) || (falling ? -compareCells(a, b) : compareCells(a, b)));
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[column].setAttribute("aria-sort", falling ? "descending" : "ascending");
};

// A cell of a CSV file. A text that a spreadsheet would read as a formula is quoted.
const csvCell = (text) => {
  const inert = /^[=@+\-\t\r]/.test(text) && Number.isNaN(Number(text.replace(/[,%]/g, ""))) ? `'${text}` : text;
  return /[",\r\n]/.test(inert) ? `"${inert.replace(/"/g, '""')}"` : inert;
};

// The numbers of a cell without other text: "64.2%", "1,574", "−0.4", "[61.7, 66.6]", "88.1% [80.9, 95.3]",
// "+0.4 to +9.1", "57.8% of 128". null for a text, an empty list for an empty cell.
const NUMBER = /[+\u2212±-]?(?:0|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d*)(?:\.\d+)?(?:e[+-]?\d+)?/gi;
const numbersOf = (text) => {
  if (text === "" || text === "\u2013" || text === "-") return [];
  const around = text.replace(NUMBER, "#");
  return /^(#%?|\[#, #\]|#%? \[#, #\]|#%? (of|to) #)$/.test(around) ? text.match(NUMBER).map(numberIn) : null;
};

// The columns of a CSV file for a column of a table, head first. Each number gets a column, in a format for programs;
// the head names percentages.
const csvColumns = ([head, ...cells]) => {
  const numbers = cells.map(numbersOf);
  const first = cells.findIndex((cell, row) => numbers[row] && numbers[row].length);
  if (first < 0 || numbers.includes(null)) return [[head, ...cells].map(csvCell)];
  const widest = cells[numbers.findIndex((row) => row.length === Math.max(...numbers.map(({ length }) => length)))];
  const named = cells.some((cell) => cell.includes("%")) ? `${head}, %` : head;
  const ends = [`${head}, low`, `${head}, high`];
  const heads = widest.startsWith("[") || widest.includes(" to ") ? ends
    : widest.includes("[") ? [named, ...ends] : widest.includes(" of ") ? [named, `${head}, of`] : [named];
  return heads.map((name, k) => [csvCell(name), ...numbers.map((row) => (k < row.length ? String(row[k]) : ""))]);
};

const csv = (table) => {
  const rows = [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
  const columns = rows[0].flatMap((_, column) => csvColumns(rows.map((row) => row[column] || "")));
  return columns[0].map((_, row) => columns.map((column) => column[row]).join(",")).join("\r\n") + "\r\n";
};

for (const table of document.querySelectorAll("table")) {
  if (table.tBodies[0].rows.length > 1) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      head.replaceChildren(element("button", { type: "button", class: "sort", click: () => sortBy(table, column) }, head.textContent));
    });
  }
  const button = element("button", { type: "button", click: () => save(csv(table), "text/csv", fileName(table, ".csv")) }, "CSV");
  button.setAttribute("aria-label", "this table as CSV");
  table.closest(".scroll").after(element("div", { class: "tools" }, button));
}

// --- charts ---

// The chart as a separate file with its style and a background.
const standalone = (chart) => {
  const copy = chart.cloneNode(true);
  const make = (name) => document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const link of copy.querySelectorAll("a")) link.replaceWith(...link.childNodes);
  const [style, ground] = [make("style"), make("rect")];
  style.textContent = document.getElementById("chart-style").textContent;
  for (const [key, value] of Object.entries({ class: "ground", width: "100%", height: "100%" })) ground.setAttribute(key, value);
  copy.prepend(style, ground);
  return new XMLSerializer().serializeToString(copy);
};

for (const figure of document.querySelectorAll("figure")) {
  const charts = [...figure.querySelectorAll("svg.chart")];
  if (!charts.length) continue;
  // The page has a chart for wide and a chart for narrow screens: save the visible chart.
  const seen = () => charts.filter((chart) => chart.getClientRects().length);
  const take = () => seen().forEach((chart) => save(standalone(chart), "image/svg+xml", fileName(chart, ".svg")));
  const button = element("button", { type: "button", click: take }, "SVG");
  button.setAttribute("aria-label", "this chart as SVG");
  figure.append(element("div", { class: "tools" }, button));
}

// The browser shows a chart's hints late, and never for touch or keyboard.
const tip = element("div", { class: "tip", hidden: true });
tip.setAttribute("aria-hidden", "true"); // a screen reader reads the chart's label
document.body.append(tip);
const hintOf = (target) => {
  for (let at = target; at instanceof SVGElement; at = at.parentNode) {
    const hint = [...at.children].find((child) => child.localName === "title");
    if (hint) return hint.textContent;
  }
  return "";
};
const showTip = (target, x, y) => {
  tip.textContent = hintOf(target);
  tip.hidden = !tip.textContent;
  if (tip.hidden) return;
  const [width, height] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = `${Math.max(4, Math.min(x + 12, document.documentElement.clientWidth - width - 4))}px`;
  tip.style.top = `${y > height + 20 ? y - height - 12 : y + 16}px`;
};
document.addEventListener("pointermove", (event) => showTip(event.target, event.clientX, event.clientY));
document.addEventListener("pointerdown", (event) => showTip(event.target, event.clientX, event.clientY));
document.addEventListener("focusin", (event) => {
  const box = event.target.getBoundingClientRect();
  showTip(event.target, box.left + box.width / 2, box.top);
});
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

// --- content wider than the screen ---

const reachable = () => {
  for (const box of document.querySelectorAll(".scroll")) {
    const section = box.closest("section");
    const heading = section ? section.querySelector("h2") : null;
    const attributes = { tabindex: "0", role: "region", "aria-label": `${heading ? heading.textContent : "table"}, scrolls sideways` };
    for (const [key, value] of Object.entries(attributes)) {
      if (box.scrollWidth > box.clientWidth + 1) box.setAttribute(key, value);
      else box.removeAttribute(key);
    }
  }
};
window.addEventListener("resize", reachable);
document.addEventListener("toggle", reachable, true);
reachable();
