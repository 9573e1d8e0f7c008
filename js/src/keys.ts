/**
 * Keeps the shortcuts of the host away from our controls. In command mode JupyterLab takes arrows, letters and Enter from
 * every focused element that is not a text field, range inputs included. Plain keys stop here, and elements that get the
 * focus are marked for hosts that listen in the capture phase (the mark on an ancestor is not enough). Keys with a
 * modifier, Shift+Enter, Escape and Tab still reach the host.
 */
export function guardKeys(root: HTMLElement, signal: AbortSignal): void {
  root.addEventListener(
    "keydown",
    (event) => {
      const forHost =
        event.ctrlKey ||
        event.metaKey ||
        event.altKey ||
        (event.key === "Enter" && event.shiftKey) ||
        event.key === "Escape" ||
        event.key === "Tab";
      if (!forHost) event.stopPropagation();
    },
    { signal },
  );
  root.addEventListener(
    "focusin",
    (event) => (event.target as Element).setAttribute("data-lm-suppress-shortcuts", "true"),
    { signal },
  );
}

/** Where an arrow, Home, End or Page key leads in a list of `n`; undefined for any other key. */
export function moved(key: string, at: number, n: number, page = 10): number | undefined {
  const next = {
    ArrowDown: at + 1,
    ArrowRight: at + 1,
    ArrowUp: at - 1,
    ArrowLeft: at - 1,
    Home: 0,
    End: n - 1,
    PageDown: at + page,
    PageUp: at - page,
  }[key];
  return next === undefined ? undefined : Math.max(0, Math.min(n - 1, next));
}
