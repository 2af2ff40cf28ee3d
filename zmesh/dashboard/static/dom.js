// Elements without markup in strings: what nodes call themselves is text, and never HTML.

export const $ = id => document.getElementById(id);

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

// Replaces what an element contains, unless it is the same already; what has the focus keeps it.
export function fill(element, ...children) {
  const next = h("div", {}, ...children);
  if (element.innerHTML === next.innerHTML) return;
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  const key = focused?.getAttribute("data-key");
  element.replaceChildren(...next.childNodes);
  if (key) [...element.querySelectorAll("[data-key]")].find(each => each.getAttribute("data-key") === key)?.focus();
}

export function announce(text) {
  $("announce").textContent = text;
}
