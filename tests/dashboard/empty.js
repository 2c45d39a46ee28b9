// A service that knows nothing: every page says what to do next.
//
// Arguments: the service's host:port, a folder for the browser's profile.
"use strict";
const assert = require("node:assert/strict");
const { open, until, go, run } = require("./browser.js");

const [service, profile] = process.argv.slice(2);
const base = `http://${service}/`;

run(async (closing) => {
  const { context, page, errors } = await open(profile, { colorScheme: "dark" });
  closing(context);
  const pages = [
    ["", ".health.bad", ["no proxies are known", "[proxy_source_NAME]", "smartproxy import FILE", "/get-proxy?source=default", "First steps"]],
    ["#/pools", "figure", ["Requests", "Every pool", "nothing yet"]],
    ["#/pools?source=default", ".histogram, .empty", ["No live proxies yet", "None was used three times yet", "Nothing was tried yet"]],
    ["#/pools?source=nobody", ".card", ["No such pool", "See all pools"]],
    ["#/proxies", ".empty", ["No proxies yet", "smartproxy import FILE"]],
    ["#/proxies?text=x", ".empty", ["None fits these filters"]],
    ["#/proxy?proxy=http%3A%2F%2F203.0.113.1%3A80", ".notice.bad:not([hidden])", ["is not known"]],
    ["#/feeds", ".card", ["No feeds yet", "[proxy_source_mine]"]],
    ["#/log?level=error", ".empty:not([hidden])", ["Nothing of this kind was logged"]],
    ["#/nonsense", "h1", ["No such page"]],
  ];
  for (const [hash, ready, texts] of pages) {
    await go(page, base, hash, ready);
    const said = () => page.locator("main").innerText();
    for (const text of texts) {
      await until(text, async () => (await said()).includes(text)).catch(async (error) => { throw new Error(`${error.message} in ${hash}: ${await said()}`); });
    }
  }
  assert.deepEqual(errors.filter((text) => !text.includes("404")), []);
});
