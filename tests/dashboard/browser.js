// What the browser tests share: Chromium, a watch over everything that it says and asks for, and a door to the service
// that can be shut.
"use strict";
const assert = require("node:assert/strict");
const http = require("node:http");
const { chromium } = require("playwright-core");

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  // No name can be looked up: nothing leaves the machine.
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];

// How long one step may take. They end as soon as they can; these are for a machine that does much else: a first start of
// Chromium beside two compilers took half a minute.
const LAUNCH_MS = 120_000;
const STEP_MS = 60_000;

/** A browser with one page. `watch.errors` has everything that should not have happened. */
async function open(profile, { expected = [], ...options } = {}) {
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    timeout: LAUNCH_MS, args: FLAGS, viewport: { width: 1280, height: 860 }, acceptDownloads: true, ...options,
  });
  context.setDefaultTimeout(STEP_MS);
  const errors = [];
  const urls = [];
  const page = context.pages()[0] ?? (await context.newPage());
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`));
  });
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type()) && !expected.some((text) => message.text().includes(text))) errors.push(message.text());
  });
  page.on("pageerror", (error) => errors.push(String(error.stack ?? error)));
  page.on("dialog", (dialog) => { errors.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => {
    urls.push(request.url());
    const { hostname, protocol } = new URL(request.url());
    if (protocol !== "data:" && protocol !== "blob:" && hostname !== "127.0.0.1") errors.push(`asked elsewhere: ${request.url()}`);
  });
  return { context, page, errors, urls };
}

/** Waits until `condition` gives something true, and returns that. */
async function until(what, condition, ms = STEP_MS) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`never came true: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** A door to the service at `host:port`, below `prefix` as behind a reverse proxy; it can be shut and opened again. */
async function door(service, prefix = "") {
  const [host, port] = service.split(":");
  const sockets = new Set();
  const state = { isOpen: true };
  const server = http.createServer((request, response) => {
    if (!request.url.startsWith(prefix)) { response.writeHead(404).end(); return; }
    const path = request.url.slice(prefix.length);
    const onward = http.request({ host, port, method: request.method, path, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  });
  server.on("connection", (socket) => {
    if (!state.isOpen) { socket.destroy(); return; }
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${server.address().port}${prefix}/`,
    shut() { state.isOpen = false; for (const socket of sockets) socket.destroy(); },
    reopen() { state.isOpen = true; },
    close() { this.shut(); server.close(); },
  };
}

/** A page of the dashboard, once it is there. */
async function go(page, base, hash, ready) {
  await page.goto(`${base}${hash}`);
  await page.waitForSelector(ready);
}

async function json(base, path) {
  const answer = await fetch(new URL(path, base));
  assert.equal(answer.status, 200, `${path}: ${answer.status}`);
  return answer.json();
}

/** Runs `test`, closes everything, and says "ok" or what went wrong. */
function run(test) {
  const open = [];
  test((thing) => { open.push(thing); return thing; })
    .then(async () => { for (const one of open.reverse()) await one.close(); console.log("ok"); process.exit(0); })
    .catch(async (error) => { console.error(error); for (const one of open.reverse()) await one.close(); process.exit(1); });
}

module.exports = { open, until, door, go, json, run };
