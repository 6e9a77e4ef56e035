"use strict";
// What the reader chose, kept in the address, so that a link shows the same.
const byId = (id) => document.getElementById(id);

const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};

const option = (value, text) => element("option", { value }, text);

const state = {
  values: new Map(new URLSearchParams(location.hash.slice(1))),
  get(name, otherwise = "") {
    return this.values.get(name) ?? otherwise;
  },
  list(name) {
    const text = this.get(name);
    return text ? text.split(",").map(decodeURIComponent) : [];
  },
  set(name, value) {
    const text = Array.isArray(value) ? value.map(encodeURIComponent).join(",") : String(value ?? "");
    if (text) this.values.set(name, text);
    else this.values.delete(name);
    history.replaceState(null, "", this.link());
  },
  link() {
    return `#${new URLSearchParams([...this.values].sort())}`;
  },
};

// A filter as a regular expression; what is none is searched as it is written.
const matcher = (text) => {
  if (!text) return () => true;
  try {
    const pattern = new RegExp(text, "iu");
    return (found) => pattern.test(found);
  } catch {
    return (found) => found.toLowerCase().includes(text.toLowerCase());
  }
};

const unpacked = async (text) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
};

const blocks = new Map();
// The content of a block of compressed data in this file, decoded once.
const block = (id) => {
  if (!blocks.has(id)) blocks.set(id, unpacked(byId(id).textContent));
  return blocks.get(id);
};
