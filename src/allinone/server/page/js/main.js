/**
 * The shell: tabs, address, language, theme. A view is loaded when it is first opened and lives on while others are
 * shown, so that a batch goes on and a draft stays.
 */

import { forgetKey, get, hasKey, onKey } from "./api.js";
import { note } from "./announce.js";
import { el, fill } from "./dom.js";
import { language, onLanguage, sayAttribute, setLanguage, t, translate } from "./i18n.js";
import { icon } from "./icons.js";
import { lasting } from "./preferences.js";

const VIEWS = {
  chat: async () => new (await import("./chat/view.js")).ChatView(),
  tasks: async () => new (await import("./tasks/view.js")).TasksView(),
  prompts: async () => new (await import("./prompts/view.js")).PromptsView(),
  status: async () => new (await import("./status/view.js")).StatusView(),
};
const THEMES = { auto: "half", light: "sun", dark: "moon" };
const tabs = new Map();
const opened = new Map();
let current = null;

function makeTabs() {
  for (const name of Object.keys(VIEWS)) {
    const tab = el("a", { href: `#/${name}`, role: "tab", id: `tab-${name}`, class: "tab", tabindex: "-1", "aria-selected": "false", "aria-controls": `view-${name}` }, icon(name), el("span", { i18n: `view.${name}` }));
    const panel = el("section", { role: "tabpanel", id: `view-${name}`, class: "view", "aria-labelledby": `tab-${name}`, hidden: true });
    tab.addEventListener("keydown", onTabKey);
    tab.addEventListener("click", (event) => {
      event.preventDefault();
      if (name !== current) location.hash = tab.dataset.last ?? `#/${name}`;
    });
    tabs.set(name, { tab, panel });
    document.getElementById("tabs").append(tab);
    document.getElementById("main").append(panel);
  }
  setPrompts(false);
}

function setPrompts(isOn) {
  tabs.get("prompts").tab.hidden = !isOn;
}

function onTabKey(event) {
  const shown = [...tabs.values()].map(({ tab }) => tab).filter((tab) => !tab.hidden);
  const at = shown.indexOf(event.currentTarget);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
  if (event.key === " ") event.currentTarget.click();
  else if (to !== undefined) {
    const next = shown.at(to % shown.length);
    next.focus();
    next.click();
  } else return;
  event.preventDefault();
}

async function route(event) {
  if (event?.oldURL) remember(new URL(event.oldURL).hash);
  const [, name = "", ...rest] = location.hash.split("/");
  const target = name in VIEWS ? name : "chat";
  select(target);
  if (!opened.has(target)) {
    opened.set(target, VIEWS[target]().then((view) => (tabs.get(target).panel.append(view.node), view)));
  }
  const view = await opened.get(target).catch(() => null);
  if (view === null) {
    opened.delete(target);
    return note(t("error.view"), "bad"); // the server is away, or has another version of the page by now
  }
  if (current === target) await view.open(decodeURIComponent(rest.join("/")));
}

/** A tab leads back to where one was in its view. */
function remember(hash) {
  const [, name] = hash.split("/");
  if (tabs.has(name)) tabs.get(name).tab.dataset.last = hash;
}

function select(name) {
  current = name;
  for (const [other, { tab, panel }] of tabs) {
    const isSelected = other === name;
    tab.setAttribute("aria-selected", String(isSelected));
    tab.tabIndex = isSelected ? 0 : -1;
    panel.hidden = !isSelected;
    opened.get(other)?.then((view) => view.setShown?.(current === other));
  }
  showTitle();
}

function showTitle() {
  document.title = `${t(`view.${current}`)} · All-in-One`;
}

function makeTools() {
  const key = el("button", { type: "button", class: "tool", i18nLabel: "key.forget", i18nTitle: "key.forget", hidden: !hasKey(), on: { click: forgetKey } }, icon("key"));
  onKey(() => (key.hidden = !hasKey()));
  onKey(loadFeatures);
  const tongue = el("button", { type: "button", class: "tool tool-language", i18n: "language.other", i18nTitle: "language.switch", on: { click: () => setLanguage(language() === "zh" ? "en" : "zh") } });
  const theme = el("button", { type: "button", class: "tool" });
  const showTheme = (name) => {
    fill(theme, icon(THEMES[name]));
    for (const attribute of ["aria-label", "title"]) sayAttribute(theme, attribute, `theme.${name}`);
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
  };
  theme.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(lasting.get("theme") ?? "auto") + 1) % names.length];
    lasting.set("theme", next);
    showTheme(next);
  });
  showTheme(lasting.get("theme") in THEMES ? lasting.get("theme") : "auto");
  document.getElementById("tools").append(key, tongue, theme);
}

/** Which views there are. The status asks for the key where one is needed, so nothing else has to. */
async function loadFeatures() {
  try {
    const { features } = await get("/v1/status");
    setPrompts(features.edit_prompts);
  } catch {
    setPrompts(false); // the view that is open says what is wrong with the server
  }
}

makeTabs();
makeTools();
translate();
onLanguage(showTitle);
document.getElementById("skip").addEventListener("click", async (event) => {
  event.preventDefault();
  const view = await opened.get(current);
  (view.findStart?.() ?? document.getElementById("main")).focus(); // past the lists at the side
});
addEventListener("hashchange", route);
loadFeatures();
route();
