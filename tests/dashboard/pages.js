// Every page with data: the numbers are the API's, hostile names stay text, actions act, nothing else is asked for.
//
// Arguments: the service's host:port, a folder for the browser's profile, a pool, a proxy that clients failed with.
"use strict";
const assert = require("node:assert/strict");
const fs = require("node:fs");
const { open, until, go, json, run } = require("./browser.js");

const [service, profile, pool, bad] = process.argv.slice(2);
const base = `http://${service}/`;

run(async (closing) => {
  const { context, page, errors, urls } = await open(profile);
  closing(context);

  // The overview: health in words, the pools with the API's numbers, who is bad and why.
  await go(page, base, "", ".tile");
  const overview = await json(base, "api/overview");
  assert.equal(await page.locator(".health p").innerText(), overview.health.text);
  assert.ok(overview.problems.length > 0);
  const said = await page.locator(".problems").innerText();
  for (const problem of overview.problems) assert.ok(said.includes(problem.what) && said.includes(problem.do), problem.what);
  const known = await page.locator(".tile", { hasText: "Known" }).locator("strong").innerText();
  assert.equal(Number(known), overview.counts.known);
  const worst = page.locator(".bad li").first();
  assert.ok((await worst.innerText()).includes(bad), await worst.innerText());
  assert.match(await worst.innerText(), /blocked by the target/);
  await until("the live chart is drawn", () => page.locator(".u-wrap canvas").count());
  await page.locator("summary").click();
  await until("its table has rows", () => page.locator(".chart-table tbody tr").count());
  await page.waitForFunction(() => document.querySelector("#link-state").textContent.includes("Live"));

  // The day: totals, and the chart's numbers in its table, for one pool and for all.
  await go(page, base, `#/pools?${new URLSearchParams({ source: pool, interval: 60 })}`, "#total-requests");
  await page.waitForFunction((name) => document.querySelector("h1").textContent === `Pool ${name}`, pool);
  const date = (await json(base, "api/stats/overview")).date;
  const daily = await json(base, `api/stats/daily?${new URLSearchParams({ source: pool, date })}`);
  assert.ok(daily.total_requests > 0);
  assert.equal(Number(await page.locator("#total-requests").innerText()), daily.total_requests);
  assert.equal(Number(await page.locator("#total-success").innerText()), daily.total_success);
  assert.equal(await page.locator("#success-rate").innerText(), `${daily.success_rate.toFixed(1)}%`);
  await page.locator("figure summary").click();
  for (const interval of [2, 60]) {
    await page.getByLabel("Interval").selectOption(String(interval));
    const slots = await json(base, `api/stats/timeseries?${new URLSearchParams({ source: pool, date, interval, fill: 1 })}`);
    const shown = await until("the table has every slot", async () => {
      const rows = await page.locator(".chart-table tbody tr").evaluateAll((rows) => rows.map((row) => [...row.cells].slice(1).map((cell) => cell.dataset.value)));
      return rows.length === slots.length && rows;
    });
    const wanted = slots.map((slot) => (slot.total_requests ? [String(slot.total_requests), String(slot.success_rate)] : ["", ""]));
    assert.deepEqual(shown, wanted);
    const drawn = await page.evaluate(() => [...document.querySelector("figure.chart").uplot.data.slice(1).map((values) => [...values])]);
    assert.deepEqual(drawn, [slots.map((slot) => slot.total_requests || null), slots.map((slot) => (slot.total_requests ? slot.success_rate : null))]);
  }
  // The tooltip, and zoom by dragging.
  const over = page.locator(".u-over");
  await over.hover({ position: { x: 300, y: 100 } });
  await page.waitForSelector(".tip:not([hidden])");
  const box = await over.boundingBox();
  await page.mouse.move(box.x + 100, box.y + 50);
  await page.mouse.down();
  await page.mouse.move(box.x + 300, box.y + 60, { steps: 5 });
  await page.mouse.up();
  const span = () => page.evaluate(() => { const { min, max } = document.querySelector("figure.chart").uplot.scales.x; return max - min; });
  assert.ok((await span()) < 12 * 3600, "zoomed in");
  // New numbers every ten seconds leave it as it is.
  const zoomed = () => page.evaluate(() => { const { min, max } = document.querySelector("figure.chart").uplot.scales.x; return [min, max]; });
  const chosen = await zoomed();
  await page.evaluate(() => { const figure = document.querySelector("figure.chart"); figure.update(structuredClone(figure.data())); });
  await page.waitForTimeout(100);
  assert.deepEqual(await zoomed(), chosen, "an update leaves the zoom");
  await page.evaluate(() => { globalThis.drawnData = document.querySelector("figure.chart").uplot.data; });
  await page.waitForFunction(() => document.querySelector("figure.chart").uplot.data !== globalThis.drawnData);
  assert.deepEqual(await zoomed(), chosen, "an update by itself does, too");
  await page.getByRole("button", { name: "Part with data" }).click();
  assert.ok((await span()) <= 6 * 3600, "to the part with data");
  await page.getByRole("button", { name: "Whole day" }).click();
  assert.ok((await span()) >= 23 * 3600 - 60, "and out");
  await page.locator(".filters select").first().selectOption("");
  await page.waitForFunction(() => document.querySelector("h1").textContent === "Pools");
  const all = (await json(base, "api/sources")).length;
  await until("a line for every pool", async () => (await page.locator(".legend-item").count()) === all + 1);

  // Proxies: sorted and filtered by the server; one is banned, forgiven, probed and exported.
  await go(page, base, `#/proxies?${new URLSearchParams({ source: pool })}`, "tbody input");
  const first = await json(base, `api/proxies?${new URLSearchParams({ source: pool, sort: "score", order: "desc", limit: 50 })}`);
  assert.equal(await page.locator("tbody tr").count(), first.proxies.length);
  await page.getByRole("button", { name: "Latency" }).click();
  await page.waitForSelector("th[aria-sort=ascending]");
  await page.getByRole("searchbox", { name: "Address" }).fill(new URL(bad).port);
  await until("one is left", async () => (await page.locator("tbody tr").count()) === 1);
  await page.getByLabel(`Choose ${bad}`).check();
  await page.getByRole("button", { name: "Ban here" }).click();
  await page.waitForSelector("tbody .state-banned");
  const bans = (await json(base, "api/bans")).bans;
  assert.deepEqual(bans, [{ proxy: bad, source: pool, until_ms: null }]);
  for (let n = 0; n < 30; n++) {
    const given = await (await fetch(new URL(`get-proxy?source=${encodeURIComponent(pool)}`, base))).json();
    assert.notEqual(given.http, bad);
  }
  await page.getByRole("button", { name: "Forgive" }).click();
  await until("it is forgiven", async () => (await json(base, "api/bans")).bans.length === 0);
  const before = (await json(base, `api/proxy?${new URLSearchParams({ proxy: bad })}`)).last_probed_at_ms;
  await page.getByRole("button", { name: "Probe now" }).click();
  await until("it is probed", async () => (await json(base, `api/proxy?${new URLSearchParams({ proxy: bad })}`)).last_probed_at_ms > before);
  const download = page.waitForEvent("download");
  await page.getByLabel("Export as").selectOption("csv");
  const csv = fs.readFileSync(await (await download).path(), "utf8").split("\r\n");
  assert.ok(csv[0].startsWith("proxy,") && csv.length === 2 && csv[1].includes(bad), csv.join("\n"));

  // One proxy: the explanation's numbers, what happened to it, a line for the shell.
  await page.locator("tbody a.mono").first().click();
  await page.waitForSelector(".verdict ~ .sentences li");
  const told = await json(base, `api/explain?${new URLSearchParams({ source: pool, proxy: bad })}`);
  const sentences = await page.locator(".verdict ~ .sentences li").count();
  assert.equal(sentences, told.text.length - 1);
  assert.ok((await page.locator(".columns").innerText()).includes("blocked by the target"));
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.getByRole("button", { name: "Copy curl line" }).click();
  const line = await until("it is copied", () => page.evaluate(() => navigator.clipboard.readText()));
  assert.equal(line, `curl --proxy '${bad}' http://TARGET/`);

  // Feeds: fetch one now. Its name is markup, and stays text.
  await go(page, base, "#/feeds", "button[aria-label^=Fetch]");
  const feeds = (await json(base, "api/feeds")).feeds;
  const names = await page.locator("tbody td:first-child a").allInnerTexts();
  assert.deepEqual(names, feeds.map((feed) => feed.feed));
  const cells = await page.locator("tbody tr").evaluateAll((rows) => rows.map((row) => [...row.cells].slice(1, 8).map((cell) => cell.firstChild?.textContent ?? "")));
  assert.deepEqual(cells.map((row) => [0, 1, 2, 3, 4].map((at) => Number(row[at]))),
    feeds.map((feed) => [feed.proxies_on_list, feed.rejected_total, feed.new, feed.unique, feed.listed_live]));
  const good = feeds.map((feed) => feed.good_handouts);
  assert.deepEqual(cells.map((row) => Number(row[6])), good);
  assert.ok(good.some((n) => n > 0), "handouts are credited");
  const hostile = feeds.find((feed) => feed.feed.includes("<"));
  await page.getByRole("button", { name: `Fetch ${hostile.feed} now` }).click();
  await until("it is fetched again", async () => (await json(base, "api/feeds")).feeds.find((feed) => feed.feed === hostile.feed).fetched_at_ms > hostile.fetched_at_ms);
  assert.equal(await page.evaluate(() => document.querySelectorAll("main img, main script, main b:not(.log b)").length), 0);

  // The log: filtered by level and text.
  await go(page, base, "#/log", ".log li");
  await page.getByLabel("Text").fill("validation cycle");
  await until("only these lines", async () => {
    const lines = await page.locator(".log li").allInnerTexts();
    return lines.length > 0 && lines.every((line) => line.includes("validation cycle"));
  });
  await page.getByLabel("Level").selectOption("error");
  await page.waitForSelector(".empty:not([hidden])");

  // With the keyboard alone: every control can be reached and has a name.
  for (const hash of ["", "#/pools", "#/proxies", "#/feeds", "#/log"]) {
    await go(page, base, hash, "main .card");
    await page.waitForTimeout(300);
    const nameless = await page.evaluate(() => [...document.querySelectorAll("a[href], button, input, select, textarea")]
      .filter((one) => one.checkVisibility() && !(one.getAttribute("aria-label") || one.labels?.[0]?.textContent || one.textContent.trim()))
      .map((one) => one.outerHTML.slice(0, 120)));
    assert.deepEqual(nameless, []);
    await page.keyboard.press("Tab");
    assert.notEqual(await page.evaluate(() => document.activeElement.tagName), "BODY");
  }
  // From any path, with its files found from there; and on a phone nothing is wider than the screen.
  await page.setViewportSize({ width: 390, height: 800 });
  for (const hash of ["some/where#/", "#/pools", `#/pools?${new URLSearchParams({ source: pool })}`, "#/proxies", "#/feeds", "#/log", `#/proxy?${new URLSearchParams({ proxy: bad })}`]) {
    await go(page, base, hash, "main .card");
    await page.waitForTimeout(500);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${hash} is too wide`);
  }
  assert.equal(await page.evaluate(() => globalThis.wasHacked), undefined);
  assert.ok(urls.length > 50);
  assert.deepEqual(errors, []);
});
