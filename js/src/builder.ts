/** VectorBuilder. */

import { decompositionPanel } from "./builder/decompositions";
import { featurePanel } from "./builder/features";
import { numberPanel } from "./builder/numbers";
import { recipePanel } from "./builder/recipe";
import { sourcePanel } from "./builder/source";
import type { State } from "./builder/state";
import { weightStore } from "./builder/weights";
import { tokenPanel } from "./builder/words";
import { h, setText } from "./dom";
import { widget } from "./host";
import { statusBar } from "./ui/status";

export default widget<State>("VectorBuilder", (root, host) => {
  const store = weightStore(host);
  const name = h("input", { type: "text", disabled: !host.live, spellcheck: "false", autocomplete: "off" });
  name.addEventListener("change", () => host.set({ name: name.value.trim() }));
  const empty = h("p", { class: "sw-soft sw-build-empty" });
  const made = h(
    "div",
    { class: "sw-build-made" },
    h("div", { class: "sw-panel" }, decompositionPanel(host)),
    h(
      "div",
      { class: "sw-build-body sw-panel" },
      featurePanel(host, store),
      h("div", { class: "sw-build-side" }, numberPanel(host, store), tokenPanel(host)),
    ),
    recipePanel(host, store),
  );
  root.append(
    h(
      "header",
      { class: "sw-head" },
      h("h2", null, "Vector builder"),
      h("span", { class: "sw-soft" }, "Make a vector, see what it is made of, weigh its features"),
      h("label", { class: "sw-build-field" }, "Name", name),
    ),
    sourcePanel(host),
    empty,
    made,
    statusBar(host),
  );
  host.watch(["_made", "_source", "_status", "name"], () => {
    const there = Boolean(host.get("_made").name);
    made.hidden = !there;
    const busy = ["running", "queued", "idle"].includes(host.get("_status").phase);
    empty.hidden = there || busy;
    const wanting = host.get("_source").wanting ?? "";
    setText(empty, wanting ? `No vector yet: ${wanting}` : "");
    name.placeholder = host.get("_made").name ?? "";
    if (name !== (name.getRootNode() as Document | ShadowRoot).activeElement) name.value = host.get("name");
  });
});
