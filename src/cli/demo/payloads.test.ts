import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { dataFile } from "./data-files.ts";
import { readPayloads } from "./payloads.ts";

async function fileOf(content: string | Uint8Array): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "spillway-payloads-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const file = join(folder, "lines.txt");
  await writeFile(file, content);
  return file;
}

test("the bundled log has 10,000 lines of 1,753 clients, the busiest with 4.8 %", async () => {
  const { lines, cut, tooLong } = await readPayloads(dataFile("payloads/apache_access.log"));
  expect([lines.length, cut, tooLong]).toEqual([10_000, false, 0]);
  const perKey = new Map<string | undefined, number>();
  for (const { key } of lines) perKey.set(key, (perKey.get(key) ?? 0) + 1);
  expect([perKey.size, perKey.has(undefined)]).toEqual([1753, false]);
  expect(Math.max(...perKey.values())).toBe(482);
  expect(lines[0]!.key).toBe("83.149.9.216");
  expect(lines[0]!.text).toContain("kibana-search.png");
});

test("other lines have no key; blank ones are left out", async () => {
  const file = await fileOf(
    '{"a":1}\r\n\r\n \n10.0.0.1 plain words\n::1 - bob [17/May/2015] "GET /"',
  );
  expect((await readPayloads(file)).lines).toEqual([
    { text: '{"a":1}' },
    { text: "10.0.0.1 plain words" },
    { key: "::1", text: '::1 - bob [17/May/2015] "GET /"' },
  ]);
});

test("P1 of a large file the first 16 MiB are read, in whole lines", async () => {
  const line = `${"x".repeat(1000)}é`;
  const count = Math.ceil((20 * 1024 ** 2) / (Buffer.byteLength(line) + 1));
  const file = await fileOf(`${line}\n`.repeat(count));
  const { lines, cut } = await readPayloads(file);
  expect(cut).toBe(true);
  expect(lines.length).toBe(Math.floor((16 * 1024 ** 2) / (Buffer.byteLength(line) + 1)));
  expect(new Set(lines.map(({ text }) => text))).toEqual(new Set([line]));
});

test("P1 lines longer than 64 KiB are left out and counted", async () => {
  const file = await fileOf(`${"x".repeat(65_537)}\n${"y".repeat(65_536)}\n`);
  const { lines, tooLong } = await readPayloads(file);
  expect([lines.length, lines[0]!.text[0], tooLong]).toEqual([1, "y", 1]);
});

test("a missing file, a folder and a file without lines say what is allowed", async () => {
  const allowed = "a text file with a message on each line";
  for (const file of ["/nonexistent/lines.txt", import.meta.dirname]) {
    await expect(readPayloads(file)).rejects.toMatchObject({
      code: "not_found",
      details: { file, allowed },
    });
  }
  for (const [content, found] of [
    ["", "no lines"],
    ["\n \n", "no lines"],
    ["x".repeat(17 * 1024 ** 2), "only lines above 65536 characters"],
  ] as const) {
    const file = await fileOf(content);
    await expect(readPayloads(file)).rejects.toMatchObject({
      code: "option_invalid",
      details: { file, found, allowed },
    });
  }
});
