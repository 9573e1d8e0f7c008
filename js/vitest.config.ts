import { defineConfig } from "vitest/config";

// One thread: the files are quick, a pool of workers costs more than it saves.
export default defineConfig({
  test: { environment: "happy-dom", include: ["test/**/*.test.ts"], pool: "threads", maxWorkers: 1, css: false },
});
