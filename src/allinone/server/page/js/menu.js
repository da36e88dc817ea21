/** A menu behind a button: arrow keys, Home, End, Escape; lies above everything, so no scrolling box cuts it off. */

import { el, freshId } from "./dom.js";
import { icon } from "./icons.js";

/** The button and its menu; `items`: [{icon, key, act, isDangerous}]. `label` is a key or [key, values]. */
export function menuButton(label, items, className = "tool") {
  const menuId = freshId("menu");
  const button = el("button", { type: "button", class: className, i18nLabel: label, "aria-haspopup": "menu", "aria-expanded": "false", "aria-controls": menuId }, icon("more"));
  const entries = items.map(({ icon: name, key, act, isDangerous }) =>
    el(
      "button",
      { type: "button", role: "menuitem", tabindex: "-1", class: isDangerous ? "menu-item is-dangerous" : "menu-item", on: { click: () => (menu.hidePopover(), act()) } },
      icon(name),
      el("span", { i18n: key }),
    ),
  );
  const menu = el("div", { id: menuId, class: "menu", role: "menu", popover: "auto", i18nLabel: label }, entries);
  button.popoverTargetElement = menu; // so that a click on the open menu's button closes it
  menu.addEventListener("toggle", (event) => {
    const isOpen = event.newState === "open";
    button.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) {
      place(menu, button);
      entries[0].focus();
    }
  });
  menu.addEventListener("keydown", (event) => {
    const at = entries.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      entries.at(to % entries.length).focus();
    } else if (event.key === "Tab") menu.hidePopover();
  });
  return [button, menu];
}

function place(menu, button) {
  const box = button.getBoundingClientRect();
  const left = Math.max(8, Math.min(box.right - menu.offsetWidth, innerWidth - menu.offsetWidth - 8));
  const isBelow = box.bottom + menu.offsetHeight + 8 < innerHeight;
  menu.style.left = `${left}px`;
  menu.style.top = `${isBelow ? box.bottom + 4 : Math.max(8, box.top - menu.offsetHeight - 4)}px`;
}
