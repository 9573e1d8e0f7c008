/** The runs so far; one click or Enter returns to one. */

import { h, setText } from "../dom";
import { moved } from "../keys";
import { type Run, type Store, times } from "./state";

export function historyPanel({ host }: Store, open: (run: Run) => void): HTMLElement {
  const title = h("span");
  const list = h("div", { class: "sw-runs", role: "listbox", "aria-label": "Runs, newest first" });
  const element = h("details", { class: "sw-play-runs sw-panel" }, h("summary", null, title), list);
  let items: HTMLElement[] = [];
  let entry = 0;
  const enter = (at: number, focus: boolean) => {
    items[entry]?.setAttribute("tabindex", "-1");
    entry = at;
    items[at]?.setAttribute("tabindex", "0");
    if (focus) items[at]?.focus();
  };
  list.addEventListener("keydown", (event) => {
    const next = moved(event.key, entry, items.length);
    if (next !== undefined) enter(next, true);
    else if (event.key === "Enter" || event.key === " ") items[entry]?.click();
    else return;
    event.preventDefault();
  });
  host.watch(["_runs"], () => {
    const runs = [...host.get("_runs")].reverse();
    element.hidden = !runs.length;
    setText(title, `History: ${runs.length} run${runs.length === 1 ? "" : "s"}`);
    items = runs.map((run, at) =>
      h(
        "div",
        {
          class: "sw-run",
          role: "option",
          tabindex: "-1",
          "aria-selected": "false",
          on: {
            click: () => {
              for (const item of items) item.setAttribute("aria-selected", String(item === items[at]));
              enter(at, true);
              open(run);
            },
          },
        },
        h("span", { class: "sw-run-cell sw-run-n" }, `${run.n}`),
        h("span", { class: "sw-run-cell" }, whatOf(run)),
        h("span", { class: "sw-run-cell" }, run.settings.prompt),
        h("span", { class: "sw-run-cell sw-soft" }, run.entries[run.entries.length - 1]?.text.trim() ?? ""),
      ),
    );
    list.replaceChildren(...items);
    enter(0, false);
  });
  return element;
}

/** What was added, and where. */
function whatOf({ settings, entries, temperature }: Run): string {
  const own = entries.map(({ multiplier }) => multiplier ?? 0);
  const range = own.length > 1 ? `${times(own[0] ?? 0)} to ${times(own[own.length - 1] ?? 0)}` : times(own[0] ?? 0);
  const parts = [
    ...(settings.on ? [`${settings.active} ${range}`] : []),
    ...settings.beside.map(([name, dose]) => `${name} ${times(dose)}`),
    typeof settings.positions === "string"
      ? settings.positions.replaceAll("_", " ")
      : `tokens ${settings.positions.join(", ")}`,
  ];
  if (settings.space === "sae")
    parts.push(`SAE space, error term ${settings.error_term === "keep" ? "kept" : "dropped"}`);
  if (temperature) parts.push(`temperature ${temperature}`);
  return parts.join(" · ");
}
