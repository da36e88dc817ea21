/** The icons: strokes on a grid of 24, drawn in the colour of the text around them. */

import { svg } from "./dom.js";

const PATHS = {
  chat: "M4 5.500h16a1 1 0 0 1 1 1v10a1 1 0 0 1-1 1H11l-4.5 3.500V17.500H4a1 1 0 0 1-1-1v-10a1 1 0 0 1 1-1z M8 10h8 M8 13.500h5",
  tasks: "M4 6.500l1.5 1.500L8 5 M4 12.500l1.5 1.500L8 11 M4 18.500l1.5 1.500L8 17 M12 7h8 M12 13h8 M12 19h8",
  prompts: "M6 3h8l4 4v13a1 1 0 0 1-1 1H6a1 1 0 0 1-1-1V4a1 1 0 0 1 1-1z M13.5 3v4.500H18 M10 12l-2 2 2 2 M13 12l2 2-2 2",
  status: "M3 13h4l2.5-7 4 13 2.8-8 1.2 2H21",
  send: "M12 20V5 M5.5 11.5 12 5l6.5 6.5",
  stop: "M7 7h10v10H7z",
  retry: "M20 12a8 8 0 1 1-2.5-5.8 M20 3.500V8h-4.5",
  copy: "M9 9h10a1 1 0 0 1 1 1v10a1 1 0 0 1-1 1H9a1 1 0 0 1-1-1V10a1 1 0 0 1 1-1z M5 15H4a1 1 0 0 1-1-1V4a1 1 0 0 1 1-1h10a1 1 0 0 1 1 1v1",
  check: "M5 12.500l4.5 4.500L19 7.5",
  up: "M7 11v9.500H4.500a1 1 0 0 1-1-1V12a1 1 0 0 1 1-1H7zl4-7.500c1.5 0 2.5 1.2 2.2 2.800L12.5 10h5.700a2 2 0 0 1 2 2.400l-1.2 6.500a2 2 0 0 1-2 1.600H7",
  down: "M17 13V3.500h2.500a1 1 0 0 1 1 1V12a1 1 0 0 1-1 1H17zl-4 7.500c-1.5 0-2.5-1.2-2.2-2.800l.7-3.700H5.800a2 2 0 0 1-2-2.400L5 5.100a2 2 0 0 1 2-1.600h10",
  plus: "M12 5v14 M5 12h14",
  pencil: "M4 20l1-4.500L16.5 4a1.4 1.4 0 0 1 2 0L20 5.500a1.4 1.4 0 0 1 0 2L8.5 19z M14 6.500l3.5 3.5",
  trash: "M4 7h16 M9 7V4.500h6V7 M6 7l1 13h10l1-13 M10 11v5.5 M14 11v5.5",
  download: "M12 4v11 M7 11l5 5 5-5 M5 20h14",
  upload: "M12 16V5 M7 9l5-5 5 5 M5 20h14",
  menu: "M4 7h16 M4 12h16 M4 17h16",
  more: "M4.5 12h1 M11.5 12h1 M18.5 12h1",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z M12 2.500v2 M12 19.500v2 M2.5 12h2 M19.5 12h2 M5.3 5.300l1.4 1.4 M17.3 17.300l1.4 1.4 M5.3 18.700l1.4-1.4 M17.3 6.700l1.4-1.4",
  moon: "M20 14.500A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.500z",
  half: "M12 3.500a8.5 8.5 0 1 0 0 17zM12 3.500a8.5 8.5 0 0 1 0 17 M12 8h6.5 M12 12h8.5 M12 16h6.5",
  key: "M15 9.500a4.5 4.5 0 1 1-1.3-3.200A4.5 4.5 0 0 1 15 9.500z M13.7 12.7 20.5 19.5 M17.5 16.500l-2 2",
  close: "M6 6l12 12 M18 6 6 18",
  warning: "M12 4 2.8 20h18.400z M12 10v4.5 M12 17.200h.01",
  save: "M5 4h11l3 3v12a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1z M8 4v5h7V4 M8 20v-6h8v6",
  play: "M8 5.500v13l10.5-6.500z",
};

/** An icon; it says nothing to screen readers, the button around it does. */
export function icon(name, className = "") {
  return svg(
    "svg",
    { class: `icon ${className}`.trim(), viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    svg("path", { d: PATHS[name] }),
  );
}
