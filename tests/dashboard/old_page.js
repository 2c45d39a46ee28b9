// A page as the Python service had it, served from another port: it asks for the sources, a day and its chart, as its
// script did, and shows what the API says.
//
// Arguments: the service's host:port, a folder for the browser's profile, a pool.
"use strict";
const assert = require("node:assert/strict");
const http = require("node:http");
const { open, json, run } = require("./browser.js");

const [service, profile, pool] = process.argv.slice(2);
const base = `http://${service}/`;

const PAGE = `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Proxy Stats</title><link rel="icon" href="data:,"></head><body>
<select id="source-select"></select><input type="date" id="date-select">
<select id="interval-select"><option value="2">2</option><option value="10" selected>10</option><option value="60">60</option></select>
<p id="total-requests"></p><p id="total-success"></p><p id="success-rate"></p><pre id="chart"></pre>
<script>
const API_BASE = "http://${service}";
const sourceSelect = document.getElementById("source-select");
const dateSelect = document.getElementById("date-select");
const intervalSelect = document.getElementById("interval-select");
async function fetchSources() {
  const sources = await (await fetch(API_BASE + "/api/sources")).json();
  sources.forEach((source) => { const option = document.createElement("option"); option.value = source; option.textContent = source; sourceSelect.appendChild(option); });
}
async function updateDashboard() {
  const source = sourceSelect.value, date = dateSelect.value, interval = intervalSelect.value;
  const query = "source=" + encodeURIComponent(source) + "&date=" + date;
  const [daily, series] = await Promise.all([
    fetch(API_BASE + "/api/stats/daily?" + query).then((answer) => answer.json()),
    fetch(API_BASE + "/api/stats/timeseries?" + query + "&interval=" + interval).then((answer) => answer.json()),
  ]);
  document.getElementById("total-requests").textContent = daily.total_requests;
  document.getElementById("total-success").textContent = daily.total_success;
  document.getElementById("success-rate").textContent = daily.success_rate.toFixed(2) + "%";
  document.getElementById("chart").textContent = JSON.stringify({ labels: series.map((item) => item.time), rates: series.map((item) => item.success_rate), counts: series.map((item) => item.total_requests) });
  document.body.dataset.shown = [source, date, interval].join(" ");
}
dateSelect.value = new Date().toISOString().split("T")[0];
[sourceSelect, dateSelect, intervalSelect].forEach((one) => one.addEventListener("change", updateDashboard));
fetchSources().then(updateDashboard);
</script></body></html>`;

run(async (closing) => {
  const server = closing(http.createServer((_, response) => response.writeHead(200, { "Content-Type": "text/html" }).end(PAGE)));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { context, page, errors } = await open(profile);
  closing(context);
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForSelector("body[data-shown]");
  assert.deepEqual(await page.locator("#source-select option").allInnerTexts(), await json(base, "api/sources"));
  // One change after the other: answers that overtake each other would show what was asked for before.
  const date = await page.locator("#date-select").inputValue();
  const isShown = (interval) => page.waitForFunction((shown) => document.body.dataset.shown === shown, `${pool} ${date} ${interval}`);
  await page.locator("#source-select").selectOption(pool);
  await isShown("10");
  for (const interval of ["2", "60"]) {
    await page.locator("#interval-select").selectOption(interval);
    await isShown(interval);
    const daily = await json(base, `api/stats/daily?${new URLSearchParams({ source: pool, date })}`);
    const series = await json(base, `api/stats/timeseries?${new URLSearchParams({ source: pool, date, interval })}`);
    assert.ok(daily.total_requests > 0 && series.length > 0);
    assert.equal(await page.locator("#total-requests").innerText(), String(daily.total_requests));
    assert.equal(await page.locator("#success-rate").innerText(), `${daily.success_rate.toFixed(2)}%`);
    const chart = JSON.parse(await page.locator("#chart").innerText());
    assert.deepEqual(chart, { labels: series.map((slot) => slot.time), rates: series.map((slot) => slot.success_rate), counts: series.map((slot) => slot.total_requests) });
  }
  server.closeAllConnections();
  assert.deepEqual(errors, []);
});
