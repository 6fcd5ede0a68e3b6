"use strict";
const byId = (id) => document.getElementById(id);

// Theme: that of the system, unless chosen.
const theme = byId("theme");
// Storage throws where a browser forbids it to local files; the page then forgets the choice, no more.
const stored = (value) => {
  try { return value === undefined ? localStorage.getItem("theme") : localStorage.setItem("theme", value); } catch { return null; }
};
theme.value = stored() ?? "";
const applyTheme = () => { document.documentElement.dataset.theme = theme.value; };
theme.addEventListener("change", () => { stored(theme.value); applyTheme(); });
applyTheme();
for (const control of document.querySelectorAll(".controls, .theme, .needs-script")) control.hidden = false;

// Tables: the button in a header sorts ascending, then descending, then as printed.
// A unit is what moves together: a tbody (values and, below, their difference), or a row of the only tbody.
function sortKey(unit, column) {
  const cell = (unit.rows?.[0] ?? unit).cells[column];
  const text = (cell.dataset.sort ?? cell.textContent).trim();
  const number = parseFloat(text.replace(/^[†<]\s*/, "").replace("−", "-").replaceAll(",", ""));
  return text === "" || text === "–" ? null : cell.tagName === "TH" || Number.isNaN(number) ? text : number;
}

function compareKeys(a, b, order) {
  if (a === null || b === null) return (a === null) - (b === null);  // unmeasured last, in either order
  return order * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
}

function makeSortable(table) {
  const bodies = [...table.tBodies];
  const units = bodies.length > 1 ? bodies : [...bodies[0].rows];
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.append(...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[header.getAttribute("aria-sort")];
      for (const other of headers) other.setAttribute("aria-sort", "none");
      header.setAttribute("aria-sort", next);
      const order = next === "ascending" ? 1 : -1;
      const sorted = next === "none" ? units
        : [...units].sort((a, b) => compareKeys(sortKey(a, column), sortKey(b, column), order));
      (bodies.length > 1 ? table : bodies[0]).append(...sorted);
    });
  });
}
document.querySelectorAll("table.sortable").forEach(makeSortable);

// Raw attention: in multiples of uniform attention, or each map from its least to its greatest value.
byId("scale")?.addEventListener("change", (event) => { document.documentElement.dataset.attention = event.target.value; });

// Gallery: search and sort.
const cards = [...document.querySelectorAll(".card")];
const values = new Map(cards.map((card) => [card, JSON.parse(card.dataset.values)]));

function filterCards() {
  const text = byId("class").value.trim().toLowerCase(), where = byId("where").value;
  for (const card of cards) card.hidden = !card.dataset[where].toLowerCase().includes(text);
  byId("count").textContent = `${cards.filter((card) => !card.hidden).length} of ${cards.length} images`;
  keepOnePictureInTabOrder();
}

function sortCards() {
  const metric = byId("metric"), ascending = metric.selectedOptions[0].dataset.lower === byId("order").value;
  const value = (card) => values.get(card)[byId("map").value]?.[metric.value] ?? null;
  const sorted = metric.value === "" ? cards
    : [...cards].sort((a, b) => compareKeys(value(a), value(b), ascending ? 1 : -1));
  byId("cards").append(...sorted);
  keepOnePictureInTabOrder();
}

// Gallery: arrow keys walk over the pictures, Enter enlarges one, Escape closes it. One picture is in the tab order.
const zoom = byId("zoom");
let current = null;
const picturesOf = (card) => [...card.querySelectorAll(".picture")];
const shownCards = () => [...document.querySelectorAll(".card:not([hidden])")];

function keepOnePictureInTabOrder(picture = current) {
  const shown = shownCards();
  current = picture?.closest(".card").hidden === false ? picture : shown.length ? picturesOf(shown[0])[0] : null;
  for (const other of document.querySelectorAll("#cards .picture")) other.tabIndex = other === current ? 0 : -1;
}

