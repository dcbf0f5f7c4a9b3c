"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Light and dark: the system's choice until the reader makes one. Storage may be refused to a local file.
const root = document.documentElement;
const theme = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const recall = () => { try { return localStorage.getItem("kidney-ssl-theme"); } catch { return null; } };
const keep = (value) => { try { localStorage.setItem("kidney-ssl-theme", value); } catch { /* not kept */ } };
const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
const name = () => { theme.textContent = dark() ? "Light" : "Dark"; theme.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`); };
if (recall()) root.dataset.theme = recall();
theme.hidden = false;
theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; keep(root.dataset.theme); name(); });
system.addEventListener("change", name);
name();

// Tables: the head of a column sorts, numbers as numbers, what is missing always last.
for (const table of all("table.sortable")) {
  const heads = all("thead th", table);
  const body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.sort;
    const numeric = head.classList.contains("num");
    const compare = (a, b) => {
      const [one, two] = [value(a), value(b)];
      if (one === undefined || two === undefined) return (one === undefined) - (two === undefined);
      const order = numeric ? Number(one) - Number(two) : one.localeCompare(two, "en", { numeric: true });
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
  }));
}

// Groups of columns.
for (const button of all("[data-columns]")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    for (const cell of all("[data-group]", button.closest("figure"))) {
      if (cell.dataset.group === button.dataset.columns) cell.toggleAttribute("data-off", !shown);
    }
  });
}

// One button of a row is pressed at a time.
const choose = (buttons, chosen) => buttons.forEach((one) => one.setAttribute("aria-pressed", String(one === chosen)));

// Label budgets: one is shown at a time, the same one everywhere.
const budgets = all("[data-budget-choice]");
const showBudget = (percent) => {
  budgets.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.budgetChoice === percent)));
  all("[data-budget]").forEach((one) => { one.hidden = one.dataset.budget !== percent; });
};
budgets.forEach((one) => one.addEventListener("click", () => showBudget(one.dataset.budgetChoice)));
if (budgets.length) showBudget(budgets[0].dataset.budgetChoice);

// Gallery.
const cards = all(".card");
if (cards.length) {
  const selects = all("#filters select");
  const outcomes = all("button[data-outcome]");
  const filter = () => {
    const wanted = Object.fromEntries(selects.map((one) => [one.dataset.filter, one.value]));
    wanted.outcome = outcomes.find((one) => one.getAttribute("aria-pressed") === "true").dataset.outcome;
    for (const card of cards) card.hidden = Object.entries(wanted).some(([key, value]) => value && card.dataset[key] !== value);
    const count = cards.filter((card) => !card.hidden).length;
    document.getElementById("shown").textContent = `${count} of ${cards.length} pictures shown`;
  };
  selects.forEach((one) => one.addEventListener("change", filter));
  outcomes.forEach((one) => one.addEventListener("click", () => { choose(outcomes, one); filter(); }));
  filter();
}

// Departures.
const marks = all("button[data-mark]");
const rows = all("#departure-table tbody tr");
for (const button of marks) {
  button.addEventListener("click", () => {
    choose(marks, button);
    for (const row of rows) row.hidden = Boolean(button.dataset.mark) && !row.dataset.marks.split(" ").includes(button.dataset.mark);
    document.getElementById("marked").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} parameters shown`;
  });
}

// Pictures, larger.
const viewer = document.getElementById("viewer");
for (const button of all("button.zoom")) {
  button.addEventListener("click", () => {
    const picture = button.querySelector("img");
    Object.assign(viewer.querySelector("img"), { src: picture.src, alt: picture.alt });
    viewer.querySelector("p").textContent = picture.alt;
    viewer.showModal();
  });
}

// A link into a fold opens it and lands there.
const unfold = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (!target) return;
  for (const one of [target.querySelector(":scope.fold > details"), target.closest("details")]) if (one) one.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", unfold);
unfold();

// Tables and pictures that are wider than their place say so.
const measure = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const wide = target.scrollWidth > target.clientWidth + 1;
    const hint = target.nextElementSibling?.matches(".hint") ? target.nextElementSibling : null;
    if (wide && !hint) target.insertAdjacentHTML("afterend", '<p class="hint">← scrolls sideways →</p>');
    if (!wide && hint) hint.remove();
  }
});
all(".scroll, .crop, .strip").forEach((one) => measure.observe(one));

// Contents: folded on narrow screens, and the section in view is marked.
if (matchMedia("(max-width: 74.9rem)").matches) document.getElementById("contents").open = false;
const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    links.forEach((link) => link.removeAttribute("aria-current"));
    links.get(entry.target.id).setAttribute("aria-current", "true");
  }
}, { rootMargin: "-20% 0px -70% 0px" });
all("main > section").forEach((section) => seen.observe(section));
