// Pictures of the dashboard for the README and docs/dashboard.md.
//
// Arguments: the service's host:port, a folder for the browser's profile, the folder for the pictures.
"use strict";
const path = require("node:path");
const { open, go, json, until } = require("./browser.js");

const [service, profile, folder] = process.argv.slice(2);
const base = `http://${service}/`;

async function main() {
  const { pools } = await json(base, "api/overview");
  const [{ source }] = pools;
  // Somebody fails now and then: wait for one, because its page is worth a picture.
  const bad = await until("a proxy fails", async () => (await json(base, "api/overview")).bad_proxies[0], 120_000);
  const pages = {
    overview: ["", ".bad li"],
    pool: [`#/pools?${new URLSearchParams({ source, interval: 2 })}`, ".histogram"],
    proxies: [`#/proxies?${new URLSearchParams({ source })}`, "tbody input"],
    proxy: [`#/proxy?${new URLSearchParams({ proxy: bad.proxy, source: bad.source })}`, ".sentences li"],
    feeds: ["#/feeds", "button[aria-label^=Fetch]"],
  };
  for (const [look, names, options] of [
    ["", Object.keys(pages), { colorScheme: "light", viewport: { width: 1240, height: 780 } }],
    ["-dark", ["overview"], { colorScheme: "dark", viewport: { width: 1240, height: 780 } }],
    ["-phone", ["overview"], { colorScheme: "light", viewport: { width: 390, height: 844 } }],
  ]) {
    const { context, page, errors } = await open(`${profile}${look}`, options);
    for (const name of names) {
      const [hash, ready] = pages[name];
      await go(page, base, hash, ready);
      if (name === "pool") await page.getByRole("button", { name: "Part with data" }).click();
      // Charts are drawn in the frame after their numbers have come.
      await page.waitForTimeout(1500);
      await page.screenshot({ path: path.join(folder, `${name}${look}.png`) });
    }
    if (errors.length) throw new Error(errors.join("\n"));
    await context.close();
  }
}

main().catch((error) => { console.error(error); process.exit(1); });
