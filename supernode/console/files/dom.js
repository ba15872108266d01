// Makes elements and puts text into them; every text from the network gets into the page here, as text. Formats figures.

export const byId = (id) => document.getElementById(id);

export function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== "") element.textContent = text;
  return element;
}

// Nothing is done where nothing changed: a page of some thousand texts is brought up to date every two seconds.
export function put(element, text) {
  const said = String(text);
  if (element.textContent !== said) element.textContent = said;
}

export function attribute(element, name, value) {
  const said = String(value);
  if (element.getAttribute(name) !== said) element.setAttribute(name, said);
}

// The children of `parent` are those for `items`, in their order, by what `keyOf` says of each; `create` makes one.
export function keep(parent, items, keyOf, create, update) {
  const known = parent.elements ?? (parent.elements = new Map());
  const left = new Set(known.keys());
  let before = null;
  for (const item of items) {
    const key = keyOf(item);
    let element = known.get(key);
    if (element === undefined) known.set(key, (element = create(item)));
    left.delete(key);
    update(element, item);
    const due = before === null ? parent.firstElementChild : before.nextElementSibling;
    if (due !== element) parent.insertBefore(element, due);
    before = element;
  }
  for (const key of left) {
    known.get(key).remove();
    known.delete(key);
  }
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  let unit = 0;
  while (bytes >= 1024 && unit < UNITS.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${UNITS[unit]}`;
}

export const rate = (bytes) => (bytes === null || bytes === undefined ? "–" : `${size(bytes)}/s`);

export const percent = (part) => (part === null || part === undefined ? "–" : `${Math.floor(part * 100)} %`);

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export const short = (digest) => digest.replace(/^sha256:/, "").slice(0, 12);
