/** A model with nothing behind it: exported pages and tests show the same views over it. */

import type { Model } from "./host";

type Run = (...args: never[]) => void;

export class FrozenModel implements Model {
  /** What a live model would have sent. */
  readonly sent: unknown[] = [];
  saves = 0;
  readonly #runs = new Map<string, Set<Run>>();

  constructor(readonly state: Record<string, unknown>) {}

  get(key: string): unknown {
    return this.state[key];
  }

  set(key: string, value: unknown): void {
    if (this.state[key] === value) return;
    this.state[key] = value;
    this.emit(`change:${key}`);
  }

  on(event: string, run: Run): void {
    const runs = this.#runs.get(event) ?? new Set();
    this.#runs.set(event, runs.add(run));
  }

  off(event: string, run: Run): void {
    this.#runs.get(event)?.delete(run);
  }

  emit(event: string, ...args: unknown[]): void {
    for (const run of [...(this.#runs.get(event) ?? [])]) run(...(args as never[]));
  }

  save_changes(): void {
    this.saves += 1;
  }

  send(content: unknown): void {
    this.sent.push(content);
  }

  /** How many listeners are left; none after a view has gone. */
  get listeners(): number {
    return [...this.#runs.values()].reduce((sum, runs) => sum + runs.size, 0);
  }
}

export interface Buffer {
  path: (string | number)[];
  data: string;
}

/** Put base64 buffers back into a state as DataViews, at the paths that ipywidgets took them from. */
export function withBuffers(state: Record<string, unknown>, buffers: readonly Buffer[]): Record<string, unknown> {
  for (const { path, data } of buffers) {
    const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
    let inner = state;
    for (const key of path.slice(0, -1)) inner = inner[key] as Record<string, unknown>;
    inner[path[path.length - 1] as string] = new DataView(bytes.buffer);
  }
  return state;
}
