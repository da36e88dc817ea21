/** Thumbs up, thumbs down: what people think of an answer, sent with the answer's id. */

import { explain, get, post } from "./api.js";
import { note } from "./announce.js";
import { ask, field, text } from "./dialogs.js";
import { el } from "./dom.js";
import { t } from "./i18n.js";
import { icon } from "./icons.js";

let given = null;

/** What was said of earlier answers: id -> rating; read once. */
function ratings() {
  given ??= get("/v1/feedback?limit=1000").then(
    ({ feedback }) => new Map(feedback.map(({ answer_id: id, rating }) => [id, rating])),
    () => new Map(), // the buttons work without it
  );
  return given;
}

/** The two buttons for one answer. Thumbs down asks what would have been right; both answers may stay empty. */
export function feedbackButtons(answerId) {
  const up = button("up", "feedback.up");
  const down = button("down", "feedback.down");
  const rate = async (rating, extra = {}) => {
    try {
      await post("/v1/feedback", { answer_id: answerId, rating, ...extra });
    } catch (error) {
      note(explain(error), "bad");
      return;
    }
    (await ratings()).set(answerId, rating);
    press(rating);
    note(t("feedback.thanks"));
  };
  const press = (rating) => {
    up.setAttribute("aria-pressed", String(rating === "up"));
    down.setAttribute("aria-pressed", String(rating === "down"));
  };
  ratings().then((known) => press(known.get(answerId)));
  up.addEventListener("click", () => rate("up"));
  down.addEventListener("click", async () => {
    const more = await askWhatIsWrong();
    if (more) await rate("down", more);
  });
  return [up, down];
}

function button(name, key) {
  return el("button", { type: "button", class: "tool", i18nLabel: key, i18nTitle: key, "aria-pressed": "false" }, icon(name));
}

function askWhatIsWrong() {
  const comment = el("textarea", { class: "input", rows: 2, maxlength: 2000 });
  const correction = el("textarea", { class: "input", rows: 2, maxlength: 4000 });
  return ask({
    title: "feedback.title",
    fields: [field(text("feedback.comment"), comment), field(text("feedback.correction"), correction)],
    confirm: "feedback.send",
    read: () => ({
      ...(comment.value.trim() && { comment: comment.value.trim() }),
      ...(correction.value.trim() && { correction: correction.value.trim() }),
    }),
  });
}
