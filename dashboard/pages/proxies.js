// Every proxy, in pages: the server sorts and filters.

import { address, get, post } from '../lib/api.js';
import { download, field, fill, h, refill, section, select, table, toast } from '../lib/dom.js';
import { count, milliseconds, score } from '../lib/format.js';
import { abilityName, abilityNames, canWords, label, labelNames, network, placeState, proxyLink, scoreClass, tier, when } from '../lib/words.js';

const EVERY_MS = 10_000;
const PAGE = 50;
const EXPORT_PAGE = 500;
const MOST_EXPORTED = 100_000;
const AT_ONCE = 1000;
const FILTERS = ['source', 'text', 'liveness', 'state', 'tier', 'protocol', 'country', 'anonymity', 'min_score', 'feed', 'https', 'ability', 'label'];

export function show(root, params, { signal, poll }) {
  const query = Object.fromEntries(FILTERS.filter((key) => params.get(key)).map((key) => [key, params.get(key)]));
  let sort = { key: params.get('sort') || 'score', descending: (params.get('order') || 'desc') === 'desc' };
  let offset = Math.max(0, Number.parseInt(params.get('offset') ?? '0', 10) || 0);
  let page = null;
  const chosen = new Set();
  const filters = h('form.filters', { role: 'search', 'aria-label': 'Filter', onsubmit: (event) => event.preventDefault() });
  const bar = h('div.actions', { role: 'group', 'aria-label': 'Actions' });
  const list = h('div');
  fill(root, h('h1', {}, 'Proxies'), section('All that is known', {}, filters, bar, list));

  const asked = (more = {}) => ({ ...query, sort: sort.key, order: sort.descending ? 'desc' : 'asc', offset, limit: PAGE, ...more });
  async function load() {
    const wanted = asked();
    const next = await get('api/proxies', wanted, signal);
    if (JSON.stringify(wanted) !== JSON.stringify(asked())) return;
    page = next;
    if (offset > 0 && offset >= page.total) { offset = 0; await load(); return; }
    draw();
  }
  function go() {
    const shown = { ...query, sort: sort.key, order: sort.descending ? 'desc' : 'asc', ...(offset ? { offset } : {}) };
    history.replaceState(null, '', `#/proxies?${new URLSearchParams(shown)}`);
    load().catch((error) => { if (!signal.aborted) toast(error.message, 'bad'); });
  }
  function set(key, value) {
    if (value) query[key] = value; else delete query[key];
    offset = 0;
    chosen.clear();
    go();
  }

  const choice = (key, label, options) => field(label, select([['', 'any'], ...options], query[key] ?? '', (value) => set(key, value)));
  const typed = (key, label, attributes) => {
    let typing = 0;
    return field(label, h('input', { type: 'search', value: query[key] ?? '', ...attributes, oninput: (event) => {
      clearTimeout(typing);
      typing = setTimeout(() => set(key, event.target.value.trim()), 300);
    } }));
  };

  async function drawFilters() {
    const [pools, feeds] = await Promise.all([get('api/pools', { limit: 500 }, signal), get('api/feeds', { limit: 500 }, signal)]);
    const byDefault = pools.pools.find((pool) => pool.is_default)?.source ?? '';
    fill(filters,
      field('As seen by pool', select(pools.pools.map((pool) => pool.source), query.source ?? byDefault, (value) => set('source', value))),
      typed('text', 'Address', { placeholder: 'part of it', maxlength: 200 }),
      choice('liveness', 'Probes', [['live', 'live'], ['dead', 'dead'], ['unprobed', 'not probed']]),
      choice('state', 'State', ['ready', 'cooling', 'resting', 'apart', 'banned', 'quarantine']),
      choice('tier', 'Rung', [['proven', 'proven'], ['live', 'live'], ['unproven', 'unproven'], ['last_resort', 'last resort']]),
      choice('protocol', 'Protocol', ['http', 'https', 'socks4', 'socks4a', 'socks5', 'socks5h']),
      choice('anonymity', 'Anonymity', ['elite', 'anonymous', 'transparent']),
      choice('https', 'HTTPS', [['1', 'carries it']]),
      choice('ability', 'Can', abilityNames),
      choice('label', 'Label', labelNames),
      choice('feed', 'Feed', feeds.feeds.map((feed) => feed.feed)),
      typed('country', 'Country', { placeholder: 'US,DE or !CN', maxlength: 60, class: 'short' }),
      typed('min_score', 'Score from', { inputmode: 'decimal', placeholder: '0 to 100', maxlength: 5, class: 'short' }),
      h('button.plain', { type: 'button', onclick: () => { location.hash = '#/proxies'; if (location.hash === '#/proxies') { for (const key of FILTERS) delete query[key]; offset = 0; drawFilters().catch(() => {}); go(); } } }, 'Clear'));
  }

  async function act(path, body, words) {
    const proxies = [...chosen];
    try {
      let done = 0;
      for (let at = 0; at < proxies.length; at += AT_ONCE) done += (await post(path, { proxies: proxies.slice(at, at + AT_ONCE), ...body })).done;
      toast(`${count(done)} of ${count(proxies.length)} ${words}.`);
      await load();
    } catch (error) { toast(error.message, 'bad'); }
  }

  async function exportRows(format) {
    try {
      const rows = [];
      const total = chosen.size ? page.total : Math.min(page.total, MOST_EXPORTED);
      for (let at = 0; at < total && !(chosen.size && rows.length === chosen.size); at += EXPORT_PAGE) {
        const part = await get('api/proxies', asked({ offset: at, limit: EXPORT_PAGE }), signal);
        rows.push(...part.proxies.filter((row) => !chosen.size || chosen.has(row.proxy)));
        if (!part.proxies.length) break;
      }
      if (format === 'txt') download('proxies.txt', rows.map((row) => `${row.proxy}\n`).join(''));
      else if (format === 'json') download('proxies.json', JSON.stringify(rows, null, 1), 'application/json');
      else {
        const keys = Object.keys(rows[0] ?? { proxy: '' });
        // A cell that a spreadsheet would take for a formula is quoted as text.
        const plain = (value) => (Array.isArray(value) ? value.join(' ') : value?.asn ? network(value) : String(value ?? ''));
        const cell = (value) => `"${plain(value).replace(/^([=+@-])/, "'$1").replaceAll('"', '""')}"`;
        download('proxies.csv', [keys.join(','), ...rows.map((row) => keys.map((key) => cell(row[key])).join(','))].join('\r\n'), 'text/csv');
      }
      toast(`${count(rows.length)} exported.`);
    } catch (error) { if (!signal.aborted) toast(error.message, 'bad'); }
  }

  function drawBar() {
    const source = page?.source;
    const n = chosen.size;
    const button = (words, onclick, title) => h('button', { type: 'button', disabled: !n, onclick, title }, words);
    refill(bar,
      h('span.count', {}, n ? `${count(n)} chosen` : `${count(page?.total ?? 0)} found`),
      button('Probe now', () => act('api/actions/probe', {}, 'will be probed within seconds')),
      button('Ban here', () => act('api/actions/ban', { source }, `are banned in ${source}`), 'In this pool, until forgiven'),
      button('Ban everywhere', () => act('api/actions/ban', {}, 'are banned in all pools'), 'In all pools, until forgiven'),
      button('Forgive', () => act('api/actions/forgive', {}, 'are forgiven in all pools'), 'Lift bans and end rests, in all pools'),
      h('span.grow'),
      h('label.joined', {}, h('span', {}, n ? 'Export chosen' : 'Export found'),
        select([['', 'as…'], ['txt', 'text'], ['csv', 'CSV'], ['json', 'JSON']], '', (format) => { if (format) exportRows(format).then(drawBar); }, { 'aria-label': 'Export as' })));
  }

  function draw() {
    const rows = page.proxies;
    const toggle = (proxy, isOn) => { if (isOn) chosen.add(proxy); else chosen.delete(proxy); draw(); };
    const areAll = rows.length > 0 && rows.every((row) => chosen.has(row.proxy));
    const all = h('input', { type: 'checkbox', checked: areAll, 'aria-label': 'Choose all on this page', onchange: (event) => { for (const row of rows) if (event.target.checked) chosen.add(row.proxy); else chosen.delete(row.proxy); draw(); } });
    const onSort = (key) => { sort = { key, descending: sort.key === key ? !sort.descending : key !== 'latency' }; offset = 0; go(); };
    const hasFilters = FILTERS.some((key) => key !== 'source' && query[key]);
    const empty = hasFilters ? 'None fits these filters.' : [h('strong', {}, 'No proxies yet. '), 'They come from ', h('a', { href: '#/feeds' }, 'feeds'), ', or from a list: smartproxy import FILE'];
    drawBar();
    refill(list, table([
      { title: all, cell: (row) => h('input', { type: 'checkbox', checked: chosen.has(row.proxy), 'aria-label': `Choose ${row.proxy}`, onchange: (event) => toggle(row.proxy, event.target.checked) }) },
      { title: 'Proxy', cell: (row) => proxyLink(row.proxy, page.source) },
      { title: 'Score', sort: 'score', number: true, cell: (row) => h('span', { class: scoreClass(row.score) }, score(row.score)) },
      { title: 'Stands', cell: (row) => tier(row.tier) },
      { title: 'State', cell: (row) => placeState(row.state) },
      { title: 'Labels', cell: (row) => (row.labels.length ? row.labels.map((one) => [label(one), ' ']) : h('span.muted', {}, '–')) },
      { title: 'Latency', sort: 'latency', number: true, cell: (row) => milliseconds(row.latency_ms) },
      { title: 'Worked', sort: 'uses', number: true, cell: (row) => count(row.successes) },
      { title: 'Failed', number: true, cell: (row) => count(row.failures) },
      { title: 'Last probe', sort: 'probed', cell: (row) => (row.last_probed_at_ms ? [row.liveness === 'live' ? '✓ ' : '✗ ', when(row.last_probed_at_ms)] : h('span.muted', {}, 'never')) },
      { title: 'Anonymity', cell: (row) => row.anonymity ?? h('span.muted', {}, '–') },
      { title: 'Country', cell: (row) => row.country ?? h('span.muted', {}, '–') },
      { title: 'Can', cell: (row) => (row.abilities.length ? h('span', { title: row.abilities.map(canWords).join('; ') }, row.abilities.map(abilityName).join(', ')) : h('span.muted', {}, '–')) },
      { title: 'Network', cell: (row) => (row.network ? network(row.network) : h('span.muted', {}, '–')) },
      { title: 'Comes out at', cell: (row) => (row.exit ? h('span.mono', {}, row.exit) : h('span.muted', {}, '–')) },
      { title: 'Feed', cell: (row) => row.feed || h('span.muted', {}, 'by hand') },
    ], rows, { caption: 'Proxies', sort, onSort, empty, rowAttributes: (row) => ({ class: chosen.has(row.proxy) ? 'chosen' : undefined }) }),
    h('nav.pager', { 'aria-label': 'Pages of the table' },
      h('button', { type: 'button', disabled: offset === 0, onclick: () => { offset = Math.max(0, offset - PAGE); go(); } }, '‹ Back'),
      h('span', {}, page.total ? `${count(offset + 1)} to ${count(offset + rows.length)} of ${count(page.total)}` : ''),
      h('button', { type: 'button', disabled: offset + PAGE >= page.total || offset + PAGE > MOST_EXPORTED, onclick: () => { offset += PAGE; go(); } }, 'Next ›')));
  }

  drawFilters().catch((error) => { if (!signal.aborted) toast(error.message, 'bad'); });
  poll(load, EVERY_MS);
}

/** A line for the shell that uses the proxy. */
export function curlLine(proxy) {
  const quoted = `'${proxy.replaceAll("'", "'\\''")}'`;
  return `curl --proxy ${quoted} ${address('health').protocol === 'https:' ? 'https' : 'http'}://TARGET/`;
}
