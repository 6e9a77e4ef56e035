// Sorting: a press on the name of a column puts the best first, another the worst, a third the board's own order.
"use strict";
(() => {
  const body = document.querySelector("tbody");
  const rows = [...body.rows];
  const heads = [...document.querySelectorAll("th[data-column]")];

  const isText = (head) => head.classList.contains("text");

  const compare = (column, text, sign) => (one, other) => {
    const [a, b] = [one.cells[column], other.cells[column]];
    if (text) return sign * a.textContent.localeCompare(b.textContent, "en");
    const [x, y] = [a.dataset.value, b.dataset.value];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return sign * (x - y);
  };

  const sort = (head) => {
    const column = Number(head.dataset.column);
    const first = isText(head) ? "ascending" : head.dataset.first ?? "descending";
    const orders = first === "ascending" ? ["ascending", "descending"] : ["descending", "ascending"];
    const order = orders[orders.indexOf(head.getAttribute("aria-sort")) + 1];
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    if (order) head.setAttribute("aria-sort", order);
    body.classList.toggle("sorted", Boolean(order));
    body.append(...(order ? [...rows].sort(compare(column, isText(head), order === "ascending" ? 1 : -1)) : rows));
  };

  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head));
    head.append(button);
  }
  document.getElementById("hint").hidden = false;
})();
