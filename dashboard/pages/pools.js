// The day of one pool or of all, and what a pool has learned.

import { get } from '../lib/api.js';
import { histogram, timeChart } from '../lib/charts.js';
import { field, fill, h, meter, refill, section, select, table } from '../lib/dom.js';
import { bytes, count, dayIn, duration, milliseconds, percent, rate, score } from '../lib/format.js';
import { introduce, proxyLink, scoreClass, tier, tierHint, when } from '../lib/words.js';
import { ladder } from './overview.js';

const INTERVALS = [2, 5, 10, 30, 60];
const EVERY_MS = 10_000;
const TIERS = ['proven', 'live', 'unproven', 'last_resort'];
const MOST_LINES = 30;
const SESSIONS = 20;

export function show(root, params, { signal, poll }) {
  const chosen = {
    source: params.get('source') ?? '',
    date: /^\d{4}-\d\d-\d\d$/.test(params.get('date') ?? '') ? params.get('date') : '',
    interval: INTERVALS.includes(Number(params.get('interval'))) ? Number(params.get('interval')) : 10,
  };
  const filters = h('div.filters');
  const totals = h('div.tiles');
  const day = h('div');
  const detail = h('div');
  const title = h('h1', {}, 'Pools');
  fill(root, title, filters, totals, day, detail);
  let chart = null;
  let shape = '';
  let again = () => {};
  signal.addEventListener('abort', () => chart?.release());

  function choose(change) {
    Object.assign(chosen, change);
    history.replaceState(null, '', `#/pools?${new URLSearchParams(Object.entries(chosen).filter(([, value]) => value))}`);
    again();
  }

  let drawn = '';
  function drawFilters(sources, today) {
    const wanted = JSON.stringify([sources, chosen, today]);
    if (wanted === drawn) return;
    drawn = wanted;
    const move = (days) => choose({ date: new Date(Date.parse(`${chosen.date || today}T00:00:00Z`) + days * 86_400_000).toISOString().slice(0, 10) });
    refill(filters,
      field('Pool', select([['', 'all pools'], ...sources], chosen.source, (source) => choose({ source }))),
      h('div.field', {}, h('span', {}, 'Day'), h('span.joined', {},
        h('button', { type: 'button', 'aria-label': 'The day before', onclick: () => move(-1) }, '‹'),
        h('input', { type: 'date', 'aria-label': 'Day', value: chosen.date || today, max: today, onchange: (event) => choose({ date: event.target.value }) }),
        h('button', { type: 'button', 'aria-label': 'The day after', disabled: (chosen.date || today) >= today, onclick: () => move(1) }, '›'))),
      field('Interval', select(INTERVALS.map((n) => [n, `${n} min`]), chosen.interval, (interval) => choose({ interval: Number(interval) }))));
  }

  function drawTotals(rows) {
    const total = rows.reduce((sum, row) => sum + row.daily.total_requests, 0);
    const success = rows.reduce((sum, row) => sum + row.daily.total_success, 0);
    const share = rows.length === 1 ? rows[0].daily.success_rate : total ? Math.round((10_000 * success) / total) / 100 : 0;
    const tile = (label, value, id) => h('div.tile', {}, h('span', {}, label), h('strong', { id }, value));
    refill(totals, tile('Requests', count(total), 'total-requests'), tile('Successes', count(success), 'total-success'),
      tile('Success rate', total ? percent(share) : '–', 'success-rate'));
  }

  function drawDay(stats, rows) {
    const isOne = rows.length === 1;
    const lines = rows.slice(0, MOST_LINES);
    const nextShape = JSON.stringify([lines.map((row) => row.source), chosen.date, chosen.interval]);
    if (nextShape !== shape) {
      shape = nextShape;
      const wasOpen = chart?.querySelector('details').open ?? false;
      chart?.release();
      const rateSeries = lines.map((row, at) => ({ label: isOne ? 'success rate' : row.source, scale: 'percent', format: percent, hue: at }));
      chart = timeChart({
        title: isOne ? `Success rate and requests of ${rows[0].source}` : 'Success rate of every pool, and requests of all', height: 320,
        series: [{ label: 'requests', scale: 'count', bars: true, format: count }, ...rateSeries],
        scales: { percent: { range: () => [0, 100], format: (n) => `${n}%` }, count: { range: (_, __, most) => [0, Math.max(4, (most ?? 0) * 1.6)], format: count } },
      });
      chart.querySelector('details').open = wasOpen;
      const zoom = [['Part with data', () => chart.zoomToData()], ['Whole day', () => chart.resetZoom()]].map(([words, onclick]) => h('button', { type: 'button', onclick }, words));
      fill(day, section('Success and requests over the day', { aside: h('span.joined', {}, 'drag to zoom, or:', zoom) }, chart,
        rows.length > lines.length && h('p.muted', {}, `The first ${MOST_LINES} of ${count(rows.length)} pools.`)));
    }
    const slots = rows[0]?.timeseries ?? [];
    const times = slots.map((_, at) => stats.day_start_ms / 1000 + at * chosen.interval * 60);
    const requests = slots.map((_, at) => rows.reduce((sum, row) => sum + row.timeseries[at].total_requests, 0) || null);
    chart.update([times, requests, ...lines.map((row) => row.timeseries.map((slot) => (slot.total_requests ? slot.success_rate : null)))]);
  }

  async function load() {
    const asked = JSON.stringify(chosen);
    const [stats, pools] = await Promise.all([
      get('api/stats/overview', { date: chosen.date, interval: chosen.interval }, signal),
      get('api/pools', { limit: 500 }, signal),
    ]);
    if (asked !== JSON.stringify(chosen)) { await load(); return; }
    const rows = stats.sources.filter((row) => !chosen.source || row.source === chosen.source);
    const today = dayIn(stats.zone);
    const pool = pools.pools.find((row) => row.source === chosen.source);
    fill(title, chosen.source ? `Pool ${chosen.source}` : 'Pools');
    drawFilters(stats.sources.map((row) => row.source), today);
    if (!rows.length) {
      fill(totals);
      chart?.release();
      shape = '';
      fill(day, section('No such pool', {}, h('p', {}, 'No pool of this name is configured or has statistics. ', h('a', { href: '#/pools' }, 'See all pools.'))));
      fill(detail);
      return;
    }
    drawTotals(rows);
    drawDay(stats, rows);
    if (pool) {
      const [more, sessions] = await Promise.all([
        get('api/pool', { source: pool.source }, signal),
        get('api/sessions', { source: pool.source, limit: SESSIONS }, signal),
      ]);
      drawDetail(detail, pool, more, sessions);
    }
    else refill(detail, chosen.source
      ? h('p.muted', {}, 'This pool is not configured any more; only its statistics are left.')
      : section('Every pool', {}, table([
        { title: 'Pool', class: 'name', cell: (row) => h('a', { href: `#/pools?${new URLSearchParams({ source: row.source })}` }, row.source) },
        { title: 'Strategy', cell: (row) => row.strategy },
        { title: 'Requests', number: true, cell: (row) => count(rows.find((one) => one.source === row.source)?.daily.total_requests) },
        { title: 'Success rate', number: true, cell: (row) => { const daily = rows.find((one) => one.source === row.source)?.daily; return daily?.total_requests ? percent(daily.success_rate) : '–'; } },
        { title: 'Ready', number: true, cell: (row) => count(row.ready) },
        { title: 'Cooling', number: true, cell: (row) => count(row.cooling) },
        { title: 'Resting', number: true, cell: (row) => count(row.resting) },
        { title: 'Handed out from', cell: (row) => ladder(row.handouts_by_tier) },
      ], pools.pools, { caption: 'Every pool', cards: true })));
  }
  again = () => load().catch((error) => { if (!signal.aborted) poll(load); });
  poll(load, EVERY_MS);
  get('api/overview', {}, signal).then(introduce).catch(() => {});
}

