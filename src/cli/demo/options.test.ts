import { expect, test } from "vitest";
import { parseFlags } from "./options.ts";
import type { DemoFlags } from "./options.ts";

test("without flags the demo is adaptive, compares and keeps nothing", () => {
  expect(parseFlags({})).toEqual({
    concurrency: "adaptive",
    isJson: false,
    compares: true,
    loops: false,
  });
});

test("flags become numbers; a loop does not compare", () => {
  const flags = { rate: "5000", seconds: "2.5", concurrency: "12", data: "d", loop: true };
  expect(parseFlags(flags)).toEqual({
    ratePerS: 5000,
    seconds: 2.5,
    concurrency: 12,
    dir: "d",
    isJson: false,
    compares: false,
    loops: true,
  });
});

test.each<[DemoFlags, string]>([
  [{ rate: "many" }, "--rate"],
  [{ rate: "" }, "--rate"],
  [{ rate: "0" }, "--rate"],
  [{ seconds: "-1" }, "--seconds"],
  [{ seconds: "NaN" }, "--seconds"],
  [{ speed: "1e99" }, "--speed"],
  [{ concurrency: "0" }, "--concurrency"],
  [{ concurrency: "2.5" }, "--concurrency"],
  [{ concurrency: "" }, "--concurrency"],
  [{ speed: "60", seconds: "5" }, "--speed"],
  [{ speed: "60", rate: "5" }, "--speed"],
])("%j is refused, and the flag is named", (flags, option) => {
  expect(() => parseFlags(flags)).toThrow(
    expect.objectContaining({
      code: "option_invalid",
      details: expect.objectContaining({ option }) as unknown,
    }) as Error,
  );
});

test("a named recording can be replayed at a speed and at a rate", () => {
  const flags = { arrivals: "nyc_taxi", speed: "3600", rate: "100" };
  expect(parseFlags(flags)).toMatchObject({ arrivals: "nyc_taxi", speed: 3600, ratePerS: 100 });
});
