// The demo page in a headless browser: join, send, see it on a second page, read history on a third.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join as path } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { onOneAndThree } from "./lib/suite.mjs";

const PAGE_MS = 10_000;
const shots = process.env.STARLING_SCREENSHOTS ?? path(process.cwd(), "screenshots");

let browser;
before(async () => {
  if (!process.env.CHROMIUM) throw new Error("set CHROMIUM to a Chromium binary (on Debian: /usr/bin/chromium)");
  // Chromium's own sandbox does not start for root, which is what test machines run as.
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
});
after(() => browser?.close());

/** A page in a browser profile of its own; every complaint of the page's console is kept. */
async function visit(url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 900, height: 700 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PAGE_MS);
  const complaints = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  await page.goto(url);
  return { page, context, complaints };
}

async function enter(page, name, room) {
  await page.fill("#name", name);
  await page.fill("#room", room);
  await page.click("#join");
  await page.waitForSelector('#state[data-state="live"]');
}

async function say(page, text) {
  await page.fill("#text", text);
  await page.click("#send");
  await page.waitForSelector(`#messages li[data-id]:not(.pending) :text-is("${text}")`);
}

const said = (page) => page.locator("#messages li[data-id] .said").allInnerTexts();

onOneAndThree("the demo page", (nodes, size) => {
  test("people on different nodes talk, and a newcomer reads what was said", async () => {
    const room = `lobby-${size}`;
    const [first, last] = [nodes()[0].url, nodes().at(-1).url];
    const ann = await visit(`${first}/`);
    const ben = await visit(`${last}/`);
    await enter(ann.page, "Ann", room);
    await enter(ben.page, "Ben", room);
    await say(ann.page, "Hello from Ann");
    await ben.page.waitForSelector('#messages :text-is("Hello from Ann")');
    await say(ben.page, "Hello from Ben <b>&amp;</b>");
    await ann.page.waitForSelector('#messages :text-is("Hello from Ben <b>&amp;</b>")');
    const expected = ["Hello from Ann", "Hello from Ben <b>&amp;</b>"];
    assert.deepEqual(await said(ann.page), expected);
    assert.deepEqual(await said(ben.page), expected);

    const late = await visit(`${last}/?room=${room}`, { colorScheme: "dark" });
    await enter(late.page, "Cleo", room);
    assert.deepEqual(await said(late.page), expected, "the newcomer sees the history, once and in order");
    assert.match(await late.page.innerText("#position"), /offset/);

    mkdirSync(shots, { recursive: true });
    await ann.page.screenshot({ path: path(shots, `demo-${size}-light.png`) });
    await late.page.screenshot({ path: path(shots, `demo-${size}-dark.png`) });
    for (const visitor of [ann, ben, late]) {
      assert.deepEqual(visitor.complaints, [], "the page complained");
      await visitor.context.close();
    }
  });

  test("a page whose connection breaks comes back and misses nothing", async () => {
    const room = `broken-${size}`;
    const ann = await visit(`${nodes()[0].url}/`);
    const ben = await visit(`${nodes().at(-1).url}/`);
    await enter(ann.page, "Ann", room);
    await enter(ben.page, "Ben", room);
    await say(ann.page, "before");
    await ben.context.setOffline(true);
    await ben.page.waitForSelector('#state:not([data-state="live"])', { timeout: 60_000 });
    await say(ann.page, "meanwhile");
    await ben.context.setOffline(false);
    await ben.page.waitForSelector('#messages :text-is("meanwhile")', { timeout: 20_000 });
    await say(ann.page, "after");
    await ben.page.waitForSelector('#messages :text-is("after")');
    assert.deepEqual(await said(ben.page), ["before", "meanwhile", "after"]);
    await ann.context.close();
    await ben.context.close();
  });

  test("the page works from the keyboard alone and names its controls", async () => {
    const { page, context } = await visit(`${nodes()[0].url}/?room=keys-${size}`);
    await page.focus("#name");
    await page.keyboard.type("Kim");
    await page.keyboard.press("Enter");
    await page.waitForSelector('#state[data-state="live"]');
    await page.focus("#text");
    await page.keyboard.type("typed");
    await page.keyboard.press("Enter");
    await page.waitForSelector('#messages li[data-id]:not(.pending) :text-is("typed")');
    const unnamed = await page.evaluate(() =>
      [...document.querySelectorAll("input, select, button")]
        .filter((control) => !(control.labels?.length || control.innerText || control.ariaLabel))
        .map((control) => control.id),
    );
    assert.deepEqual(unnamed, []);
    await context.close();
  });
});