function neighbour(picture, key) {
  const shown = shownCards(), all = shown.flatMap(picturesOf), card = picture.closest(".card");
  const above = { ArrowUp: -1, ArrowDown: 1 }[key], beside = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (above) return picturesOf(shown[shown.indexOf(card) + above] ?? card)[picturesOf(card).indexOf(picture)];
  if (beside) return all[all.indexOf(picture) + beside];
  return { Home: all[0], End: all.at(-1) }[key];
}

function enlarge(picture) {
  const card = picture.closest(".card"), view = picture.cloneNode(true);
  view.tabIndex = -1;
  const caption = picture.parentElement.querySelector("figcaption").cloneNode(true);
  byId("zoomed").className = card.className.replace("card", "zoomed");
  byId("zoomed").style.cssText = card.style.cssText;  // the photograph, its shape and its box
  byId("zoomed").replaceChildren(view, `${card.querySelector("h3").textContent} · ${card.querySelector(".name").textContent}`, caption);
  if (!zoom.open) zoom.showModal();
}

function walk(event) {
  const there = current && neighbour(current, event.key);
  if (!there || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  keepOnePictureInTabOrder(there);
  if (zoom.open) enlarge(there); else there.focus();
}

if (cards.length) {
  for (const id of ["class", "where"]) byId(id).addEventListener("input", filterCards);
  for (const id of ["metric", "map", "order"]) byId(id)?.addEventListener("change", sortCards);
  byId("cards").addEventListener("click", (event) => {
    const picture = event.target.closest(".picture");
    if (picture) { keepOnePictureInTabOrder(picture); enlarge(picture); }
  });
  byId("cards").addEventListener("keydown", (event) => { if (event.target.closest(".picture")) walk(event); });
  zoom.addEventListener("keydown", walk);
  zoom.addEventListener("click", () => zoom.close());
  zoom.addEventListener("close", () => current.focus());
  filterCards();
}

// Best and worst cases of a metric, a head and a method.
const extremes = JSON.parse(byId("extremes")?.textContent ?? "null");

function fillSelect(select, names) {
  const before = select.value;
  select.replaceChildren(...names.map((name) => new Option(name)));
  if (names.includes(before)) select.value = before;
}

function caseRow([anchor, value, p, o, predicted]) {
  const [name, className, isShown] = extremes.images[anchor], row = document.createElement("tr");
  const first = document.createElement("th");
  first.scope = "row";
  first.append(isShown ? Object.assign(document.createElement("a"), { href: `#${anchor}`, textContent: name }) : name);
  const predictedName = extremes.classes[predicted], mark = predictedName === className ? "" : "✗ ";
  const texts = [(100 * value).toFixed(2), className, mark + predictedName, p.toFixed(3), o.toFixed(3)];
  row.append(first, ...texts.map((text) => {
    const cell = document.createElement("td");
    cell.textContent = cell.title = text;
    return cell;
  }));
  return row;
}

function showCases() {
  fillSelect(byId("case-head"), Object.keys(extremes.cases[byId("case-method").value]));
  const metric = byId("case-metric").value;
  const entry = extremes.cases[byId("case-method").value][byId("case-head").value][metric];
  for (const end of ["best", "worst"]) {
    byId(`${end}-rows`).replaceChildren(...entry[end].map((fields) => caseRow(fields)));
    byId(`${end}-value`).textContent = metric;
    byId(`${end}-ties`).textContent = entry.ties[end] > 1 ? `${entry.ties[end].toLocaleString("en")} images share the first value.` : "";
  }
}

if (extremes) {
  fillSelect(byId("case-method"), Object.keys(extremes.cases));
  for (const id of ["case-metric", "case-head", "case-method"]) byId(id).addEventListener("change", showCases);
  document.addEventListener("click", (event) => {  // a case may be filtered away in the gallery
    const anchor = event.target.closest?.("a[href^='#image-']")?.hash.slice(1);
    if (anchor && byId(anchor).hidden) { byId("class").value = ""; filterCards(); }
  });
  showCases();
}
