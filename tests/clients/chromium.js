// Chromium, driven by Playwright, through the gateway with a login: a plain page, one over TLS, and a WebSocket.
//
// Arguments: the browser, a folder for its profile, the gateway's host:port, user, token, the target without and with
// TLS. Nothing that it asks for passes by the gateway, and it can look up no name by itself.
"use strict";
const assert = require("node:assert/strict");
const { chromium } = require("playwright-core");
const { WebSocketServer } = require("ws");

const [browser, profile, gateway, username, password, plain, tls] = process.argv.slice(2);

async function visit(page, target) {
  const answer = await page.goto(`${target}/html`);
  assert.equal(answer.status(), 200);
  assert.equal(await page.title(), "Target");
  const echoed = await page.evaluate(async () => {
    const answers = Array.from({ length: 10 }, (_, number) => fetch(`/get?number=${number}`).then((a) => a.json()));
    return (await Promise.all(answers)).map((answer) => answer.args.number);
  });
  assert.deepEqual(echoed, Array.from({ length: 10 }, (_, number) => String(number)));
  const length = await page.evaluate(async () => (await (await fetch("/bytes/3000000")).arrayBuffer()).byteLength);
  assert.equal(length, 3_000_000);
}

async function main() {
  const echo = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  echo.on("connection", (socket) => socket.on("message", (data) => socket.send(`echo ${data}`)));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: browser,
    proxy: { server: `http://${gateway}`, username, password, bypass: "<-loopback>" },
    ignoreHTTPSErrors: true,
    timeout: 60_000,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ],
  });
  try {
    context.setDefaultTimeout(60_000);
    const page = await context.newPage();
    await visit(page, plain);
    const said = await page.evaluate(
      (url) =>
        new Promise((resolve, reject) => {
          const socket = new WebSocket(url);
          socket.onopen = () => socket.send("hello");
          socket.onmessage = (message) => resolve(message.data);
          socket.onerror = () => reject(new Error("the WebSocket failed"));
        }),
      `ws://target.test:${echo.address().port}/`,
    );
    assert.equal(said, "echo hello");
    await visit(page, tls);
  } finally {
    await context.close();
    echo.clients.forEach((socket) => socket.terminate());
    echo.close();
  }
  console.log("ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
