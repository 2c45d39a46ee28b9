// What probes found: in the list, in its filters, and in words on the page of one proxy.
//
// Arguments: the service's host:port, a folder for the browser's profile, a proxy that injects, one that comes out
// elsewhere, in a network whose name would be markup.
"use strict";
const assert = require("node:assert/strict");
const { open, until, go, run } = require("./browser.js");

const [service, profile, injects, elsewhere] = process.argv.slice(2);
const base = `http://${service}/`;

run(async (closing) => {
  const { context, page, errors } = await open(profile);
  closing(context);
  const said = () => page.locator("main").innerText();
  const says = async (...texts) => {
    for (const text of texts) {
      await until(text, async () => (await said()).includes(text)).catch(async (error) => { throw new Error(`${error.message}: ${await said()}`); });
    }
  };
  const row = (proxy) => page.locator("tbody tr", { hasText: proxy });
  const filter = (name) => page.locator("form.filters label", { hasText: new RegExp(`^${name}`) }).locator("select");
  const rows = () => page.locator("tbody tr").count();

  await go(page, base, "#/proxies", "tbody tr a.mono");
  await until("all rows", async () => (await rows()) === 3);
  const first = await row(injects).innerText();
  for (const text of ["injects", "quarantine", "plain"]) assert.ok(first.includes(text), `${text}: ${first}`);
  const second = await row(elsewhere).innerText();
  for (const text of ["203.0.113.77", "AS64500 <img src=x onerror=wasHacked=1>", "TLS", "US"]) assert.ok(second.includes(text), `${text}: ${second}`);

  await filter("Label").selectOption("injects");
  await until("one row", async () => (await rows()) === 1 && (await row(injects).count()) === 1);
  await filter("Label").selectOption("");
  await filter("Can").selectOption("tls");
  await until("the other row", async () => (await rows()) === 1 && (await row(elsewhere).count()) === 1);
  await filter("Can").selectOption("");
  await filter("State").selectOption("quarantine");
  await until("the quarantined row", async () => (await rows()) === 1 && (await row(injects).count()) === 1);

  await go(page, base, `#/proxy?${new URLSearchParams({ proxy: injects })}`, ".verdict");
  await says("In quarantine in default", "What is wrong with it", "It changes pages: puts something in, or leaves something out.",
    "What it can do", "It forwards plain HTTP.", "It opens no tunnels to port 443.", "In quarantine: injects.");
  await go(page, base, `#/proxy?${new URLSearchParams({ proxy: elsewhere })}`, ".verdict");
  await says("203.0.113.77", "AS64500 <img src=x onerror=wasHacked=1>", "It carries TLS", "Carries https\nyes");
  assert.ok(!(await said()).includes("What is wrong with it"));

  await go(page, base, "", ".funnel");
  await says("In quarantine");
  assert.equal(await page.evaluate(() => globalThis.wasHacked), undefined);
  assert.deepEqual(errors, []);
});
