// Every text on every page stands out from what is behind it: contrast AA (WCAG 2.2, 1.4.3), light and dark, computed
// from what Chromium drew with.
//
// Arguments: the service's host:port, a folder for the browser's profile, a pool, a proxy.
"use strict";
const assert = require("node:assert/strict");
const { open, go, run } = require("./browser.js");

const [service, profile, pool, proxy] = process.argv.slice(2);
const base = `http://${service}/`;

/** Runs in the page: the texts whose contrast is too low, and how many were looked at. */
function measure() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  /** Any CSS colour as red, green, blue (0 to 255) and opacity (0 to 1). */
  const parse = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const luminance = ([r, g, b]) => {
    const [R, G, B] = [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * R + 0.7152 * G + 0.0722 * B;
  };
  const ratio = (one, other) => {
    const [a, b] = [luminance(one), luminance(other)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  /** What is behind `element`'s text, with everything that is half transparent mixed in. */
  const background = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), parse("Canvas"));
  };
  const opacity = (element) => { let all = 1; for (let at = element; at; at = at.parentElement) all *= Number(getComputedStyle(at).opacity); return all; };
  const low = [];
  let seen = 0;
  const look = (element, text, colour) => {
    const style = getComputedStyle(element);
    const behind = background(element);
    const front = parse(colour ?? style.color);
    front[3] *= opacity(element);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const found = ratio(over(front, behind), behind);
    seen += 1;
    if (found < (isLarge ? 3 : 4.5)) low.push(`${found.toFixed(2)} "${text.trim().slice(0, 40)}" in ${element.tagName}.${element.className}`);
  };
  const isExempt = (element) => element.closest(":disabled, [aria-hidden=true], .hidden, .legend-item[aria-pressed=false]");
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { parentElement: element, data } = walker.currentNode;
    if (data.trim() && element.checkVisibility() && !["SCRIPT", "STYLE", "NOSCRIPT", "OPTION"].includes(element.tagName) && !isExempt(element)) look(element, data);
  }
  for (const field of document.querySelectorAll("input:not([type=checkbox]), select, textarea")) {
    if (!field.checkVisibility() || isExempt(field)) continue;
    look(field, field.value || "a value");
    if (field.placeholder) look(field, field.placeholder, getComputedStyle(field, "::placeholder").color);
  }
  return { low, seen };
}

run(async (closing) => {
  const faults = [];
  for (const colorScheme of ["light", "dark"]) {
    const { context, page } = await open(`${profile}-${colorScheme}`, { colorScheme });
    closing(context);
    await go(page, base, "", ".tile");
    // The measure itself: black on white, and grey on grey.
    const known = await page.evaluate(`(() => {
      const box = document.createElement("div");
      box.id = "known";
      box.style.cssText = "background:#fff";
      box.innerHTML = "";
      for (const [text, colour] of [["black", "#000"], ["grey", "#999"], ["half", "rgb(0 0 0 / 50%)"]]) {
        const one = document.createElement("p"); one.textContent = text; one.style.color = colour; box.append(one);
      }
      document.body.append(box);
      const found = (${measure})().low.filter((line) => /"(black|grey|half)"/.test(line));
      box.remove();
      return found;
    })()`);
    assert.deepEqual(known.map((line) => line.slice(0, 11)), ["2.85 \"grey\"", "4.00 \"half\""], known.join("\n"));
    const source = encodeURIComponent(pool);
    for (const [hash, ready] of [
      ["", ".bad li"], ["#/pools", ".chart"], [`#/pools?source=${source}`, ".histogram"], [`#/proxies?source=${source}`, "tbody input"],
      [`#/proxy?source=${source}&proxy=${encodeURIComponent(proxy)}`, ".sentences li"], ["#/feeds", "button[aria-label^=Fetch]"], ["#/log", ".log li"], ["#/nowhere", "h1"],
    ]) {
      await go(page, base, hash, ready);
      await page.waitForTimeout(500);
      await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
      await page.waitForTimeout(200);
      const { low, seen } = await page.evaluate(measure);
      assert.ok(seen > 10, `${hash}: ${seen} texts`);
      faults.push(...low.map((one) => `${colorScheme} ${hash}: ${one}`));
    }
    // A tooltip, a message, a notice.
    await go(page, base, `#/pools?source=${source}`, ".u-over");
    await page.locator(".u-over").hover({ position: { x: 300, y: 100 } });
    await page.waitForSelector(".tip:not([hidden])");
    faults.push(...(await page.evaluate(measure)).low.map((one) => `${colorScheme}, a tooltip: ${one}`));
    await page.evaluate(async () => {
      const { toast, h } = await import("./dashboard/lib/dom.js");
      toast("All is well."); toast("It is not.", "bad");
      document.querySelector("main").append(...["bad", "warn", ""].map((kind) => h("p.notice", { class: kind }, `a ${kind} notice`)));
    });
    faults.push(...(await page.evaluate(measure)).low.map((one) => `${colorScheme}, messages: ${one}`));
    await context.close();
  }
  assert.deepEqual(faults, []);
});
