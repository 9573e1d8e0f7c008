import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { enhanceTable } from "../src/ui/table";

type Cell = string | { text: string; value: string };

/** A table as Python writes it: plain cells, `data-value` on numbers. */
function write(names: string[], rows: Cell[][]): HTMLTableElement {
  const table = document.createElement("table");
  table.dataset.swTable = "";
  table.setAttribute("aria-labelledby", "caption");
  const head = document.createElement("tr");
  table.createTHead().append(head);
  for (const name of names) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const row of rows) {
    const line = document.createElement("tr");
    for (const cell of row) {
      const td = document.createElement("td");
      td.textContent = typeof cell === "string" ? cell : cell.text;
      if (typeof cell !== "string") td.dataset.value = cell.value;
      line.append(td);
    }
    body.append(line);
  }
  const box = document.createElement("div");
  box.className = "sw-scroll";
  box.append(table);
  document.body.replaceChildren(box);
  return table;
}

const number = (value: number | null, digits = 1): Cell =>
  value === null ? { text: "–", value: "" } : { text: value.toFixed(digits), value: String(value) };

function one<T extends Element>(selector: string, root: ParentNode = document): T {
  const found = root.querySelector<T>(selector);
  if (!found) throw new Error(`no ${selector}`);
  return found;
}

const column = (table: HTMLTableElement, index = 0) =>
  Array.from(table.querySelectorAll<HTMLTableRowElement>("tbody tr"))
    .filter((row) => !row.hidden)
    .map((row) => row.cells[index]?.textContent);

const press = (table: HTMLTableElement, index = 0) =>
  one<HTMLButtonElement>(`th:nth-child(${index + 1}) button`, table).click();

const sorts = (table: HTMLTableElement) =>
  Array.from(table.querySelectorAll("th"), (th) => th.getAttribute("aria-sort"));

