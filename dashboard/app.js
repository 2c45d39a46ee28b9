// The frame: which page is shown, who may see it, and whether the service is there.

import { Trouble, token } from './lib/api.js';
import { fill, h } from './lib/dom.js';
import { connect, live, state } from './lib/live.js';
import * as overview from './pages/overview.js';

const PAGES = {
  '': { name: 'overview', title: 'Overview', load: async () => overview },
  pools: { name: 'pools', title: 'Pools', load: () => import('./pages/pools.js') },
  proxies: { name: 'proxies', title: 'Proxies', load: () => import('./pages/proxies.js') },
  proxy: { name: 'proxies', title: 'Proxy', load: () => import('./pages/proxy.js') },
  feeds: { name: 'feeds', title: 'Feeds', load: () => import('./pages/feeds.js') },
  log: { name: 'log', title: 'Log', load: () => import('./pages/log.js') },
};

const main = document.getElementById('main');
const linkState = document.getElementById('link-state');
let leave = null;
let wantsLogin = false;

function place() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  return { path, params: new URLSearchParams(query) };
}

/** Shows the page that the address names. */
async function show({ focus = false } = {}) {
  const { path, params } = place();
  const page = PAGES[path];
  leave?.abort();
  leave = new AbortController();
  const { signal } = leave;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.dataset.page === page?.name) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = page ? `${page.title} · SmartProxy` : 'SmartProxy';
  if (wantsLogin) { await showLogin(); return; }
  if (!page) {
    fill(main, h('h1', {}, 'No such page'), h('p', {}, h('a', { href: '#/' }, 'Go to the overview.')));
    return;
  }
  try {
    const module = await page.load();
    if (signal.aborted) return;
    const root = h('div.page');
    module.show(root, params, { signal, poll: (work, every) => poll(root, work, every, signal) });
    fill(main, root);
    if (focus) { main.focus({ preventScroll: true }); scrollTo(0, 0); }
  } catch (error) {
    if (!signal.aborted) fill(main, h('h1', {}, page.title), h('p.notice.bad', {}, `This page could not be loaded: ${error.message}`));
  }
}

/** Does `work` now and then, as long as its page is shown; says so when it does not work, and stops saying so. */
async function poll(root, work, every, signal) {
  const notice = h('p.notice.bad', { role: 'alert', hidden: true });
  let wake = () => {};
  live.addEventListener('state', ({ detail }) => { if (detail.state === 'on') wake(); }, { signal });
  document.addEventListener('visibilitychange', () => { if (!document.hidden) wake(); }, { signal });
  signal.addEventListener('abort', () => wake());
  queueMicrotask(() => root.prepend(notice));
  const run = async () => {
    try {
      await work(signal);
      notice.hidden = true;
      root.classList.remove('stale');
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Trouble && error.kind === 'login') return;
      if (!(error instanceof Trouble)) console.warn(error);
      const what = error.kind === 'away' ? 'The service does not answer. What you see is old; this page tries again by itself.' : error.message;
      if (notice.textContent !== what) fill(notice, what);
      notice.hidden = false;
      root.classList.add('stale');
    }
  };
  while (!signal.aborted) {
    await run();
    if (!every) break;
    do {
      await new Promise((done) => { wake = done; setTimeout(done, every); });
    } while (document.hidden && !signal.aborted);
  }
  return run;
}

function askForToken() {
  if (wantsLogin) return;
  wantsLogin = true;
  show();
}

async function showLogin() {
  const { show: showPage } = await import('./pages/login.js');
  showPage(main, () => {
    wantsLogin = false;
    start();
  });
}

function drawState() {
  const words = { connecting: 'Connecting', on: 'Live', lost: 'Connection lost, trying again' }[state];
  linkState.className = `link-state ${state}`;
  fill(linkState, h('span.dot', { 'aria-hidden': 'true' }), words,
    token.get() && h('button.plain', { type: 'button', onclick: () => { token.set(''); location.reload(); } }, 'Log out'));
}

function start() {
  connect(askForToken);
  show();
}

document.addEventListener('login', askForToken);
live.addEventListener('state', drawState);
addEventListener('hashchange', () => show({ focus: true }));
drawState();
start();
