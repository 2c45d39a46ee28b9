// The log as it is written.

import { get } from '../lib/api.js';
import { field, fill, h, section, select } from '../lib/dom.js';
import { clockTime, fullTime } from '../lib/format.js';
import { live, ticks } from '../lib/live.js';

const MOST_LINES = 2000;

export function show(root, params, { signal, poll }) {
  let level = ['error', 'warn', 'info', 'debug'].includes(params.get('level')) ? params.get('level') : 'info';
  let text = params.get('text') ?? '';
  let after = 0;
  let follows = true;
  const lines = h('ol.log', { tabindex: '0', 'aria-label': 'Log lines, the latest last' });
  const empty = h('p.empty', { hidden: true });
  let again = () => {};
  const restart = () => {
    after = 0;
    fill(lines);
    history.replaceState(null, '', `#/log?${new URLSearchParams({ level, text })}`);
    again();
  };
  let typing = 0;
  const search = h('input', { type: 'search', value: text, placeholder: 'part of a line', oninput: (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => { text = event.target.value; restart(); }, 250);
  } });
  const follow = h('input', { type: 'checkbox', checked: true, onchange: (event) => { follows = event.target.checked; scroll(); } });
  fill(root, h('h1', {}, 'Log'), section('Last lines', { aside: 'kept in memory: one megabyte; older ones are in the log files' },
    h('div.filters', {},
      field('Level', select([['error', 'errors'], ['warn', 'warnings and worse'], ['info', 'info and worse'], ['debug', 'everything']], level, (value) => { level = value; restart(); })),
      field('Text', search), h('label.check', {}, follow, 'Follow')),
    lines, empty));

  const scroll = () => { if (follows) lines.scrollTop = lines.scrollHeight; };
  let isBusy = false;
  const load = async () => {
    if (isBusy) return;
    isBusy = true;
    try {
      const asked = `${level} ${text}`;
      const page = await get('api/log', { level, text, after: after || undefined, limit: after ? undefined : 500 }, signal);
      if (asked !== `${level} ${text}`) { queueMicrotask(restart); return; }
      // A service that was started again counts from 1 again.
      if (page.last < after) { restart(); return; }
      for (const line of page.lines) {
        lines.append(h('li', { class: line.level }, h('time', { datetime: new Date(line.at_ms).toISOString(), title: fullTime(line.at_ms) }, clockTime(line.at_ms)), h('b', {}, line.level), h('span', {}, line.text)));
      }
      after = Math.max(after, page.last, page.lines.at(-1)?.number ?? 0);
      while (lines.children.length > MOST_LINES) lines.firstChild.remove();
      empty.hidden = lines.children.length > 0;
      fill(empty, text ? 'No line has this text.' : 'Nothing of this kind was logged since the start.');
      if (page.lines.length) scroll();
    } finally {
      isBusy = false;
    }
  };
  again = () => load().catch(() => {});
  live.addEventListener('tick', () => { if ((ticks.at(-1)?.log ?? 0) !== after) again(); }, { signal });
  poll(load, 10_000);
}
