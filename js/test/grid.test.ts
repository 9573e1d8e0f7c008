import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type GridOptions, grid } from "../src/ui/grid";

const HOSTILE = '<img src=x onerror="window.hit = 1">';
const LABELS = ["months", "Number words", HOSTILE, "months: May"];
const VALUES = [3, null, 1, 2];

let end: AbortController;
let selected: Set<number>;
let focused: (number | null)[];
beforeEach(() => {
  vi.useFakeTimers();
  end = new AbortController();
  selected = new Set();
  focused = [];
});
afterEach(() => {
  end.abort();
  document.body.replaceChildren();
  vi.useRealTimers();
});

function made(options: Partial<GridOptions> = {}, rows = LABELS.length) {
  const label = (row: number) => LABELS[row] ?? `row ${row}`;
  const shown = grid({
    label: "features",
    columns: [
      { key: "label", title: "Label", kind: "text", value: label },
      { key: "value", title: "Value", kind: "number", value: (row) => VALUES[row] ?? null },
    ],
    text: (row) => label(row).toLowerCase(),
    count: () => rows,
    // Ids that are not row numbers.
    id: (row) => 100 + row,
    selected: () => selected,
    onSelect: (ids) => {
      selected = new Set(ids);
      shown.refresh();
    },
    onFocus: (id) => focused.push(id),
    signal: end.signal,
    ...options,
  });
  document.body.append(shown.element);
  return shown;
}

const lines = () => [...document.querySelectorAll<HTMLElement>("tbody tr[data-at]")];
const first = () => lines().map((line) => line.cells[0]?.textContent);
declare global {
  interface HTMLElement {
    cells: HTMLCollectionOf<HTMLTableCellElement>;
  }
}
const press = (key: string, init: KeyboardEventInit = {}) => {
  const table = document.querySelector("table");
  table?.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...init }));
};
const title = (name: string) =>
  [...document.querySelectorAll<HTMLButtonElement>("th button")].find((button) => button.textContent === name);
const search = (words: string) => {
  const field = document.querySelector("input") as HTMLInputElement;
  field.value = words;
  field.dispatchEvent(new Event("input"));
  vi.advanceTimersByTime(100);
};

test("text from data stays text", () => {
  made();
  expect(document.querySelector("img")).toBeNull();
  expect(first()[2]).toBe(HOSTILE);
});

test("a title sorts downwards, upwards and not at all; what is missing comes last", () => {
  made();
  title("Value")?.click();
  expect(first()).toEqual(["months", "months: May", HOSTILE, "Number words"]);
  expect(title("Value")?.closest("th")?.getAttribute("aria-sort")).toBe("descending");
  title("Value")?.click();
  expect(first()).toEqual([HOSTILE, "months: May", "months", "Number words"]);
  title("Value")?.click();
  expect(first()).toEqual(LABELS);
  expect(title("Value")?.closest("th")?.hasAttribute("aria-sort")).toBe(false);
});

test("every word of a search must be found, in any case, and Escape empties it", () => {
  const shown = made();
  search("MONTHS may");
  expect(first()).toEqual(["months: May"]);
  expect(shown.found()).toEqual([103]);
  expect(document.querySelector("[aria-live]")?.textContent).toBe("1 of 4 rows");
  const field = document.querySelector("input") as HTMLInputElement;
  field.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  vi.advanceTimersByTime(100);
  expect(first()).toEqual(LABELS);
});

test("only the rows in sight are on the page", () => {
  made({}, 5000);
  expect(lines().length).toBeLessThan(40);
  expect(document.querySelector("table")?.getAttribute("aria-rowcount")).toBe("5001");
});

test("a click selects and another one takes back; Shift takes all between", () => {
  made();
  lines()[0]?.click();
  lines()[2]?.dispatchEvent(new MouseEvent("click", { bubbles: true, shiftKey: true }));
  expect([...selected]).toEqual([100, 101, 102]);
  lines()[1]?.click();
  expect([...selected]).toEqual([100, 102]);
  expect(lines().map((line) => line.getAttribute("aria-selected"))).toEqual(["true", "false", "true", "false"]);
});

test("selection is by id: sorting keeps it", () => {
  made();
  lines()[0]?.click();
  title("Label")?.click();
  const chosen = lines().filter((line) => line.getAttribute("aria-selected") === "true");
  expect(chosen.map((line) => line.cells[0]?.textContent)).toEqual(["months"]);
});

test("arrows walk, Space selects, Shift and arrow select on the way", () => {
  made();
  press("ArrowDown");
  expect(focused.at(-1)).toBe(101);
  press(" ");
  press("ArrowDown", { shiftKey: true });
  expect([...selected]).toEqual([101, 102]);
  press("End");
  expect(focused.at(-1)).toBe(103);
  const active = document.querySelector("table")?.getAttribute("aria-activedescendant");
  expect(document.getElementById(active ?? "")?.dataset.at).toBe("3");
});

test("a row that another part points at is brought into sight", () => {
  const shown = made({}, 300);
  shown.reveal(380);
  expect(focused.at(-1)).toBe(380);
  // Ids that the search hides are not there to be shown.
  search("months");
  focused = [];
  shown.reveal(380);
  expect(focused).toEqual([]);
});

test("the row pointed at elsewhere is marked, and the keyboard stays where it was", () => {
  const shown = made();
  shown.point(102);
  expect(lines().map((line) => line.classList.contains("pointed"))).toEqual([false, false, true, false]);
  shown.point(null);
  expect(document.querySelector(".pointed")).toBeNull();
  press("ArrowDown");
  expect(focused).toEqual([101]);
});

test("rows can be kept out from outside", () => {
  let odd = false;
  const shown = made({ keep: (row) => !odd || row % 2 === 1 });
  odd = true;
  shown.refresh();
  expect(first()).toEqual(["Number words", "months: May"]);
});

test("titles are one tab stop, with arrows from one to the next", () => {
  made();
  const stops = () => [...document.querySelectorAll("th button")].map((button) => button.getAttribute("tabindex"));
  expect(stops()).toEqual(["0", "-1"]);
  title("Label")?.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  expect(stops()).toEqual(["-1", "0"]);
  expect(document.activeElement).toBe(title("Value"));
});
