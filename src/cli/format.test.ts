import { expect, test } from "vitest";
import { bar, clockTime, millis, plural, span, sparkline, table } from "./format.ts";

test("numbers are written as people read them", () => {
  expect([millis(0.0312), millis(7.129), millis(12.34), millis(1640.4)]).toEqual([
    "0.03 ms",
    "7.13 ms",
    "12.3 ms",
    "1,640 ms",
  ]);
  expect([0, 3440, 69_360, 720_000, 12_600_000, 4.752e9].map(span)).toEqual([
    "0 s",
    "3.4 s",
    "69.4 s",
    "12 min",
    "3 h 30 min",
    "55 d",
  ]);
  expect([plural(1, "message"), plural(12_345, "message")]).toEqual([
    "1 message",
    "12,345 messages",
  ]);
  expect([clockTime(0), clockTime(67_900), clockTime(6_000_000)]).toEqual([
    "00:00",
    "01:07",
    "100:00",
  ]);
});

test("bars and sparklines keep within their width", () => {
  expect([bar(-1, 4), bar(0.5, 4), bar(7, 4)]).toEqual(["░░░░", "██░░", "████"]);
  expect(sparkline([9, 0, 4, 8, 99], 4, 8)).toBe("▁▅██");
  expect(sparkline([0, 1], 4, 0)).toBe("▁▁");
});

test("a table's columns are as wide as their widest cell", () => {
  const rows = [
    ["name", "n", "why"],
    ["a", "100", ""],
  ];
  expect(table(rows, new Set([1]))).toEqual(["  name    n  why", "  a     100"]);
});
