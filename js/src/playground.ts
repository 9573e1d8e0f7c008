/** SteeringPlayground. */

import { h } from "./dom";
import { type CommonState, widget } from "./host";
import { statusBar } from "./ui/status";

export default widget<CommonState>("SteeringPlayground", (root, host) => {
  root.append(h("header", { class: "sw-head" }, h("h2", null, "SteeringPlayground")), statusBar(host));
});
