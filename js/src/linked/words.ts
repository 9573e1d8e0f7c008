/** What is said of the maps and of the test. */

import { number } from "../dom";
import type { Kind, Maps, Spaces, State } from "./state";

export function caption(
  shown: Kind | null,
  maps: Maps,
  spaces: Pick<Spaces, "width" | "rows" | "ids" | "paired">,
  count: number,
): string {
  if (!shown) return maps.error || "Positions are being made.";
  const words = {
    umap: `UMAP of each space by itself, by cosine, seed ${maps.seed}; B is turned as fits A best.`,
    pca: "The first two principal components of each space; B is turned as fits A best.",
    aligned:
      "B is rotated onto A by the pairs (orthogonal Procrustes); both are seen on A's first two principal components.",
  }[shown];
  const loose =
    shown === "aligned" && count <= spaces.width
      ? ` ${count.toLocaleString("en")} pairs in ${spaces.width.toLocaleString("en")} dimensions: a rotation can fit nearly anything.`
      : "";
  const others = ([0, 1] as const).filter((side) => spaces.rows[side] > spaces.ids[side].length);
  const drawn = others.map((side) => {
    const shown = (spaces.ids[side].length - spaces.paired[side]).toLocaleString("en");
    return ` Of the rows of ${"AB"[side]} without a partner ${shown} are drawn.`;
  });
  return [words + loose + drawn.join(""), maps.error].filter(Boolean).join(" ");
}

export function testWords(test: State["_test"]): string {
  if ("why" in test) return `No test of the whole: ${test.why}`;
  if (test.p === undefined) return "";
  const floor = test.p <= 1.0001 / (test.permutations + 1) ? "≤" : "=";
  // As few digits as there are: 1/1001 is 0.001.
  const p = `${Number(test.p.toPrecision(test.p < 0.1 ? 2 : 3))}`;
  const finding = test.p < 0.05 ? "are arranged alike" : "are not arranged more alike than random pairings";
  return (
    `In the full spaces the pairs ${finding}: RSA ${number(test.score)}; 95 % of ` +
    `${test.permutations.toLocaleString("en")} random pairings of ${test.n.toLocaleString("en")} pairs lie between ` +
    `${number(test.low, 3)} and ${number(test.high, 3)}, p ${floor} ${p}.`
  );
}