function drawDetail(element, pool, detail, sessions) {
  const live = detail.scores.reduce((sum, n) => sum + n, 0);
  const used = TIERS.reduce((sum, name) => sum + (detail.tiers[name] ?? 0), 0);
  const shares = (rows, caption, empty) => table([
    { title: 'Proxy', cell: (row) => proxyLink(row.proxy, row.source) },
    { title: 'Score', number: true, cell: (row) => h('span', { class: scoreClass(row.score) }, score(row.score)) },
    { title: 'Stands', cell: (row) => tier(row.tier) },
    { title: 'Worked', number: true, cell: (row) => count(row.successes) },
    { title: 'Failed', number: true, cell: (row) => count(row.failures) },
  ], rows, { caption, empty });
  refill(element,
    h('div.columns', {},
      section('Scores', { aside: `${count(live)} live proxies, from 0 on the left to 100` },
        live ? [histogram('Live proxies by score', detail.scores.map((n, at) => [`${at * 5} to ${at * 5 + 5}`, n])), h('div.scale', { 'aria-hidden': 'true' }, ['0', '25', '50', '75', '100'].map((n) => h('span', {}, n)))]
          : h('p.empty', {}, 'No live proxies yet.')),
      section('Ladder', { aside: 'handouts come from the highest rung that has somebody' },
        h('dl.funnel', {}, TIERS.map((name) => h('div', {}, h('dt', {}, tier(name), h('small', {}, tierHint(name))),
          h('dd', {}, h('span.funnel-number', {}, count(detail.tiers[name] ?? 0)), meter(used ? (detail.tiers[name] ?? 0) / used : 0, `tier-${name}`))))),
        h('p.muted', {}, `${count(pool.ready)} ready, ${count(pool.cooling)} cooling after use, ${count(pool.resting)} resting after failures${detail.banned ? `, ${count(detail.banned)} banned by hand` : ''}. `,
          h('a', { href: `#/proxies?${new URLSearchParams({ source: pool.source, sort: 'score', order: 'desc' })}` }, 'See them all.')))),
    h('div.columns', {},
      section('Best', { aside: 'of those used at least three times' }, shares(detail.best, 'Best proxies', 'None was used three times yet.')),
      section('Worst', { aside: 'click one to see why' }, shares(detail.worst, 'Worst proxies', 'None was used three times yet.'))),
    drawPace(pool, detail.pace), drawGateway(pool, sessions));
}

