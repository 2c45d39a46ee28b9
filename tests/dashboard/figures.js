// Figures of the dashboard, in Chromium: prints them beside the goals, and judges nothing. For scripts/bench.
//
// Arguments: the service's host:port, a folder for the browser's profile.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const { open, go } = require("./browser.js");

const [service, profile] = process.argv.slice(2);
const base = `http://${service}/`;
const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

async function main() {
  const { context, page } = await open(profile);
  const first = [];
  const shown = [];
  for (let n = 0; n < 7; n++) {
    await go(page, base, "", ".tile");
    await page.waitForFunction(() => performance.getEntriesByName("overview-shown").length > 0);
    const times = await page.evaluate(() => [performance.getEntriesByName("first-contentful-paint")[0]?.startTime, performance.getEntriesByName("overview-shown")[0].startTime]);
    if (n > 0) { first.push(times[0]); shown.push(times[1]); }
    await page.goto("about:blank");
  }
  await go(page, base, "", ".tile");
  const folder = path.join(__dirname, "../../dashboard");
  const served = fs.readdirSync(folder, { recursive: true }).filter((name) => /\.(js|css|svg|html)$/.test(name));
  const bytes = served.reduce((sum, name) => sum + fs.statSync(path.join(folder, name)).size, 0);
  const paints = await page.evaluate(async () => {
    const { timeChart } = await import(new URL("dashboard/lib/charts.js", location.href.split("#")[0]).href);
    const times = [];
    for (let round = 0; round < 7; round++) {
      const series = Array.from({ length: 20 }, (_, n) => ({ label: `pool ${n}`, scale: "percent", format: String }));
      const xs = Array.from({ length: 1440 }, (_, n) => 1_700_000_000 + 60 * n);
      const data = [xs, ...series.map((_, s) => xs.map((_, n) => 50 + 40 * Math.sin(n / 90 + s) + (n % 7)))];
      const chart = timeChart({ title: "figures", series, height: 320, scales: { percent: { range: () => [0, 110], format: String } } });
      document.querySelector("main").prepend(chart);
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      const begun = performance.now();
      chart.update(data);
      // The drawing is queued as a microtask; the frame after it is on the screen.
      await new Promise((done) => requestAnimationFrame(() => { const channel = new MessageChannel(); channel.port1.onmessage = done; channel.port2.postMessage(0); }));
      times.push(performance.now() - begun);
      chart.release();
      chart.remove();
    }
    return times;
  });
  const line = (name, value, goal, unit) => console.log(`  ${name}: ${value.toLocaleString("en", { maximumFractionDigits: 0 })} ${unit}${goal ? `, goal ${goal.toLocaleString("en")}${value > goal ? " MISSED" : ""}` : ""}`);
  line("first paint of the overview", median(first), 300, "ms");
  line("the overview with its numbers", median(shown), null, "ms");
  line("20 series of 1,440 points painted", median(paints), 150, "ms");
  line("all assets", bytes, 200_000, "bytes");
  await context.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
