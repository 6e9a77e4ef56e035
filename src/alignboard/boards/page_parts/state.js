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

// Two characters hold 13 bits, a single one at the end 6: what page_data.py writes.
const bytesOf = (text) => {
  const bytes = new Uint8Array(Math.ceil((text.length * 13) / 16));
  const value = (k) => {
    const code = text.charCodeAt(k);
    return code - 33 - (code > 34) - (code > 60) - (code > 92);
  };
  let [held, bits, n] = [0, 0, 0];
  for (let k = 0; k < text.length; k += 2) {
    const size = k + 1 < text.length ? 13 : 6;
    held = (held << size) | (size === 13 ? 91 * value(k) + value(k + 1) : value(k));
    for (bits += size; bits >= 8; n += 1) {
      bits -= 8;
      bytes[n] = held >> bits;
      held &= (1 << bits) - 1;
    }
  }
  return bytes.subarray(0, n);
};

const unpacked = async (text) => {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
};

// Texts of a large board lie beside the page, in style sheets: a page from disk may load these, and they run nothing.
const beside = (id) =>
  new Promise((resolve, reject) => {
    const folder = encodeURIComponent(document.body.dataset.texts);
    const link = element("link", { rel: "stylesheet", href: `${folder}/${id}.css` });
    link.addEventListener("load", () => {
      const content = getComputedStyle(document.documentElement).getPropertyValue(`--${id}`).trim();
      link.remove();
      resolve(content.slice(1, -1));
    });
    link.addEventListener("error", () => {
      link.remove();
      reject(new Error(`The file ${document.body.dataset.texts}/${id}.css is missing beside this page.`));
    });
    document.head.append(link);
  });

const blocks = new Map();
// The content of a block of compressed data in this file, or of one beside it, decoded once.
const block = (id) => {
  if (!blocks.has(id)) {
    const there = byId(id);
    const content = (there ? Promise.resolve(there.textContent) : beside(id)).then(unpacked);
    content.catch(() => blocks.delete(id));
    blocks.set(id, content);
  }
  return blocks.get(id);
};
