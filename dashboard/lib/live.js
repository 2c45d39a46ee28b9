// The live connection: ticks every second, and coming back when it was lost.

import { stream } from './api.js';

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15_000;
/** Without a tick for this long the connection is dead, whatever the browser thinks. */
const SILENCE_MS = 10_000;

export const live = new EventTarget();
/** `connecting`, `on`, `lost`. */
export let state = 'connecting';
/** What was measured lately, the latest last. */
export let ticks = [];

let stopper = null;

function become(next) {
  if (next === state) return;
  const before = state;
  state = next;
  live.dispatchEvent(new CustomEvent('state', { detail: { state, before } }));
}

function take(event, data) {
  become('on');
  if (event === 'hello') ticks = data.ticks;
  else if (event === 'tick') ticks = [...ticks, data].slice(-120);
  live.dispatchEvent(new CustomEvent('tick', { detail: ticks.at(-1) }));
}

/** Connects, and connects again for as long as the page is open. */
export async function connect(onLogin) {
  stopper?.abort();
  const own = new AbortController();
  stopper = own;
  let pause = FIRST_PAUSE_MS;
  while (!own.signal.aborted) {
    const attempt = new AbortController();
    own.signal.addEventListener('abort', () => attempt.abort());
    let silence = setTimeout(() => attempt.abort(), SILENCE_MS);
    try {
      await stream((event, data) => {
        clearTimeout(silence);
        silence = setTimeout(() => attempt.abort(), SILENCE_MS);
        pause = FIRST_PAUSE_MS;
        take(event, data);
      }, attempt.signal);
    } catch (error) {
      if (error.kind === 'login') {
        clearTimeout(silence);
        onLogin();
        return;
      }
    }
    clearTimeout(silence);
    if (own.signal.aborted) return;
    become('lost');
    await new Promise((done) => setTimeout(done, pause * (0.8 + 0.4 * Math.random())));
    pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  }
}
