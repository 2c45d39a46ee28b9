// The service, seen from here. All addresses are relative to where this file came from, so any prefix works.

const ROOT = new URL('../../', import.meta.url);
const KEY = `smartproxy-token ${ROOT.pathname}`;
const TIMEOUT_MS = 15_000;

/** What went wrong with a call: `kind` is `login`, `away` (no answer) or `refused` (the service says why). */
export class Trouble extends Error {
  constructor(kind, text, status = 0) {
    super(text);
    this.kind = kind;
    this.status = status;
  }
}

/** The token lives as long as this tab, and is sent in a header alone: addresses end up in logs and histories. */
export const token = {
  get: () => sessionStorage.getItem(KEY) ?? '',
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

function headers(more = {}) {
  return token.get() ? { ...more, Authorization: `Bearer ${token.get()}` } : more;
}

export function address(path, query = {}) {
  const url = new URL(path, ROOT);
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== '') url.searchParams.set(key, value);
  }
  return url;
}

async function call(path, { query, signal, ...options } = {}) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  try {
    response = await fetch(address(path, query), {
      ...options, headers: headers(options.headers), cache: 'no-store', credentials: 'omit',
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Trouble('away', 'The service does not answer.');
  }
  let body = null;
  try {
    body = await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
  }
  if (response.status === 401) {
    document.dispatchEvent(new CustomEvent('login'));
    throw new Trouble('login', body?.error ?? 'A token is required.', 401);
  }
  if (!response.ok) throw new Trouble('refused', body?.error ?? body?.message ?? `Status ${response.status}.`, response.status);
  if (body === null) throw new Trouble('refused', 'The answer is not what this page expects. Does something else answer at this address?');
  return body;
}

export const get = (path, query, signal) => call(path, { query, signal });

export const post = (path, body) =>
  call(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });

/** Reads `api/events` until it ends; calls `on(event, data)`. `fetch` and not `EventSource`, which cannot send a token. */
export async function stream(on, signal) {
  const response = await fetch(address('api/events'), { headers: headers(), cache: 'no-store', credentials: 'omit', signal });
  if (!response.ok) throw new Trouble(response.status === 401 ? 'login' : 'refused', `Status ${response.status}.`, response.status);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      let event = 'message';
      let data = '';
      for (const line of block.split('\n')) {
        if (line.startsWith('event: ')) event = line.slice(7);
        if (line.startsWith('data: ')) data += line.slice(6);
      }
      if (data) on(event, JSON.parse(data));
    }
  }
}
