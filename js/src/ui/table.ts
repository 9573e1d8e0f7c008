/** Sorting and filtering for a table that is already on the page: without this script it stays a plain table. */

export interface TableOptions {
  /** Ends every listener. */
  signal: AbortSignal;
  /** A table of more rows than this gets a search field. */
  searchAbove?: number;
}

/** `null` is a missing value. */
type Key = number | string | null;

export function enhanceTable(table: HTMLTableElement, { signal, searchAbove = 12 }: TableOptions): void {
  // By selector: the DOM that the tests emulate has no `rows` on a section.
  const head = table.querySelector<HTMLTableRowElement>("thead tr");
  const body = table.tBodies[0];
  if (!head || !body) return;
  const rows = [...body.querySelectorAll("tr")];
  addSorting(table, head, body, rows, signal);
  if (rows.length > searchAbove) addSearch(table, head, rows, signal);
}

function addSorting(
  table: HTMLTableElement,
  head: HTMLTableRowElement,
  body: HTMLTableSectionElement,
  rows: readonly HTMLTableRowElement[],
  signal: AbortSignal,
): void {
  for (const cell of head.cells) {
    const name = cell.textContent.trim();
    // A button without a name could not be announced.
    if (!name) continue;
    const button = table.ownerDocument.createElement("button");
    button.type = "button";
    // As text, and instead of what is there: a page that a browser saved after this script ran is enhanced once more.
    button.textContent = name;
    cell.replaceChildren(button);
    cell.removeAttribute("aria-sort");
  }
  head.addEventListener(
    "click",
    (event) => {
      const cell = event.target instanceof Element && event.target.closest("button")?.closest("th");
      if (!cell) return;
      const next = { none: "ascending", ascending: "descending" }[cell.getAttribute("aria-sort") ?? "none"];
      for (const other of head.cells) other.removeAttribute("aria-sort");
      if (next) cell.setAttribute("aria-sort", next);
      const order = next ? sortRows(rows, cell.cellIndex, next === "descending") : rows;
      for (const row of order) body.append(row);
      // In a box that scrolls, whoever sorts wants to see what came first.
      if (table.parentElement) table.parentElement.scrollTop = 0;
    },
    { signal },
  );
}

function addSearch(
  table: HTMLTableElement,
  head: HTMLTableRowElement,
  rows: readonly HTMLTableRowElement[],
  signal: AbortSignal,
): void {
  const page = table.ownerDocument;
  const field = page.createElement("input");
  field.type = "search";
  field.autocomplete = "off";
  field.spellcheck = false;
  // Several tables on a page each have a field of the same name: the caption tells them apart.
  const caption = table.getAttribute("aria-labelledby");
  if (caption) field.setAttribute("aria-describedby", caption);
  const label = page.createElement("label");
  label.append("Filter rows ", field);
  const count = page.createElement("span");
  count.setAttribute("aria-live", "polite");
  const tools = page.createElement("div");
  tools.className = "sw-tools";
  tools.append(label, count);

  const frame = table.closest(".sw-scroll") ?? table;
  if (frame.previousElementSibling?.matches(".sw-tools")) frame.previousElementSibling.remove();

  let texts: string[] | undefined;
  const apply = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    // Columns keep their width while rows come and go; only here is the table certain to be laid out.
    for (const cell of head.cells) {
      if (!words.length) cell.style.minWidth = "";
      else if (!cell.style.minWidth) cell.style.minWidth = `${cell.getBoundingClientRect().width}px`;
    }
    texts ??= rows.map(rowText);
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts?.[i]?.includes(word));
      if (!row.hidden) shown += 1;
    });
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
  };
  field.addEventListener("input", apply, { signal });
  field.addEventListener(
    "keydown",
    (event) => {
      // Escape in an empty field belongs to whatever is round the table; while composing, to the input method.
      if (event.key !== "Escape" || event.isComposing || !field.value) return;
      field.value = "";
      apply();
      event.preventDefault();
      event.stopPropagation();
    },
    { signal },
  );
  apply();
  // Last: a live region that arrives with its text is not read out.
  frame.before(tools);
}

/** One line a cell, so that no word is found across two of them. */
function rowText(row: HTMLTableRowElement): string {
  return Array.from(row.cells, (cell) => cell.textContent.toLowerCase()).join("\n");
}

/** Ties keep the order of the page in both directions, and missing values come last in both. */
function sortRows(rows: readonly HTMLTableRowElement[], column: number, descending: boolean): HTMLTableRowElement[] {
  // `numeric`, for layer 9 before layer 10; made once, since it is what `localeCompare` spends its time on.
  const { compare } = new Intl.Collator(undefined, { numeric: true });
  const keyed = rows.map((row) => ({ row, key: keyOf(row.cells[column]) }));
  keyed.sort(({ key: a }, { key: b }) => {
    if (a === null || b === null) return Number(a === null) - Number(b === null);
    const up = compareKeys(a, b, compare);
    return descending ? -up : up;
  });
  return keyed.map(({ row }) => row);
}

/** Numbers come before text, so that a column of both ("5, 10, all") has an order. */
function compareKeys(a: number | string, b: number | string, compareText: (a: string, b: string) => number): number {
  if (typeof a === "string") return typeof b === "string" ? compareText(a, b) : 1;
  if (typeof b === "string") return -1;
  // Not a difference: two infinities have none.
  return a < b ? -1 : Number(a > b);
}

/** `data-value` holds the number that the text rounds, or nothing for a missing one. */
function keyOf(cell: HTMLTableCellElement | undefined): Key {
  const text = (cell?.dataset.value ?? cell?.textContent ?? "").trim();
  if (!text) return null;
  const number = Number(text);
  return Number.isNaN(number) ? text : number;
}
