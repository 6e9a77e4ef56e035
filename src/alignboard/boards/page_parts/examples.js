// The prompts with both responses, the verdicts and what the judges replied.
let listed = [];
let current = -1;
const texts = new Map();

const chunkOf = (k) => Math.floor(k / core.chunk);

const loaded = async (k) => {
  const number = chunkOf(k);
  if (!texts.has(number)) texts.set(number, await block(`chunk-${number}`));
  const chunk = texts.get(number);
  const at = k % core.chunk;
  const text = (place) => (place === undefined || place < 0 ? null : chunk.texts[place]);
  return {
    prompt: text(chunk.prompts[at]),
    response: (model) => text(chunk.responses[model]?.[at]),
    said: (verdict) => text(chunk.said[verdict][at]),
  };
};

const differs = (values) => Math.max(...values) > 1.5 && Math.min(...values) < 1.5;

// The preferences of one model on a prompt by every judge against the same baseline.
const byJudges = (model, k) =>
  core.preferences.filter((one) => one.model === model && one.preference[k] !== null).map((one) => one.preference[k]);

const ordersDiffer = (model, k) =>
  core.preferences.some((one) => {
    const values = (one.model === model ? one.orders[k] ?? [] : []).filter((value) => value !== null);
    return values.length > 1 && differs(values);
  });

const shows = {
  all: () => true,
  a: (k, x, y) => x !== null && y !== null && x > y,
  b: (k, x, y) => x !== null && y !== null && x < y,
  equal: (k, x, y) => x !== null && x === y,
  unscored: (k, x, y) => x === null || y === null,
  judges: (k) => [chosen().a, chosen().b].some((model) => differs(byJudges(model, k))),
  orders: (k) => [chosen().a, chosen().b].some((model) => ordersDiffer(model, k)),
};

const length = (model, k) => core.lengths[model]?.[k] ?? -1;

const orders = {
  prompt: () => 0,
  difference: (k, x, y) => -Math.abs((x ?? 0) - (y ?? 0)),
  length: (k) => -Math.abs(length(chosen().a, k) - length(chosen().b, k)),
};

const found = async (k, search) => {
  const example = await loaded(k);
  return search([example.prompt, example.response(chosen().a), example.response(chosen().b)].filter(Boolean).join("\n"));
};

const listExamples = async () => {
  const { column, a, b } = chosen();
  const baseline = sharedBaseline(column, a, b);
  const [first, second] = [a, b].map((model) => scoresOf(column, model, baseline));
  const test = shows[state.get("show", "all")] ?? shows.all;
  const order = orders[state.get("order", "prompt")] ?? orders.prompt;
  const set = state.get("set");
  let kept = core.sets.map((_, k) => k).filter((k) => (!set || core.sets[k] === set) && test(k, first[k], second[k]));
  if (state.get("text")) {
    const search = matcher(state.get("text"));
    const matches = await Promise.all(kept.map((k) => found(k, search)));
    kept = kept.filter((_, place) => matches[place]);
  }
  const key = new Map(kept.map((k) => [k, order(k, first[k], second[k])]));
  listed = kept.sort((x, y) => key.get(x) - key.get(y) || x - y);
  byId("n-examples").textContent = `${listed.length} of ${core.sets.length} prompts`;
  byId("list").replaceChildren(
    ...listed.map((k) => {
      const button = element("button", { type: "button" }, `${k + 1}. ${core.titles[k]}`);
      button.dataset.prompt = k;
      button.addEventListener("click", () => showExample(k));
      return element("li", {}, button);
    }),
  );
  if (listed.length > 0) await showExample(listed.includes(current) ? current : listed[0], false);
  else byId("example").replaceChildren(element("p", {}, "No prompt is like that."));
};

const preferenceText = (value) => {
  if (value === null) return "no verdict";
  const outcome = value > 1.5 ? "preferred" : value < 1.5 ? "not preferred" : "draw";
  return Number.isInteger(2 * value) ? outcome : `${outcome} (${percent(value - 1)} %)`;
};

