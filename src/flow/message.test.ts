import fc from "fast-check";
import { expect, test } from "vitest";
import { formatId, Ids, parseId } from "./message.ts";

test("ids that are made in a row are those that are made one by one, and are read back", () => {
  const ids = new Ids("orders");
  const seq = fc.oneof(fc.nat(3000), fc.maxSafeNat());
  fc.assert(
    fc.property(fc.nat(3), seq, (partition, seq) => {
      const id = ids.of(partition, seq);
      expect(id).toBe(formatId("orders", partition, seq));
      expect(parseId(id)).toEqual({ flow: "orders", partition, seq });
    }),
  );
});