/** What went through the gateway, and who holds on to a proxy. */
function drawGateway(pool, { sessions, next }) {
  const { requests, up_bytes: up, down_bytes: down, busy_ms: busy } = pool.traffic;
  const fact = (label, value) => h('div', {}, h('dt', {}, label), h('dd', {}, value));
  return section('Gateway and sessions', { aside: 'since the start' },
    requests > 0
      ? h('dl.facts', {}, fact('Requests and tunnels', count(requests)), fact('Sent', bytes(up)), fact('Received', bytes(down)), fact('Mean time open', milliseconds(busy / requests)))
      : h('p.muted', {}, 'Nothing went through the gateway for this pool.'),
    sessions.length > 0 && table([
      { title: 'Session', class: 'name', cell: (row) => h('span.mono', {}, row.session) },
      { title: 'Proxy', cell: (row) => proxyLink(row.proxy, pool.source) },
      { title: 'Since', cell: (row) => when(row.since_ms) },
      { title: 'Ends unless used', cell: (row) => `in ${duration(row.expires_in_s)}` },
      { title: 'Moves', number: true, cell: (row) => count(row.moves) },
      { title: 'Requests', number: true, cell: (row) => count(row.traffic.requests) },
      { title: 'Bytes', number: true, cell: (row) => bytes(row.traffic.up_bytes + row.traffic.down_bytes) },
    ], sessions, { caption: 'Sessions' }),
    next && h('p.muted', {}, `The first ${SESSIONS} of ${count(pool.sessions)} sessions.`),
    !sessions.length && h('p.muted', {}, 'Nobody holds a session: a caller that names one (session=KEY) keeps its proxy while it works.'));
}

function drawPace(pool, pace) {
  if (pool.strategy !== 'adaptive') {
    return section('How this pool chooses', {}, h('p', {}, `By the strategy "${pool.strategy}", set in the configuration: it learns no pacing.`));
  }
  if (pool.proxy_cooldown_ms !== null) {
    return section('Pacing', {}, h('p', {}, `Between two uses of a proxy ${milliseconds(pool.proxy_cooldown_ms)} are set by hand (proxy_cooldown_ms).`));
  }
  const target = pool.target_down >= 0.05 ? ` The target itself seems to be down (${percent(100 * pool.target_down)} sure): failures are held against proxies the less.` : '';
  return section('Learned pacing', { aside: 'how soon a proxy may be used again here' },
    h('p', {}, `A proxy begins with one use in ${between(pace.start_per_second)}, and is used more often, step by step, as long as that leads to no bans. A newcomer works with ${percent(100 * pool.newcomer_mean)}.${target}`),
    h('div.narrow', {}, table([
      { title: 'One use in', number: true, cell: (row) => between(row.per_second) },
      { title: 'Kept it up', number: true, cell: (row) => rate(row.passed) },
      { title: 'Banned', number: true, cell: (row) => rate(row.banned) },
      { title: 'Expected to be banned by then', cell: (row) => h('span.with-meter', {}, meter(row.hazard, row.hazard >= 0.3 ? 'poor' : row.hazard >= 0.1 ? 'fair' : 'good'), h('span', {}, percent(100 * row.hazard))) },
    ], pace.steps, { caption: 'Steps of use', empty: 'Nothing was tried yet.' })));
}

/** The time between two uses. */
const between = (perSecond) => (perSecond >= 5 ? milliseconds(1000 / perSecond) : perSecond >= 0.1 ? `${rate(1 / perSecond)} s` : duration(1 / perSecond));