const verdictRows = (k, example, model, name) =>
  core.preferences.flatMap((one, verdict) => {
    if (one.model !== model) return [];
    const asked = (one.orders[k] ?? []).map(preferenceText).join(" / ");
    const said = example.said(verdict);
    const reply = element("td", {});
    if (said !== null) {
      const opened = said.length < 200;
      reply.append(element("details", { open: opened }, element("summary", {}, "reply"), element("pre", {}, said)));
    }
    const cells = [name, core.labels[one.column], one.baseline, preferenceText(one.preference[k]), asked];
    return [element("tr", {}, ...cells.map((text) => element("td", {}, text)), reply)];
  });

const responseBox = (heading, text, n) => {
  const box = element("div", { class: "response" });
  const title = element("h4", {}, heading);
  if (text !== null) title.append(element("small", {}, ` ${n} characters`));
  box.append(title, text ? element("pre", { dir: "auto" }, text) : element("p", { class: "nothing" }, text === null ? "no response" : "empty"));
  return box;
};

const showExample = async (k, moves = true) => {
  current = k;
  if (moves) state.set("prompt", k + 1);
  let example;
  try {
    example = await loaded(k);
  } catch (error) {
    byId("example").replaceChildren(element("p", { class: "nothing" }, error.message));
    return;
  }
  const { a, b } = chosen();
  const blind = byId("blind").checked;
  const sides = blind && (k * 7919) % 2 ? [b, a] : [a, b];
  const place = byId("example");
  const heading = element("h3", { dir: "auto" });
  heading.textContent = example.prompt;
  const shown = sides.map((model, n) =>
    responseBox(blind ? `Response ${n + 1}` : model, example.response(model), length(model, k)),
  );
  place.replaceChildren(heading, element("div", { class: "responses" }, ...shown));
  if (!blind) {
    const lines = [...new Set([a, b])].flatMap((model) => verdictRows(k, example, model, model));
    const names = ["model", "judge", "against", "verdict", "in each order", ""];
    const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)));
    const table = element("table", { class: "verdicts" }, element("thead", {}, head), element("tbody", {}, ...lines));
    if (lines.length > 0) place.append(element("div", { class: "scroll" }, table));
    const baselines = new Set(core.preferences.filter((one) => [a, b].includes(one.model)).map((one) => one.baseline));
    for (const baseline of baselines) {
      if (baseline === a || baseline === b) continue;
      const box = responseBox(baseline, example.response(baseline), length(baseline, k));
      place.append(element("details", {}, element("summary", {}, `The baseline's response: ${baseline}`), box));
    }
  }
  const link = element("a", { href: state.link() }, `Link to prompt ${k + 1}`);
  place.append(element("p", { class: "note" }, link, core.sets[k] ? ` · ${core.sets[k]}` : ""));
  for (const button of byId("list").querySelectorAll("button")) {
    const own = Number(button.dataset.prompt) === k;
    button.setAttribute("aria-current", own);
    if (own) byId("list").scrollTop = button.offsetTop - byId("list").offsetTop - 40;
  }
};

const step = (by) => {
  const next = listed[listed.indexOf(current) + by];
  if (next !== undefined) showExample(next);
};

const startExamples = async () => {
  choices("set", core.sets);
  for (const [id, name] of [["set", "set"], ["show", "show"], ["order", "order"], ["text", "text"]]) {
    bind(id, name, listExamples);
  }
  byId("blind").addEventListener("change", () => showExample(current, false));
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey;
    if (!typing && event.key === "j") step(1);
    if (!typing && event.key === "k") step(-1);
  });
  const wanted = Number(state.get("prompt")) - 1;
  if (wanted >= 0 && wanted < core.sets.length) current = wanted;
  await listExamples();
  document.documentElement.dataset.ready = "";
};
