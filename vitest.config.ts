import { defineConfig } from "vitest/config";

export default defineConfig({
  ssr: { resolve: { conditions: ["source"] } },
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    pool: "forks",
    isolate: false,
    // Node strips types with WebAssembly, also in the store's threads, and V8 may free code of a thread that
    // has ended twice when it optimises a call out of it: the process dies of SIGSEGV in
    // Runtime_TierUpWasmToJSWrapper, once in some hundred threads. So such calls are not optimised.
    execArgv: ["--wasm-wrapper-tiering-budget=2147483647"],
    reporters: ["default", ["json", { outputFile: "reports/vitest.json" }]],
    testTimeout: 20_000,
  },
});
