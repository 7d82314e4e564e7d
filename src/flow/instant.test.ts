import { expect, test } from "vitest";
import { parseInstant } from "./instant.ts";

test("the days from 1970 to 2400 follow each other without a gap", () => {
  const lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
  let expectedMs = 0;
  const wrong: string[] = [];
  for (let year = 1970; year <= 2400; year++) {
    lengths.forEach((length, month) => {
      const leap = (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
      for (let day = 1; day <= length + (leap && month === 1 ? 1 : 0); day++) {
        const text = `${year}-${two(month + 1)}-${two(day)}T00:00Z`;
        if (parseInstant(text) !== expectedMs) wrong.push(text);
        expectedMs += 86_400_000;
      }
    });
  }
  expect(wrong).toEqual([]);
});

test("zones and fractions count; seconds and their fractions may be left out", () => {
  for (const [text, ms] of [
    ["2026-11-27T00:00Z", 1_795_737_600_000],
    ["2026-11-27T00:00:00.000Z", 1_795_737_600_000],
    ["2026-11-27T01:30+01:30", 1_795_737_600_000],
    ["2026-11-26T16:00-08:00", 1_795_737_600_000],
    ["2026-11-27T10:30:05.5Z", 1_795_775_405_500],
    ["2026-11-27T10:30:05.0123456Z", 1_795_775_405_012],
  ] as const) {
    expect([text, parseInstant(text)]).toEqual([text, ms]);
  }
});

test("what is no instant, or has no zone, is not guessed at", () => {
  const texts = [
    "",
    "tomorrow",
    "2026-11-27",
    "2026-11-27T10:30",
    "1969-12-31T23:59Z",
    "2026-02-29T00:00Z",
    "2100-02-29T00:00Z",
    "2026-13-01T00:00Z",
    "2026-00-01T00:00Z",
    "2026-01-00T00:00Z",
    "2026-01-01T24:00Z",
    "2026-01-01T00:60Z",
    "2026-01-01T00:00:60Z",
    "2026-01-01T00:00+24:00",
  ];
  expect(texts.filter((text) => parseInstant(text) !== undefined)).toEqual([]);
});

function two(part: number): string {
  return String(part).padStart(2, "0");
}
