/** The shapes of the groups, as on the map. */

import { svg } from "../dom";
import { BOTH, ONLY_A, ONLY_B } from "./groups";

const PATHS: Record<number, [string, string]> = {
  [ONLY_A]: ["M6 2a4 4 0 1 0 0 8a4 4 0 1 0 0-8z", "a"],
  [BOTH]: ["M6 1L11 6L6 11L1 6z", "both"],
  [ONLY_B]: ["M2.5 2.5h7v7h-7z", "b"],
};

/** A disc for A, a square for B, a diamond for both, a small dot for neither. */
export function glyph(group: number): SVGElement {
  const [d, name] = PATHS[group] ?? ["M6 4.4a1.6 1.6 0 1 0 0 3.2a1.6 1.6 0 1 0 0-3.2z", "other"];
  return svg("svg", { viewBox: "0 0 12 12", class: `fc-glyph ${name}`, "aria-hidden": "true" }, svg("path", { d }));
}
