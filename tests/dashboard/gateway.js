// What went through the gateway: the page's numbers are the API's, and the API's are what was sent.
//
// Arguments: the service's host:port, a folder for the browser's profile, a pool, a session in it, requests in the pool,
// requests of these in the session, bytes of all bodies to the target and from it.
"use strict";
const assert = require("node:assert/strict");
const { open, until, go, json, run } = require("./browser.js");

const [service, profile, pool, session, ...numbers] = process.argv.slice(2);
const [sent, sentInSession, upBytes, downBytes] = numbers.map(Number);
const base = `http://${service}/`;

run(async (closing) => {
  const told = await until("the gateway has counted everything", async () => {
    const { pools } = await json(base, "api/pools");
    const { traffic } = pools.find((one) => one.source === pool);
    return traffic.requests === sent && traffic.down_bytes >= downBytes && traffic;
  });
  // Heads are counted, too.
  assert.ok(told.up_bytes >= upBytes && told.up_bytes < upBytes + 2000 * sent, JSON.stringify(told));
  assert.ok(told.down_bytes < downBytes + 2000 * sent, JSON.stringify(told));
  const held = (await json(base, `api/sessions?${new URLSearchParams({ source: pool })}`)).sessions;
  assert.deepEqual(held.map((one) => [one.session, one.traffic.requests]), [[session, sentInSession]]);
  const overview = await json(base, "api/overview");
  assert.equal(overview.gateway.requests, sent, "nothing went through for other pools");
  const day = await until("they are in the statistics", async () => {
    const daily = await json(base, `api/stats/daily?${new URLSearchParams({ source: pool, date: (await json(base, "api/stats/overview")).date })}`);
    return daily.total_requests >= sent && daily;
  });
  assert.deepEqual([day.total_requests, day.total_success], [sent, sent]);

  const { context, page, errors } = await open(profile);
  closing(context);
  await go(page, base, "", ".tile");
  const words = (values) => page.evaluate(async (values) => {
    const { bytes, count } = await import(new URL("dashboard/lib/format.js", location.href.split("#")[0]).href);
    return { counts: values.counts.map((n) => count(n)), bytes: values.bytes.map((n) => bytes(n)) };
  }, values);
  const tile = page.locator(".tile", { hasText: "Gateway" });
  const whole = await words({ counts: [overview.gateway.requests], bytes: [overview.gateway.up_bytes + overview.gateway.down_bytes] });
  assert.equal(await tile.locator("strong").innerText(), whole.counts[0]);
  assert.match(await tile.locator("small").innerText(), new RegExp(`^requests, ${whole.bytes[0].replace(".", "\\.")}, \\d+ open$`));

  await go(page, base, `#/pools?${new URLSearchParams({ source: pool })}`, ".histogram");
  const card = page.locator(".card", { hasText: "Gateway and sessions" });
  const own = await words({ counts: [told.requests], bytes: [told.up_bytes, told.down_bytes] });
  assert.deepEqual((await card.locator("dl.facts dd").allInnerTexts()).slice(0, 3), [own.counts[0], ...own.bytes]);
  const [row] = held;
  const one = await words({ counts: [row.moves, row.traffic.requests], bytes: [row.traffic.up_bytes + row.traffic.down_bytes] });
  const cells = await card.locator("tbody td").allInnerTexts();
  assert.deepEqual([cells[0], cells[1], ...cells.slice(4)], [session, row.proxy, ...one.counts, ...one.bytes]);
  assert.equal(Number(await page.locator("#total-requests").innerText()), sent);
  assert.deepEqual(errors, []);
});
