import { expect, test } from "vitest";
import { Dedup } from "./dedup.ts";

const known = (seq: number, untilMs: number): Parameters<Dedup["remember"]>[1] => ({
  seq,
  content: "12345678",
  untilMs,
});

test("E16 what is over is forgotten slice by slice, and the last slice says that there is no more", () => {
  const dedup = new Dedup();
  for (let i = 0; i < 5; i++) dedup.remember(`id-${i}`, known(i + 1, 10));
  expect(dedup.expire(10, 2)).toEqual({ bytes: 0, more: false });
  expect(dedup.expire(11, 2)).toEqual({ bytes: 24, more: true });
  expect(dedup.expire(11, 2)).toEqual({ bytes: 24, more: true });
  expect(dedup.expire(11, 2)).toEqual({ bytes: 12, more: false });
});

test("E16 an id that was used anew does not keep older ones from being forgotten", () => {
  const dedup = new Dedup();
  dedup.remember("first", known(1, 10));
  dedup.remember("second", known(2, 20));
  dedup.remember("first", known(3, 30));
  expect(dedup.expire(21, 9).bytes).toBe("second".length + 8);
  expect(dedup.find("first", 21)?.seq).toBe(3);
});
