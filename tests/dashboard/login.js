// A service with tokens: the page asks for one, keeps it out of addresses, and forgets it with the tab.
//
// Arguments: the service's host:port, a folder for the browser's profile, the token, the admin token.
"use strict";
const assert = require("node:assert/strict");
const { open, until, go, run } = require("./browser.js");

const [service, profile, user, admin] = process.argv.slice(2);
const base = `http://${service}/`;

run(async (closing) => {
  const { context, page, errors, urls } = await open(profile, { expected: ["401"] });
  closing(context);
  const logIn = async (token) => {
    await page.getByLabel("Token").fill(token);
    await page.getByRole("button", { name: "Log in" }).click();
  };
  await go(page, base, "#/feeds", ".login");
  assert.equal(await page.evaluate(() => document.activeElement.type), "password");
  await logIn("wrong");
  await until("it says so", async () => (await page.locator(".problem").innerText()).includes("not a token"));
  await logIn(user);
  await page.waitForSelector("tbody tr");
  await page.waitForFunction(() => document.querySelector("#link-state").textContent.includes("Live"));
  await page.getByRole("button", { name: /Fetch .* now/ }).first().click();
  await page.waitForSelector(".login");
  await logIn(admin);
  await page.waitForSelector("tbody tr");
  await page.getByRole("button", { name: /Fetch .* now/ }).first().click();
  await page.waitForSelector(".toast:not(.bad)");
  await page.reload();
  await page.waitForSelector("tbody tr");
  const stored = await page.evaluate(() => [Object.keys(localStorage).length, document.cookie, sessionStorage.length]);
  assert.deepEqual(stored, [0, "", 1]);
  assert.ok(urls.every((url) => !url.includes(user) && !url.includes(admin)));
  const tab = await context.newPage();
  await tab.goto(base);
  await tab.waitForSelector(".login");
  await page.getByRole("button", { name: "Log out" }).click();
  await page.waitForSelector(".login");
  assert.deepEqual(errors, []);
});
