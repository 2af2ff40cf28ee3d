// Light, dark, or as the system has it; and colours of the style sheet for what is drawn.

import { $ } from "./dom.js";

const THEMES = { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" };
const listeners = new Set();
const probe = document.createElement("i");
let current = "auto", known = new Map();

export function onTheme(listener) {
  listeners.add(listener);
}

export function colour(name) {
  if (!known.has(name)) {
    if (!probe.isConnected) { probe.hidden = true; document.body.append(probe); }
    probe.style.color = `var(--${name})`;
    known.set(name, getComputedStyle(probe).color);
  }
  return known.get(name);
}

function apply(theme) {
  current = theme;
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  $("theme").textContent = THEMES[theme];
  $("theme").setAttribute("aria-label", `Theme: ${theme}`);
  $("theme").title = "Theme (t)";
  repaint();
}

function repaint() {
  known = new Map();
  for (const listener of listeners) listener();
}

export function nextTheme() {
  const names = Object.keys(THEMES), next = names[(names.indexOf(current) + 1) % names.length];
  localStorage.setItem("zmesh-theme", next);
  apply(next);
}

export function startTheme() {
  const stored = localStorage.getItem("zmesh-theme");
  apply(stored in THEMES ? stored : "auto");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  $("theme").addEventListener("click", nextTheme);
}
