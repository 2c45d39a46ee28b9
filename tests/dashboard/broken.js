// The service goes away while a page is open, behind a reverse proxy with a path prefix: every page says so, keeps what it
// had, and heals by itself.
//
// Arguments: the service's host:port, a folder for the browser's profile.
"use strict";
const assert = require("node:assert/strict");
const { open, until, door, go, run } = require("./browser.js");

const [service, profile] = process.argv.slice(2);

run(async (closing) => {
  const way = closing(await door(service, "/tools/smartproxy"));
  const { context, page, errors, urls } = await open(profile, { expected: ["ERR_", "Failed to load resource"] });
  closing(context);
  for (const [hash, ready] of [["", ".tile"], ["#/pools", "#total-requests"], ["#/proxies", "tbody input"], ["#/feeds", "tbody tr"], ["#/log", ".log li"]]) {
    await go(page, way.url, hash, ready);
    await page.waitForFunction(() => document.querySelector("#link-state").textContent.includes("Live"));
    const before = await page.locator(ready).count();
    way.shut();
    await page.waitForFunction(() => document.querySelector("#link-state").textContent.includes("Connection lost"));
    await page.waitForSelector("main .notice.bad:not([hidden])");
    assert.match(await page.locator("main .notice.bad").innerText(), /does not answer.*tries again/);
    assert.ok((await page.locator(ready).count()) >= Math.min(1, before), "what was there stays");
    way.reopen();
    await page.waitForFunction(() => document.querySelector("#link-state").textContent.includes("Live"));
    await page.waitForSelector("main .notice.bad", { state: "hidden" });
  }
  // A page that is opened while it is away heals, too.
  await go(page, way.url, "#/feeds", "tbody tr");
  way.shut();
  await page.evaluate(() => { location.hash = "#/"; });
  await page.waitForSelector("main .notice.bad:not([hidden])");
  way.reopen();
  await page.waitForSelector(".tile");
  await until("nothing was asked for beside the prefix", () => urls.every((url) => url.startsWith(way.url) || url.startsWith("data:")));
  assert.deepEqual(errors, []);
});
