"use strict";
// What the pages share: elements, ticks, the enlarged picture (a dialog "zoom"), light and dark.
const page = (() => {
  const $ = (id) => document.getElementById(id);
  const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
  function node(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "on") for (const [name, call] of Object.entries(value)) made.addEventListener(name, call);
      else made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }
  function draw(tag, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== "") made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  function ticks(low, high, count) {
    const span = high - low || 1;
    const rough = span / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((f) => f * power).find((s) => s >= rough);
    const found = [];
    for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + 1e-9 * span; v += step) found.push(Math.abs(v) < step * 1e-6 ? 0 : v);
    return found;
  }
  const widthOf = (figure) => Math.max(300, Math.min(1080, figure.clientWidth || 700));
  function zoom(source, text) {
    const dialog = $("zoom");
    dialog.querySelector("img").src = source; dialog.querySelector("img").alt = text; dialog.querySelector("figcaption").textContent = text;
    dialog.showModal();
  }
  const isDark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  function themeSwitch(button, changed = () => {}) {
    button.addEventListener("click", () => {
      document.documentElement.dataset.theme = isDark() ? "light" : "dark";
      changed();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  }
  return { $, known, node, draw, ticks, widthOf, zoom, themeSwitch };
})();
