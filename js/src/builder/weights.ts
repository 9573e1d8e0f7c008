/** Weights of features while a slider moves, and what the vector becomes with them: sums, without asking Python. */

import { type Host, unpack } from "../host";
import type { State, Weights } from "./state";

export interface Numbers {
  norm: number;
  /** Cosine with the vector before weighing; null for a vector of length zero. */
  cosine: number | null;
  others: (number | null)[];
}

export interface Store {
  weight(id: number): number;
  weights(): Weights;
  /** While a slider moves: seen on this page alone. */
  preview(id: number, weight: number): void;
  /** When it is let go: the vector is made. */
  commit(): void;
  reset(): void;
  numbers(): Numbers | null;
  /** Runs now, and after every change of weights, of either kind. */
  onChange(run: () => void): void;
}

export function weightStore(host: Host<State>): Store {
  let draft: Weights | null = null;
  const listeners: (() => void)[] = [];
  const tell = () => {
    for (const run of listeners) run();
  };
  const weights = () => draft ?? host.get("weights");
  let table = read();

  function read() {
    const { ids = [], products, with_vector, with_others } = host.get("_features");
    return {
      ids,
      norm: host.get("_made").norm ?? 0,
      products: unpack(products),
      withVector: unpack(with_vector),
      withOthers: unpack(with_others),
    };
  }
  host.watch(["_features", "_cosines", "_made"], () => {
    table = read();
    tell();
  });
  host.watch(["weights"], () => {
    draft = null;
    tell();
  });

  return {
    weights,
    weight: (id) => weights()[String(id)] ?? 1,
    preview(id, weight) {
      draft = { ...weights(), [String(id)]: weight };
      if (weight === 1) delete draft[String(id)];
      tell();
    },
    commit() {
      if (draft) host.set({ weights: draft });
    },
    reset() {
      host.set({ weights: {} });
    },
    numbers() {
      if (!host.get("_made").name) return null;
      const others = host.get("_cosines");
      const now = weights();
      const change = table.ids.map((id) => (now[String(id)] ?? 1) - 1);
      return weighed(
        table,
        change,
        others.map(({ product, norm }) => ({ product, norm })),
      );
    },
    onChange(run) {
      listeners.push(run);
      run();
    },
  };
}

interface Table {
  ids: readonly number[];
  norm: number;
  products: ArrayLike<number>;
  withVector: ArrayLike<number>;
  withOthers: ArrayLike<number>;
}

/**
 * |v'|² = |v|² + 2 Σ d_i p_i·v + ΣΣ d_i d_j p_i·p_j, and v'·o = v·o + Σ d_i p_i·o, with p_i a feature's part and d_i the
 * change of its weight.
 */
export function weighed(table: Table, change: readonly number[], others: readonly { product: number; norm: number }[]) {
  const n = table.ids.length;
  const moved = change.flatMap((d, i) => (d === 0 ? [] : [i]));
  const along = (row: ArrayLike<number>, from: number) =>
    moved.reduce((sum, i) => sum + (change[i] as number) * (row[from + i] as number), 0);
  const own = along(table.withVector, 0);
  const quadratic = moved.reduce((sum, i) => sum + (change[i] as number) * along(table.products, i * n), 0);
  const norm = Math.sqrt(Math.max(0, table.norm ** 2 + 2 * own + quadratic));
  // What is left of a difference of equal numbers in single precision is not a direction.
  const none = norm < 1e-4 * table.norm;
  const cosine = (product: number, length: number) =>
    none || !length ? null : Math.max(-1, Math.min(1, product / (norm * length)));
  return {
    norm: none ? 0 : norm,
    cosine: cosine(table.norm ** 2 + own, table.norm),
    others: others.map((other, m) => cosine(other.product + along(table.withOthers, m * n), other.norm)),
  };
}
