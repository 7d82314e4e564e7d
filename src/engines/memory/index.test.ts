import fc from "fast-check";
import { test } from "vitest";
import { conformance } from "../conformance.ts";
import { memory } from "./index.ts";

conformance({ test, fc }, "memory", async () => {
  const engine = memory();
  await engine.open();
  return {
    engine,
    reopen: async () => {
      await engine[Symbol.asyncDispose]();
      await engine.open();
      return engine;
    },
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  };
});
