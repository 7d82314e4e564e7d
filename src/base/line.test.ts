import fc from "fast-check";
import { expect, test } from "vitest";
import { Line } from "./line.ts";
import type { Member } from "./line.ts";

class Person implements Member<Person> {
  before: Person | undefined;
  after: Person | undefined;
}

test("a line keeps the order of joining, whoever leaves", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(20), { maxLength: 200 }), (calls) => {
      const line = new Line<Person>();
      const model: Person[] = [];
      for (const at of calls) {
        const leaver = model[at];
        if (leaver === undefined) {
          const person = new Person();
          line.join(person);
          model.push(person);
        } else {
          line.leave(leaver);
          model.splice(at, 1);
        }
        expect([leaver?.before, leaver?.after]).toEqual([undefined, undefined]);
        expect(line.first).toBe(model[0]);
        expect(line.size).toBe(model.length);
        expect([...line].every((person, place) => person === model[place])).toBe(true);
      }
    }),
  );
});

test("the member at hand may leave while a line is walked", () => {
  const line = new Line<Person>();
  const people = Array.from({ length: 5 }, () => new Person());
  for (const person of people) line.join(person);
  const met: Person[] = [];
  for (const person of line) {
    met.push(person);
    line.leave(person);
  }
  expect(met.map((person) => people.indexOf(person))).toEqual([0, 1, 2, 3, 4]);
  expect(line.size).toBe(0);
});
