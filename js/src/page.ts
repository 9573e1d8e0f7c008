/** The script of a page that Python wrote: it runs from file://, inline, without a network. */

import { enhanceTable } from "./ui/table";

// The page lives as long as its tables do, so nothing aborts this signal.
const { signal } = new AbortController();
for (const table of document.querySelectorAll<HTMLTableElement>("table[data-sw-table]")) {
  enhanceTable(table, { signal });
}
