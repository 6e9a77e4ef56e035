// The table: sorting, searching, filters, columns, pinned rows, downloads.
const body = document.querySelector("#board-table tbody");
const rows = [...body.rows];
const heads = [...document.querySelectorAll("#board-table th[data-column]")];
const cellsOf = new Map(rows.map((row) => [row, [...row.cells]]));
let pinned = [];
const onPins = [];

const isText = (head) => head.classList.contains("text");
const modelOf = (row) => row.dataset.model;
const place = (head) => Number(head.dataset.column);

const compareRows = (column, text, sign) => (one, other) => {
  const [a, b] = [cellsOf.get(one)[column], cellsOf.get(other)[column]];
  if (text) return sign * a.textContent.localeCompare(b.textContent, "en");
  const [x, y] = [a.dataset.value, b.dataset.value];
  if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
  return sign * (x - y);
};

const arrange = () => {
  const head = heads.find((one) => one.hasAttribute("aria-sort"));
  const sorted = [...rows];
  if (head) {
    sorted.sort(compareRows(place(head), isText(head), head.getAttribute("aria-sort") === "ascending" ? 1 : -1));
  }
  sorted.sort((one, other) => pinned.includes(modelOf(other)) - pinned.includes(modelOf(one)));
  body.classList.toggle("sorted", Boolean(head) || pinned.length > 0);
  body.append(...sorted);
};

const sortBy = (head, order) => {
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  if (order) head.setAttribute("aria-sort", order);
  state.set("sort", order ? `${place(head)}:${order}` : "");
  arrange();
};

// A press puts the best first, another the worst, a third the board's own order.
const press = (head) => {
  const first = isText(head) ? "ascending" : head.dataset.first ?? "descending";
  const orders = first === "ascending" ? ["ascending", "descending"] : ["descending", "ascending"];
  sortBy(head, orders[orders.indexOf(head.getAttribute("aria-sort")) + 1]);
};

const filterRows = () => {
  const search = matcher(state.get("q"));
  const [family, method] = [state.get("family"), state.get("method")];
  let n = 0;
  for (const row of rows) {
    const texts = [row.querySelector("th").dataset.name, row.dataset.family, row.dataset.method];
    const kept =
      pinned.includes(modelOf(row)) ||
      (search(texts.filter(Boolean).join(" ")) &&
        (!family || row.dataset.family === family) &&
        (!method || row.dataset.method === method));
    row.hidden = !kept;
    n += kept;
  }
  byId("count").textContent = `${n} of ${rows.length} models`;
};

const filterColumns = () => {
  const hidden = state.list("hide");
  const [judge, kind] = [state.get("judge"), state.get("kind")];
  const shown = new Map();
  for (const head of heads.filter((one) => one.dataset.key)) {
    const kept =
      !hidden.includes(head.dataset.key) &&
      (!judge || !head.dataset.judge || head.dataset.judge === judge) &&
      (!kind || head.dataset.kind === kind);
    head.hidden = !kept;
    for (const row of rows) cellsOf.get(row)[place(head)].hidden = !kept;
    const group = head.dataset.group;
    shown.set(group, (shown.get(group) ?? 0) + kept);
  }
  for (const group of document.querySelectorAll("#board-table th[data-groups]")) {
    const n = shown.get(group.dataset.groups);
    group.hidden = !n;
    if (n) group.colSpan = n;
  }
};

const pin = (model, on) => {
  pinned = on ? [...pinned.filter((one) => one !== model), model] : pinned.filter((one) => one !== model);
  state.set("pin", pinned);
  for (const row of rows) {
    row.classList.toggle("pinned", pinned.includes(modelOf(row)));
    row.querySelector(".pin").setAttribute("aria-pressed", pinned.includes(modelOf(row)));
  }
  arrange();
  filterRows();
  onPins.forEach((call) => call(pinned));
};

const bind = (id, name, apply) => {
  const field = byId(id);
  const first = field.value;
  field.value = state.get(name, first);
  if (field.value !== state.get(name, first)) {
    field.value = first;
    state.set(name, "");
  }
  field.addEventListener("input", () => {
    state.set(name, field.value === first ? "" : field.value);
    apply();
  });
};

const choices = (id, values) => {
  const found = [...new Set(values.filter(Boolean))];
  byId(id).append(...found.map((value) => option(value, value)));
  byId(id).closest("label").hidden = found.length < 2;
};

const columnChooser = () => {
  const hidden = new Set(state.list("hide"));
  const list = byId("columns");
  for (const head of heads.filter((one) => one.dataset.key)) {
    const box = element("input", { type: "checkbox" });
    box.checked = !hidden.has(head.dataset.key);
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(head.dataset.key);
      else hidden.add(head.dataset.key);
      state.set("hide", [...hidden]);
      filterColumns();
    });
    list.append(element("label", {}, box, ` ${head.dataset.label}`));
  }
};

const save = (name, text, type) => {
  const link = element("a", { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

// The file as the command writes it, with the rows that are shown in the order in which they are shown.
const download = async (kind) => {
  const files = await block("files");
  const found = files[kind];
  const lines = [...body.rows].filter((row) => !row.hidden).map((row) => found.rows[Number(row.dataset.row)]);
  save(found.name, [found.head, ...lines, found.foot].join(""), found.type);
};

const startTable = () => {
  for (const head of heads) {
    const button = element("button", { type: "button" }, ...head.childNodes);
    button.addEventListener("click", () => press(head));
    head.append(button);
  }
  for (const row of rows) {
    const name = row.querySelector("th");
    name.dataset.name = name.textContent;
    const button = element("button", { type: "button", class: "pin", "aria-pressed": "false" });
    button.setAttribute("aria-label", `Pin ${name.dataset.name}`);
    button.addEventListener("click", () => pin(modelOf(row), button.getAttribute("aria-pressed") === "false"));
    name.prepend(button);
  }
  choices("family", rows.map((row) => row.dataset.family));
  choices("method", rows.map((row) => row.dataset.method));
  choices("judge", heads.map((head) => head.dataset.judge));
  choices("kind", heads.map((head) => head.dataset.kind));
  columnChooser();
  bind("search", "q", filterRows);
  bind("family", "family", filterRows);
  bind("method", "method", filterRows);
  bind("judge", "judge", filterColumns);
  bind("kind", "kind", filterColumns);
  for (const button of document.querySelectorAll("[data-download]")) {
    button.addEventListener("click", () => download(button.dataset.download));
  }
  const [column, order] = state.get("sort").split(":");
  const head = heads.find((one) => one.dataset.column === column);
  if (head && ["ascending", "descending"].includes(order)) sortBy(head, order);
  for (const model of state.list("pin")) if (rows.some((row) => modelOf(row) === model)) pin(model, true);
  filterRows();
  filterColumns();
  byId("tools").hidden = false;
  byId("hint").hidden = false;
};
