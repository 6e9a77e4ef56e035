// One pair after the other; a verdict is sent once, and the next pair comes with the reply.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  let current = null;
  let waiting = false;

  const show = (found) => {
    current = found.pair ?? null;
    byId("progress").textContent = `${found.done} of ${found.n} done`;
    byId("pair").hidden = current === null;
    if (current === null) {
      byId("progress").textContent += ": that was the last one, thank you.";
      return;
    }
    byId("instruction").textContent = found.instruction;
    byId("first").textContent = found.responses[0];
    byId("second").textContent = found.responses[1];
    window.scrollTo(0, 0);
    document.documentElement.dataset.pair = current;
  };

  const ask = async (method, path, body) => {
    const reply = await fetch(path, { method, body });
    if (!reply.ok) throw new Error(await reply.text());
    show(await reply.json());
  };

  const give = async (verdict) => {
    if (current === null || waiting) return;
    waiting = true;
    try {
      await ask("POST", "verdict", JSON.stringify({ pair: current, verdict }));
    } catch (error) {
      byId("progress").textContent = `Not kept: ${error.message} Is alignboard label still running?`;
    }
    waiting = false;
  };

  for (const button of document.querySelectorAll("[data-verdict]")) {
    button.addEventListener("click", () => give(button.dataset.verdict));
  }
  document.addEventListener("keydown", (event) => {
    const verdict = { 1: "first", 2: "second", t: "draw" }[event.key];
    if (verdict && !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat) give(verdict);
  });
  ask("GET", "next");
})();
