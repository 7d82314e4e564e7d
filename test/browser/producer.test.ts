/** The client in a real browser: the example's page sends, and is held back while there is no credit. */
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { chromium } from "playwright-core";
import type { Page } from "playwright-core";
import { expect, onTestFinished, test } from "vitest";
import { openBrowserExample } from "../../examples/browser-producer/serve.ts";

const executablePath = "/usr/bin/chromium";
const noChromium = !existsSync(executablePath); // The totals name it.

const args = [
  ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []),
  "--disable-dev-shm-usage",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", // Nothing leaves the machine.
];

interface Opened {
  readonly page: Page;
  /** Errors of the page and of its console. */
  readonly faults: string[];
}

async function openPage(url: string): Promise<Opened> {
  const browser = await chromium.launch({ executablePath, args });
  onTestFinished(() => browser.close());
  const page = await browser.newPage({ viewport: { width: 900, height: 760 } });
  const faults: string[] = [];
  page.on("pageerror", (error) => void faults.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") faults.push(message.text());
  });
  await page.goto(url);
  return { page, faults };
}

/** Resolves when an element has the text. */
function shows(page: Page, selector: string, text: RegExp): Promise<void> {
  return page.locator(selector, { hasText: text }).waitFor();
}

test.skipIf(noChromium)(
  "G1, G3 a page sends on live credit, is told when it is held back, and gets every receipt",
  async () => {
    await using example = await openBrowserExample();
    const { page, faults } = await openPage(example.url);
    await shows(page, "#state", /^free to send$/);
    await page.click("#one");
    await shows(page, "#accepted", /^1$/);
    expect(await page.textContent("#events")).toContain("accepted as clicks/0/1 (fsync)");

    await page.click("#many");
    await shows(page, "#state", /^held back$/);
    expect(example.server.spillway.flow("clicks").state().depth).toBeLessThanOrEqual(200);
    if (process.env["SPILLWAY_SCREENSHOT"] !== undefined) {
      await shows(page, "#accepted", /^[4-9]\d\d$/);
      await page.screenshot({ path: process.env["SPILLWAY_SCREENSHOT"] });
    }
    await shows(page, "#accepted", /^1,001$/);
    await shows(page, "#state", /^free to send$/);
    const { counters } = example.server.spillway.flow("clicks").state();
    expect(counters.accepted).toBe(1001);
    expect(await page.textContent("#refused")).toBe("0");
    expect(faults).toEqual([]);
  },
  60_000,
);

test.skipIf(noChromium)(
  "S3 a page of another origin is not let in",
  async () => {
    await using example = await openBrowserExample();
    const other = createServer((_request, response) => void response.end("<title>other</title>"));
    onTestFinished(() => {
      other.closeAllConnections();
      other.close();
    });
    other.listen(0, "127.0.0.1");
    await once(other, "listening");
    const { page } = await openPage(`http://127.0.0.1:${(other.address() as AddressInfo).port}`);
    const address = JSON.stringify(`${example.server.url.replace("http", "ws")}/v1/connect`);
    const outcome = await page.evaluate(
      `new Promise((resolve) => {
        const socket = new WebSocket(${address}, "spillway.v1");
        socket.onopen = () => resolve("open");
        socket.onerror = () => resolve("refused");
      })`,
    );
    expect(outcome).toBe("refused");
  },
  60_000,
);
