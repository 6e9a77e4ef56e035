// Two models on the prompts that both have, by one judge: the paired difference, and where they differ.
let core = null;

const percent = (value, digits = 1) => (100 * value).toFixed(digits);

const signed = (value) => `${value > 0 ? "+" : ""}${percent(value, 2)}`;

const judgedIn = (column) => core.preferences.filter((one) => one.column === column);

// What the scores of a model are relative to: the baseline that it was judged against, or itself where it is one.
const baselinesOf = (column, model) => {
  const own = judgedIn(column).filter((one) => [one.model, one.baseline].includes(model));
  return new Set(own.map((one) => one.baseline));
};

const sharedBaseline = (column, a, b) => [...baselinesOf(column, a)].find((one) => baselinesOf(column, b).has(one));

// Preferences over a baseline as scores: 1 preferred, 0.5 a draw, 0 not; null without a scored verdict.
const scoresOf = (column, model, baseline) => {
  const against = judgedIn(column).filter((one) => one.baseline === baseline);
  const found = against.find((one) => one.model === model);
  if (found) return found.preference.map((value) => (value === null ? null : value - 1));
  if (model !== baseline) return core.sets.map(() => null);
  return core.sets.map((_, k) => (against.some((one) => one.preference[k] !== null) ? 0.5 : null));
};

const chosen = () => ({ column: byId("by").value, a: byId("a").value, b: byId("b").value });

const pText = (p) => (p < 1e-4 ? "p < 0.0001" : `p = ${p.toFixed(4)}`);

const verdictText = (found, a, b) => {
  if (!found.n) return "No prompt has a verdict on both.";
  const from = `on ${found.n} prompts that both have a verdict on`;
  if (found.p === undefined) return `The same score on every one of ${found.n} prompts: nothing tells the two apart.`;
  if (found.p >= 0.05) return `Not separated ${from}: the difference may be chance.`;
  return `${found.estimate > 0 ? a : b} is ahead ${from}.`;
};

const svgElement = (tag, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};

// One point a prompt, A across and B up; points that fall together are spread a little, always the same way.
const scatter = (a, b, names) => {
  const size = 260;
  const edge = 34;
  const room = size - 2 * edge;
  const picture = svgElement("svg", { viewBox: `0 0 ${size} ${size}`, class: "scatter", role: "img" });
  picture.setAttribute("aria-label", `Scores of ${names[0]} and ${names[1]}, prompt by prompt`);
  const line = (x1, y1, x2, y2) => picture.append(svgElement("line", { x1, y1, x2, y2 }));
  line(edge, size - edge, size - edge, size - edge);
  line(edge, size - edge, edge, edge);
  line(edge, size - edge, size - edge, edge);
  const text = (x, y, said, turned) => {
    const made = svgElement("text", { x, y, "text-anchor": "middle" });
    if (turned) made.setAttribute("transform", `rotate(-90 ${x} ${y})`);
    made.textContent = said.length > 34 ? `${said.slice(0, 33)}…` : said;
    picture.append(made);
  };
  text(size / 2, size - 6, names[0]);
  text(10, size / 2, names[1], true);
  for (const [k, x] of a.entries()) {
    if (x === null || b[k] === null) continue;
    const spread = (seed) => (((k * seed) % 97) / 97 - 0.5) * 14;
    const point = svgElement("circle", {
      cx: edge + x * room + spread(31), cy: size - edge - b[k] * room + spread(57), r: 2.2,
    });
    const about = svgElement("title", {});
    about.textContent = `${k + 1}: ${core.titles[k]}`;
    point.append(about);
    point.addEventListener("click", () => showExample(k));
    picture.append(point);
  }
  return picture;
};

const term = (name, value) => [element("dt", {}, name), element("dd", {}, value)];

const compare = () => {
  const { column, a, b } = chosen();
  const place = byId("difference");
  place.replaceChildren();
  const names = [a, b];
  const baseline = sharedBaseline(column, a, b);
  if (a === b || baseline === undefined) {
    const against = names.map((model) => `${model} was judged against ${[...baselinesOf(column, model)].join(" and ") || "nothing"}`);
    const why = a === b ? "Choose two models." : `No common measure: ${against.join(", ")}.`;
    place.append(element("p", { class: "verdict" }, why));
    delete place.dataset.result;
    return;
  }
  const [first, second] = names.map((model) => scoresOf(column, model, baseline));
  const found = pairedDifference(first, second);
  const facts = element("dl", {});
  if (found.n) facts.append(...term("difference", `${signed(found.estimate)} points`));
  if (found.p !== undefined) {
    facts.append(
      ...term("95 % interval", `${signed(found.low)} to ${signed(found.high)}`),
      ...term("standard error", percent(found.error, 2)),
      ...term("paired t test", pText(found.p)),
    );
  }
  if (found.n) {
    facts.append(
      ...term(`${names[0]} scores higher`, `${found.above} prompts`),
      ...term("equal", `${found.n - found.above - found.below} prompts`),
      ...term(`${names[1]} scores higher`, `${found.below} prompts`),
    );
  }
  place.dataset.result = JSON.stringify(found);
  place.append(
    element("div", {}, element("p", { class: "verdict" }, verdictText(found, ...names)), facts),
    scatter(first, second, names),
  );
};

const fillModels = () => {
  const column = byId("by").value;
  const judged = judgedIn(column);
  const models = [...new Set([...judged.map((one) => one.model), ...judged.map((one) => one.baseline)])];
  const order = rows.map(modelOf);
  models.sort((x, y) => (order.indexOf(x) + 1 || 1e9) - (order.indexOf(y) + 1 || 1e9));
  const every = models.length > 0 ? models : Object.keys(core.lengths);
  const fill = (id, otherwise) => {
    byId(id).replaceChildren(...every.map((model) => option(model, model)));
    byId(id).value = every.includes(state.get(id)) ? state.get(id) : otherwise;
  };
  fill("a", every[0]);
  const { a } = chosen();
  fill("b", every.find((model) => model !== a && sharedBaseline(column, a, model) !== undefined) ?? every.at(-1));
};

const startCompare = async () => {
  if (!byId("core")) return;
  core = await block("core");
  const columns = [...new Set(core.preferences.map((one) => one.column))];
  byId("by").append(...columns.map((key) => option(key, core.labels[key])));
  byId("by").closest("label").hidden = columns.length === 0;
  if (columns.includes(state.get("by"))) byId("by").value = state.get("by");
  fillModels();
  const changed = (id) => {
    state.set(id, byId(id).value);
    if (id === "by") fillModels();
    compare();
    listExamples();
  };
  for (const id of ["by", "a", "b"]) byId(id).addEventListener("input", () => changed(id));
  onPins.push((models) => {
    for (const [k, id] of [[models.length - 2, "a"], [models.length - 1, "b"]]) {
      if (models.length > 1 && [...byId(id).options].some((one) => one.value === models[k])) {
        byId(id).value = models[k];
        state.set(id, models[k]);
      }
    }
    compare();
    listExamples();
  });
  byId("comparison").hidden = false;
  compare();
  startExamples();
};
