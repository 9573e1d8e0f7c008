import { expect, test } from "vitest";
import { rgb } from "../src/ui/map_paint";
import { Cells, shades, splat, towards } from "../src/ui/scatter";

/** Numbers in [0, 1) that are always the same. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) % 2 ** 32;
    return state / 2 ** 32;
  };
}
const next = random(7);
const cloud = Float32Array.from({ length: 4000 }, () => next() * 2 - 1);

function nearestOfAll(x: number, y: number, radius: number, accept: (point: number) => boolean): number {
  let best = -1;
  let least = radius ** 2;
  for (let i = 0; i < cloud.length / 2; i += 1) {
    const distance = ((cloud[2 * i] as number) - x) ** 2 + ((cloud[2 * i + 1] as number) - y) ** 2;
    if (accept(i) && distance <= least) [best, least] = [i, distance];
  }
  return best;
}

test("the nearest point is the nearest of all, also at the edge and beyond", () => {
  const cells = new Cells(cloud);
  for (let n = 0; n < 300; n += 1) {
    const [x, y, radius] = [next() * 2.4 - 1.2, next() * 2.4 - 1.2, next() * 0.4];
    const accept = (point: number) => point % 3 !== 0;
    expect(cells.nearest(x, y, radius)).toBe(nearestOfAll(x, y, radius, () => true));
    expect(cells.nearest(x, y, radius, accept)).toBe(nearestOfAll(x, y, radius, accept));
  }
});

test("no points, one point, and points in one place are no special cases", () => {
  expect(new Cells(new Float32Array(0)).nearest(0, 0, 1)).toBe(-1);
  expect(new Cells(Float32Array.of(1, -1)).nearest(0.9, -1, 0.2)).toBe(0);
  expect(new Cells(new Float32Array(200)).nearest(0.1, 0, 0.2)).toBeGreaterThanOrEqual(0);
});

test("an arrow goes to the nearest point in its direction, and not to one that is off it", () => {
  //            0: from    1: right, far   2: right, near but steep   3: up     4: left
  const xy = Float32Array.of(0, 0, 0.5, 0.05, 0.1, 0.3, 0, 0.4, -0.2, -0.1);
  const all = [0, 1, 2, 3, 4];
  expect(towards(xy, 0, 1, 0, all)).toBe(1);
  expect(towards(xy, 0, 0, 1, all)).toBe(3);
  expect(towards(xy, 0, -1, 0, all)).toBe(4);
  expect(towards(xy, 0, 0, -1, [0, 1, 2, 3])).toBe(-1);
  expect(towards(xy, 0, 1, 0, [0, 2])).toBe(-1);
});

test("pixels are shaded by how many points cover them, and squares at the edge are left out", () => {
  const table = Uint32Array.from({ length: 256 }, (_, n) => 1000 + n);
  const raster = { width: 10, height: 10, covered: new Uint8Array(100).fill(9), pixels: new Uint32Array(100) };
  splat(Float32Array.of(0, 0, 0, 0, 0.4, -0.4, 5, 5), { x: 5, y: 5, scale: 5 }, 1, table, raster);
  expect(raster.pixels[5 * 10 + 5]).toBe(1002);
  expect(raster.pixels[7 * 10 + 7]).toBe(1001);
  expect([...raster.pixels].filter((pixel) => pixel !== 1000)).toHaveLength(2);
  splat(new Float32Array(2000), { x: 5, y: 5, scale: 5 }, 2, table, raster);
  expect([...raster.pixels].filter((pixel) => pixel === 1255)).toHaveLength(4);
});

test("shades begin with the ground and come nearer to the ink with every point", () => {
  const table = shades([255, 255, 255], [0, 0, 0]);
  const grey = [...new Uint8Array(table.buffer)].filter((_, n) => n % 4 === 0);
  expect(grey[0]).toBe(255);
  expect(grey[1]).toBeLessThan(200);
  expect(grey.every((value, n) => n === 0 || value <= (grey[n - 1] as number))).toBe(true);
  expect([...new Uint8Array(table.buffer)].filter((_, n) => n % 4 === 3).every((alpha) => alpha === 255)).toBe(true);
});

test("computed colours of both forms are read", () => {
  expect(rgb("rgb(11, 98, 176)")).toEqual([11, 98, 176]);
  expect(rgb("rgba(11, 98, 176, 0.5)")).toEqual([11, 98, 176]);
  expect(rgb("color(srgb 0.5 0 1)")).toEqual([128, 0, 255]);
});
