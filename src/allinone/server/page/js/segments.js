/** Tabs inside a view: one panel at a time, arrow keys between the tabs. */

import { el, freshId } from "./dom.js";

/** `parts`: [{name, key, node}]. Gives the list of tabs, the panels, and `show(name)`. */
export function segments(label, parts, { onShow = () => {} } = {}) {
  const list = el("div", { class: "segments", role: "tablist", i18nLabel: label });
  const made = parts.map(({ name, key, node }) => {
    const id = freshId("segment");
    const tab = el("button", { type: "button", role: "tab", class: "segment", id, "aria-controls": `${id}-panel`, i18n: key });
    const panel = el("div", { role: "tabpanel", id: `${id}-panel`, "aria-labelledby": id, class: "segment-panel" }, node);
    tab.addEventListener("click", () => show(name));
    list.append(tab);
    return { name, tab, panel };
  });
  list.addEventListener("keydown", (event) => {
    const at = made.findIndex(({ tab }) => tab === document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = made.at(to % made.length);
    next.tab.focus();
    show(next.name);
  });
  function show(name) {
    for (const part of made) {
      const isShown = part.name === name;
      part.tab.setAttribute("aria-selected", String(isShown));
      part.tab.tabIndex = isShown ? 0 : -1;
      part.panel.hidden = !isShown;
    }
    onShow(name);
  }
  show(parts[0].name);
  return { list, panels: made.map(({ panel }) => panel), show };
}