function type(text: string): void {
  const field = one<HTMLInputElement>("input");
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

const count = () => one("[aria-live=polite]").textContent;

let ending: AbortController;
beforeEach(() => {
  ending = new AbortController();
});
afterEach(() => {
  ending.abort();
  vi.restoreAllMocks();
});

const enhance = (table: HTMLTableElement, searchAbove?: number) =>
  enhanceTable(table, { signal: ending.signal, ...(searchAbove === undefined ? {} : { searchAbove }) });

describe("sorting", () => {
  it("goes up, down and back to the order of the page, and says so", () => {
    const table = write(
      ["word", "n"],
      [
        ["pear", "1"],
        ["Äpfel", "2"],
        ["apple", "3"],
        ["zebra", "4"],
      ],
    );
    enhance(table);
    expect(sorts(table)).toEqual([null, null]);
    press(table);
    expect(column(table).at(-1)).toBe("zebra");
    expect(column(table).slice(0, 2).toSorted()).toEqual(["apple", "Äpfel"].toSorted());
    expect(sorts(table)).toEqual(["ascending", null]);
    press(table);
    expect(column(table)[0]).toBe("zebra");
    expect(sorts(table)).toEqual(["descending", null]);
    press(table);
    expect(column(table)).toEqual(["pear", "Äpfel", "apple", "zebra"]);
    expect(sorts(table)).toEqual([null, null]);
  });

  it("starts anew in another column", () => {
    const table = write(
      ["a", "b"],
      [
        ["2", "x"],
        ["1", "y"],
      ],
    );
    enhance(table);
    press(table, 0);
    press(table, 1);
    expect(sorts(table)).toEqual([null, "ascending"]);
    expect(column(table, 1)).toEqual(["x", "y"]);
  });

  it("orders numbers by the value behind the text, not by the text", () => {
    const values = [10, 9, -2, 1e-9, 0.0004, 0.0003, Number.POSITIVE_INFINITY];
    const table = write(
      ["p"],
      values.map((v) => [number(v, 2)]),
    );
    enhance(table);
    press(table);
    const order = Array.from(table.querySelectorAll("td"), (cell) => Number(cell.dataset.value));
    expect(order).toEqual(values.toSorted((a, b) => a - b));
  });

  it("puts missing values last in both directions", () => {
    const table = write(
      ["v", "label"],
      [
        [number(null), ""],
        [number(2), "b"],
        [number(null), ""],
        [number(1), "a"],
      ],
    );
    enhance(table);
    press(table);
    expect(column(table)).toEqual(["1.0", "2.0", "–", "–"]);
    press(table);
    expect(column(table)).toEqual(["2.0", "1.0", "–", "–"]);
    press(table, 1);
    expect(column(table, 1)).toEqual(["a", "b", "", ""]);
    press(table, 1);
    expect(column(table, 1)).toEqual(["b", "a", "", ""]);
  });

  it("keeps ties in the order of the page, in both directions", () => {
    const table = write(
      ["group", "id"],
      [
        ["b", "1"],
        ["a", "2"],
        ["b", "3"],
        ["a", "4"],
      ],
    );
    enhance(table);
    press(table);
    expect(column(table, 1)).toEqual(["2", "4", "1", "3"]);
    press(table);
    expect(column(table, 1)).toEqual(["1", "3", "2", "4"]);
  });

  it("orders a column of numbers and words: numbers first", () => {
    const table = write(["k"], [["all"], ["15"], ["100"], ["50"]]);
    enhance(table);
    press(table);
    expect(column(table)).toEqual(["15", "50", "100", "all"]);
  });

  it("orders numbers within text as numbers", () => {
    const table = write(["hook"], [["blocks.10.hook_resid_post"], ["blocks.9.hook_resid_post"]]);
    enhance(table);
    press(table);
    expect(column(table)[0]).toBe("blocks.9.hook_resid_post");
  });
});

describe("filtering", () => {
  const words = ["two", "three", "Two hundred", "four"];
  const forty = () =>
    write(
      ["word", "group"],
      Array.from({ length: 40 }, (_, i) => [words[i % 4] ?? "", i < 20 ? "A only" : "both"]),
    );

  it("has a field above tables of more than twelve rows only", () => {
    const rows = (n: number): Cell[][] => Array.from({ length: n }, (_, i) => [String(i)]);
    enhance(write(["n"], rows(12)));
    expect(document.querySelector("input")).toBeNull();
    enhance(write(["n"], rows(13)));
    expect(document.querySelector("input")).not.toBeNull();
    enhance(write(["n"], rows(3)), 2);
    expect(document.querySelector("input")).not.toBeNull();
  });

  it("stands outside the box that scrolls, has a label, and is told apart by the caption", () => {
    enhance(forty());
    expect(one(".sw-scroll").previousElementSibling).toBe(one(".sw-tools"));
    expect(one<HTMLInputElement>("input").labels?.[0]?.textContent).toContain("Filter rows");
    expect(one("input").getAttribute("aria-describedby")).toBe("caption");
  });

  it("keeps the rows that hold every word, whatever the case", () => {
    const table = forty();
    enhance(table);
    expect(count()).toBe("40 rows");
    type("  TWO ");
    expect(count()).toBe("20 of 40 rows");
    type("two only");
    expect(count()).toBe("10 of 40 rows");
    type("only two hund");
    expect(new Set(column(table))).toEqual(new Set(["Two hundred"]));
    expect(count()).toBe("5 of 40 rows");
    type("nothing like it");
    expect(count()).toBe("0 of 40 rows");
    type("");
    expect(column(table)).toHaveLength(40);
    expect(count()).toBe("40 rows");
  });

  it("finds no word across two cells", () => {
    enhance(
      write(
        ["a", "b"],
        Array.from({ length: 13 }, () => ["ab", "cd"]),
      ),
    );
    type("bc");
    expect(count()).toBe("0 of 13 rows");
  });

  it("takes signs literally", () => {
    enhance(
      write(
        ["a"],
        Array.from({ length: 13 }, (_, i) => [i ? "x" : "a.*(b"]),
      ),
    );
    type(".*(");
    expect(count()).toBe("1 of 13 rows");
  });

  it("survives sorting, and sorting survives it", () => {
    const table = forty();
    enhance(table);
    type("f");
    press(table, 1);
    press(table, 1);
    expect(column(table, 1)[0]).toBe("both");
    expect(count()).toBe("10 of 40 rows");
    type("");
    expect(column(table, 1).slice(0, 20)).toEqual(Array(20).fill("both"));
  });
});

describe("keyboard", () => {
  it("sorts by native buttons, which Enter and Space press", () => {
    const table = write(
      ["a", ""],
      [
        ["2", "x"],
        ["1", "y"],
      ],
    );
    enhance(table);
    const buttons = table.querySelectorAll("button");
    expect(buttons).toHaveLength(1);
    expect(buttons[0]?.type).toBe("button");
    expect(buttons[0]?.textContent).toBe("a");
    expect(buttons[0]?.tabIndex).toBe(0);
  });

  const pressEscape = (options: KeyboardEventInit = {}) => {
    const event = new KeyboardEvent("keydown", { key: "Escape", bubbles: true, cancelable: true, ...options });
    one("input").dispatchEvent(event);
    return event;
  };

  it("clears by Escape, and keeps that Escape to itself", () => {
    const outside = vi.fn();
    document.addEventListener("keydown", outside, { signal: ending.signal });
    enhance(
      write(
        ["n"],
        Array.from({ length: 13 }, (_, i) => [String(i)]),
      ),
    );
    type("12");
    expect(count()).toBe("1 of 13 rows");
    pressEscape({ isComposing: true });
    expect(count()).toBe("1 of 13 rows");
    outside.mockClear();
    expect(pressEscape().defaultPrevented).toBe(true);
    expect(one<HTMLInputElement>("input").value).toBe("");
    expect(count()).toBe("13 rows");
    expect(outside).not.toHaveBeenCalled();
    expect(pressEscape().defaultPrevented).toBe(false);
    expect(outside).toHaveBeenCalledOnce();
  });
});

describe("clean-up", () => {
  it("leaves no listener after abort", () => {
    // The emulated DOM has an EventTarget of its own, which no global name leads to.
    let owner = document.createElement("p") as EventTarget;
    while (!Object.hasOwn(owner, "addEventListener")) owner = Object.getPrototypeOf(owner);
    const add = vi.spyOn(owner, "addEventListener");
    const table = write(
      ["n"],
      Array.from({ length: 13 }, (_, i) => [String(20 - i)]),
    );
    enhance(table);
    // Ours only: the DOM of the test listens to the signal itself.
    const ours = add.mock.calls.filter((_, i) => add.mock.contexts[i] instanceof Element);
    expect(ours.length).toBeGreaterThanOrEqual(3);
    for (const [, , options] of ours) expect(options).toMatchObject({ signal: ending.signal });
    ending.abort();
    press(table);
    type("12");
    expect(sorts(table)).toEqual([null]);
    expect(column(table)).toHaveLength(13);
  });

  it("enhances once more a page that was saved after the first time", () => {
    const rows = Array.from({ length: 13 }, (_, i) => [String((i * 5) % 13)]);
    const table = write(["n"], rows);
    enhance(table);
    type("12");
    press(table);
    ending.abort();
    ending = new AbortController();
    enhance(table);
    expect(document.querySelectorAll(".sw-tools")).toHaveLength(1);
    expect(table.querySelectorAll("button")).toHaveLength(1);
    expect(one("th").getAttribute("style") || null).toBeNull();
    expect(column(table)).toHaveLength(13);
    press(table);
    expect(column(table).slice(0, 3)).toEqual(["0", "1", "2"]);
  });

  it("leaves a table without head or body alone", () => {
    const table = document.createElement("table");
    expect(() => enhance(table)).not.toThrow();
    expect(table.children).toHaveLength(0);
  });
});

describe("hostile text", () => {
  const bad = '<img src=x onerror="window.hit=1">';

  it("stays text in cells, headers and the count", () => {
    const table = write(
      [bad, "b"],
      Array.from({ length: 13 }, (_, i) => [`${bad}${i}`, '"><script>hit()</script>']),
    );
    enhance(table);
    press(table);
    press(table, 1);
    type("<img absent");
    expect(count()).toBe("0 of 13 rows");
    type("<img");
    expect(count()).toBe("13 of 13 rows");
    expect(document.querySelector("img, script")).toBeNull();
    expect(one("th button").textContent).toBe(bad);
    expect(column(table)[0]).toBe(`${bad}0`);
  });
});
