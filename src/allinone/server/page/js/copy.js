/** The copy button. */

import { announce, note } from "./announce.js";
import { el, fill } from "./dom.js";
import { t } from "./i18n.js";
import { icon } from "./icons.js";

/** Copies what `read` gives at the moment of the click. */
export function copyButton(read, className = "tool") {
  const button = el("button", { type: "button", class: className, i18nLabel: "copy", i18nTitle: "copy" }, icon("copy"));
  button.addEventListener("click", async () => {
    if (!(await copyText(read()))) return note(t("copy.failed"), "bad");
    fill(button, icon("check"));
    announce(t("copy.done"));
    setTimeout(() => fill(button, icon("copy")), 1_500);
  });
  return button;
}

async function copyText(text) {
  if (navigator.clipboard && window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // not allowed here: the old way may be
    }
  }
  const area = el("textarea", { class: "visually-hidden", "aria-hidden": "true", tabindex: "-1", props: { value: text } });
  const before = document.activeElement;
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  before?.focus();
  return isCopied;
}
