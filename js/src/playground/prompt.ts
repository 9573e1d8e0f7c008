/** The prompt, and a ruler on its tokens: which one is read, which are steered, which are attention sinks. */

import { debounced, h, setText } from "../dom";
import { moved } from "../keys";
import { shown } from "../ui/tokens";
import { type Store, steered, steersGenerated } from "./state";

const NAMES: [string, string][] = [
  ["last", "last token of the prompt"],
  ["all", "all tokens"],
  ["all_but_first", "all but the first token"],
  ["prompt", "tokens of the prompt"],
  ["generated", "generated tokens"],
];

export function promptPanel({ host }: Store): HTMLElement {
  const field = h("textarea", { rows: "2", spellcheck: "false", "aria-label": "Prompt", disabled: !host.live });
  const send = () => {
    if (field.value && field.value !== host.get("prompt")) host.set({ prompt: field.value });
  };
  field.addEventListener("input", debounced(350, host.signal, send));
  field.addEventListener("change", send);

  const picked = h("option", { value: "" }, "picked tokens");
  const where = h(
    "select",
    { disabled: !host.live, "aria-label": "Steered positions" },
    ...NAMES.map(([value, text]) => h("option", { value }, text)),
    picked,
  );
  where.addEventListener("change", () => {
    if (where.value) host.set({ positions: where.value });
  });

  const ruler = h("div", { class: "sw-ruler", role: "toolbar", "aria-label": "Tokens; steered ones are pressed" });
  const legend = h("p", { class: "sw-ruler-legend sw-soft" });
  let buttons: HTMLButtonElement[] = [];
  let entry = 0;

  const toggle = (at: number) => {
    const n = host.get("_prompt").tokens.length;
    const now = steered(host.get("positions"), n);
    now[at] = !now[at];
    const chosen = now.flatMap((on, i) => (on ? [i] : []));
    if (chosen.length) host.set({ positions: chosen });
  };
  ruler.addEventListener("keydown", (event) => {
    const next = moved(event.key, entry, buttons.length);
    if (next === undefined) return;
    event.preventDefault();
    buttons[entry]?.setAttribute("tabindex", "-1");
    entry = next;
    buttons[entry]?.setAttribute("tabindex", "0");
    buttons[entry]?.focus();
  });

  const fill = () => {
    const { tokens = [], sinks = [] } = host.get("_prompt");
    entry = Math.max(0, Math.min(entry, tokens.length - 1));
    buttons = tokens.map((token, at) =>
      h(
        "button",
        {
          type: "button",
          class: `sw-ruler-token${sinks[at] ? " sink" : ""}`,
          tabindex: at === entry ? "0" : "-1",
          disabled: !host.live,
          on: { click: () => toggle(at) },
        },
        h("span", { class: "sw-ruler-text" }, shown(token)),
      ),
    );
    const after = h("span", { class: "sw-ruler-token after" }, h("span", null, "generated"));
    ruler.replaceChildren(...buttons, ...(tokens.length ? [after] : []));
    paint();
  };
  const paint = () => {
    const { tokens = [], sinks = [], norms = [] } = host.get("_prompt");
    const positions = host.get("positions");
    const on = steered(positions, tokens.length);
    buttons.forEach((button, at) => {
      const read = at === tokens.length - 1;
      button.classList.toggle("on", on[at] === true);
      button.classList.toggle("read", read);
      button.setAttribute("aria-pressed", String(on[at] === true));
      const norm = norms[at];
      const said = [
        `token ${at}: ${shown(tokens[at] ?? "")}`,
        on[at] ? "steered" : "",
        read ? "read: the next token is predicted from here" : "",
        sinks[at] ?? "",
        norm === null || norm === undefined ? "" : `norm ${norm.toFixed(norm < 10 ? 1 : 0)}`,
      ].filter(Boolean);
      button.title = said.join("\n");
      button.setAttribute("aria-label", said.join(", "));
    });
    ruler.querySelector(".after")?.classList.toggle("on", steersGenerated(positions));
    picked.hidden = typeof positions === "string";
    where.value = typeof positions === "string" ? positions : "";
    setText(
      legend,
      positions === "generated"
        ? "Steering begins with the first generated token: the prediction right after the prompt does not change."
        : host.live
          ? "Click tokens to pick which are steered."
          : "",
    );
  };
  host.watch(["prompt"], () => {
    if (field.value !== host.get("prompt")) field.value = host.get("prompt");
  });
  host.watch(["_prompt"], fill);
  host.watch(["positions"], paint);

  return h(
    "section",
    { class: "sw-play-prompt sw-stack", "aria-label": "Prompt and positions" },
    field,
    ruler,
    h(
      "div",
      { class: "sw-row sw-ruler-foot" },
      h("label", null, "Steer", where),
      h("span", { class: "sw-key" }, h("i", { class: "sw-key-steered" }), "steered"),
      h("span", { class: "sw-key" }, h("i", { class: "sw-key-read" }), "read for the next token"),
      h("span", { class: "sw-key" }, h("i", { class: "sw-key-sink" }), "attention sink"),
      legend,
    ),
  );
}
