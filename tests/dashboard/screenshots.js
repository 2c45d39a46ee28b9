// Pictures of the dashboard for the README.
//
// Arguments: the service's host:port, a folder for the browser's profile, the folder for the pictures.
"use strict";
const path = require("node:path");
const { open, go, json } = require("./browser.js");

const [service, profile, folder] = process.argv.slice(2);
const base = `http://${service}/`;

async function main() {
  for (const colorScheme of ["light", "dark"]) {
    const { context, page } = await open(`${profile}-${colorScheme}`, { colorScheme, viewport: { width: 1040, height: 700 } });
    const shot = (name) => page.screenshot({ path: path.join(folder, `${name}.png`) });
    await go(page, base, "", ".bad li");
    await page.waitForTimeout(1500);
    await shot(colorScheme === "dark" ? "overview-dark" : "overview");
    if (colorScheme === "light") {
      const { source } = (await json(base, "api/overview")).pools[0];
      await go(page, base, `#/pools?${new URLSearchParams({ source, interval: 2 })}`, ".histogram");
      await page.waitForTimeout(1000);
      // The part of the day in which something happened.
      await page.evaluate(() => {
        const { uplot } = document.querySelector("figure.chart");
        const used = uplot.data[0].filter((_, at) => uplot.data[1][at] !== null);
        uplot.setScale("x", { min: used[0] - 600, max: used.at(-1) + 600 });
      });
      await page.waitForTimeout(300);
      await shot("pool");
      await go(page, base, `#/proxies?${new URLSearchParams({ source })}`, "tbody input");
      await page.waitForTimeout(500);
      await shot("proxies");
      const bad = (await json(base, "api/overview")).bad_proxies[0];
      await go(page, base, `#/proxy?${new URLSearchParams({ proxy: bad.proxy, source: bad.source })}`, ".sentences li");
      await page.waitForTimeout(500);
      await shot("proxy");
      await go(page, base, "#/feeds", "button[aria-label^=Fetch]");
      await page.waitForTimeout(500);
      await shot("feeds");
    }
    await context.close();
  }
}

main().catch((error) => { console.error(error); process.exit(1); });
