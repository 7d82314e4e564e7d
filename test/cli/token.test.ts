/** `spillway token` as an operator uses it: before the first start, and against a running server. */
import { expect, test } from "vitest";
import { openSpillway } from "../../src/spillway.ts";
import { openServer } from "../support/server.ts";
import { emptyDir, spillway } from "./spillway.ts";

test("S1 the first token is made before a server runs, shown once, listed, and revoked", async () => {
  const data = await emptyDir();
  const scope = ["--verb", "produce", "observe", "--flow", "orders*", "--flow", "x"];
  const made = await spillway("token", "create", "--data", data, ...scope, "--expires", "90d");
  expect(made).toMatchObject({ code: 0, stderr: "" });
  const [, token, id] = /^(spw_([0-9A-Za-z]+)_\w+)\n/.exec(made.stdout)!;
  const listed = await spillway("token", "list", "--data", data, "--json");
  expect(JSON.parse(listed.stdout)).toMatchObject([
    { id, verbs: ["produce", "observe"], flows: ["orders*", "x"] },
  ]);
  expect(listed.stdout).not.toContain(token!.slice(-20));
  expect((await spillway("token", "revoke", id!, "--data", data)).code).toBe(0);
  expect((await spillway("token", "list", "--data", data)).stdout).toContain("no tokens");
  expect((await spillway("token", "revoke", id!, "--data", data)).code).toBe(2);
});

test("S1 against a running server the same works over HTTP, and needs an admin's token", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const at = ["--url", server.url];
  const all = ["--verb", "admin", "--flow", "*"];
  const first = JSON.parse((await spillway("token", "create", ...at, ...all, "--json")).stdout);
  const refused = await spillway("token", "list", ...at);
  expect(refused).toMatchObject({ code: 2, stdout: "" });
  expect(refused.stderr).toContain("unauthenticated");
  const listed = await spillway("token", "list", ...at, "--token", first.token);
  expect(listed.stdout).toContain(first.id);
  const revoked = await spillway("token", "revoke", first.id, ...at, "--token", first.token);
  expect(revoked.code).toBe(0);
  expect((await spillway("token", "list", ...at, "--token", first.token)).code).toBe(2);
});

test("G12 a store that a server holds, and flags that cannot be meant, are told as such", async () => {
  const data = await emptyDir();
  await using held = await openSpillway({ dir: data });
  const locked = await spillway("token", "list", "--data", data);
  expect(locked.code).toBe(1);
  expect(locked.stderr).toContain("--url");
  await held.close();
  for (const flags of [
    ["--verb", "own", "--flow", "*"],
    ["--verb", "produce", "--flow", "a/b"],
    ["--verb", "produce", "--flow", "*", "--expires", "soon"],
    ["--verb", "produce"],
  ]) {
    const refused = await spillway("token", "create", "--data", data, ...flags);
    expect({ flags, code: refused.code }).toEqual({ flags, code: 2 });
  }
  expect((await spillway("token", "list", "--data", data)).stdout).toContain("no tokens");
}, 40_000);
