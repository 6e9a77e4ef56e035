// Sorting: a press on the name of a column puts the largest first, another the smallest, a third the board's own order.
"use strict";
(() => {
  const body = document.querySelector("tbody");
  const rows = [...body.rows];
  const heads = [...document.querySelectorAll("th[data-column]")];

  const compare = (column, sign) => (one, other) => {
    const [a, b] = [one.cells[column], other.cells[column]];
    if (column < 2) return sign * a.textContent.localeCompare(b.textContent, "en");
    const [x, y] = [a.dataset.value, b.dataset.value];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return sign * (x - y);
  };

  const sort = (head) => {
    const column = Number(head.dataset.column);
    const orders = column < 2 ? ["ascending", "descending"] : ["descending", "ascending"];
    const order = orders[orders.indexOf(head.getAttribute("aria-sort")) + 1];
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    if (order) head.setAttribute("aria-sort", order);
    body.classList.toggle("sorted", Boolean(order));
    body.append(...(order ? [...rows].sort(compare(column, order === "ascending" ? 1 : -1)) : rows));
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
