// Is it healthy, what is wrong and what to do about it, and who is bad.

import { get } from '../lib/api.js';
import { fromZero, timeChart } from '../lib/charts.js';
import { fill, h, meter, refill, section, table } from '../lib/dom.js';
import { bytes, count, percent, rate, relative, score } from '../lib/format.js';
import { live, ticks } from '../lib/live.js';
import { failureList, introduce, placeState, poolLink, probeResult, proxyLink, scoreClass, tier, tierHint, tierName } from '../lib/words.js';

const EVERY_MS = 5000;
const TIERS = ['proven', 'live', 'unproven', 'last_resort'];

export function show(root, _, { signal, poll }) {
  const health = h('div.health', { role: 'status' });
  const problems = h('div');
  const tiles = h('div.tiles');
  const pools = h('div');
  const bad = h('div');
  const funnel = h('div');
  const results = h('div');
  const chart = timeChart({
    title: 'Handouts and reports a second, of the last two minutes', seconds: true, height: 180,
    series: [
      { label: 'handouts/s', scale: 'count', format: rate, hue: 0 },
      { label: 'reports/s', scale: 'count', format: rate, hue: 1 },
      { label: 'of these successes/s', scale: 'count', format: rate, hue: 2 },
    ],
    scales: { count: { range: fromZero, format: count } },
  });
  fill(root, h('h1.hidden', {}, 'Overview'), health, problems, tiles, pools, bad,
    h('div.columns', {}, section('Right now', {}, chart, results), section('From lists to pools', { aside: 'known proxies by what became of them' }, funnel)));

  let latest = null;
  const drawLive = () => {
    const tick = ticks.at(-1);
    if (latest) drawTiles(tiles, latest, tick);
    if (ticks.length > 1) {
      const column = (key) => ticks.map((one) => one[key]);
      chart.update([ticks.map((one) => one.at_ms / 1000), column('handouts_per_s'), column('reports_per_s'), column('successes_per_s')]);
    }
  };
  live.addEventListener('tick', drawLive, { signal });
  signal.addEventListener('abort', () => chart.release());

  poll(async () => {
    const [now, day] = await Promise.all([get('api/overview', {}, signal), get('api/stats/overview', { interval: 60 }, signal).catch(() => null)]);
    introduce(now);
    const days = new Map(day?.sources.map((one) => [one.source, one.daily]));
    latest = { now, days: day && days };
    drawHealth(health, now);
    drawProblems(problems, now);
    drawLive();
    drawPools(pools, now, days, day !== null);
    drawBad(bad, now);
    drawFunnel(funnel, now);
    drawResults(results, now);
    performance.mark('overview-shown');
  }, EVERY_MS);
}

function drawHealth(element, { health, is_validating }) {
  element.className = `health ${health.level}`;
  refill(element, h('span.dot', { 'aria-hidden': 'true' }), h('p', {}, health.text), is_validating && h('span.note', {}, 'probing'));
}

function drawProblems(element, { problems, counts, pools }) {
  const isNew = counts.known === 0 || pools.every((pool) => pool.handouts === 0);
  refill(element,
    problems.length > 0 && h('ul.problems', { 'aria-label': 'What is wrong' }, problems.map((one) => h('li', { class: one.level },
      h('div', {}, h('strong', {}, one.what), one.why && h('span', {}, one.why[0].toUpperCase() + one.why.slice(1))),
      h('p', {}, h('span.label', {}, 'Do'), one.do, one.link && h('a', { href: one.link }, 'Look')),
    ))),
    isNew && firstSteps(counts, pools));
}

/** For somebody who has just started it. */
function firstSteps({ known, live: working }, pools) {
  const pool = pools.find((one) => one.is_default)?.source ?? 'default';
  const base = new URL('..', import.meta.url).href.replace(/dashboard\/$/, '').replace(/\/$/, '');
  const steps = [
    [known > 0, 'Proxies come in', known ? `${count(known)} are known.` : 'The feeds in config.ini are fetched by themselves; or import a list: smartproxy import FILE'],
    [working > 0, 'They are probed', working ? `${count(working)} work now.` : 'Each one is tried against the validation target. The first ones pass within a minute.'],
    [false, 'Ask for one', h('code', {}, `curl '${base}/get-proxy?source=${pool}'`)],
    [false, 'Say how it did', h('code', {}, `curl -X POST ${base}/feedback -d '{"source":"${pool}","proxy":"PROXY","status":200}'`)],
  ];
  return section('First steps', {}, h('ol.steps', {}, steps.map(([isDone, title, text]) =>
    h('li', { class: isDone ? 'done' : undefined }, h('strong', {}, title, isDone && ' ✓'), h('span', {}, text)))));
}

function drawTiles(element, { now, days }, tick) {
  const sum = (rows, key) => rows.reduce((total, row) => total + row[key], 0);
  const lately = now.pools.map((pool) => pool.lately);
  const [success, total] = [sum(lately, 'total_success'), sum(lately, 'total_requests')];
  const today = days ? [...days.values()] : [];
  const [daySuccess, dayTotal] = [sum(today, 'total_success'), sum(today, 'total_requests')];
  const share = (part, whole) => (whole ? percent((100 * part) / whole) : '–');
  const tile = (label, value, note) => h('div.tile', {}, h('span', {}, label), h('strong', {}, value), h('small', {}, note));
  refill(element,
    tile('Success now', share(success, total), `${count(total)} reports in 10 min`),
    tile('Success today', days ? share(daySuccess, dayTotal) : '–', days ? `${count(dayTotal)} reports` : 'statistics not available'),
    tile('Handouts', tick ? `${rate(tick.handouts_per_s)}/s` : '–', `${count(sum(now.pools, 'handouts'))} since the start`),
    tile('Reports', tick ? `${rate(tick.reports_per_s)}/s` : '–', tick ? `${rate(tick.probes_per_s)} probes/s` : ''),
    now.gateway.requests > 0 && tile('Gateway', count(now.gateway.requests), `requests, ${bytes(now.gateway.up_bytes + now.gateway.down_bytes)}, ${count(now.gateway.connections)} open`),
    tile('Active', count(tick?.live ?? now.counts.live), 'proxies that work now'),
    tile('Premium', count(tick?.premium ?? now.counts.premium), 'the best, used often'),
    tile('Known', count(tick?.known ?? now.counts.known), `from ${count(now.counts.feeds)} feeds`),
  );
}

function drawPools(element, { pools }, days, hasDays) {
  const success = (row) => (row?.total_requests
    ? h('span.with-meter', {}, meter(row.success_rate / 100, scoreClass(row.success_rate)), h('span', {}, percent(row.success_rate)))
    : h('span.muted', {}, 'no reports'));
  refill(element, section('Pools', { aside: 'one for each use; each learns for itself which proxies work there' }, table([
    { title: 'Pool', class: 'name', cell: (pool) => [poolLink(pool.source), pool.is_default && h('span.note', {}, 'default')] },
    { title: 'Success, 10 min', cell: (pool) => success(pool.lately) },
    { title: 'Success, today', cell: (pool) => (hasDays ? success(days.get(pool.source)) : h('span.muted', {}, 'not available')) },
    { title: 'Ready now', number: true, cell: (pool) => count(pool.ready) },
    { title: 'Handouts', number: true, cell: (pool) => count(pool.handouts) },
    { title: 'Handed out from', cell: (pool) => ladder(pool.handouts_by_tier) },
  ], pools, { caption: 'Pools', cards: true })));
}

/** The rungs that handouts stood on. */
export function ladder(byTier) {
  const total = TIERS.reduce((sum, name) => sum + (byTier[name] ?? 0), 0);
  if (!total) return h('span.muted', {}, 'nothing yet');
  const words = TIERS.filter((name) => byTier[name]).map((name) => `${tierName(name)} ${percent((100 * byTier[name]) / total)}`).join(', ');
  return h('span.ladder', { role: 'img', 'aria-label': words, title: words }, TIERS.map((name) => {
    const part = h('i', { class: `tier-${name}`, title: tierHint(name) });
    part.style.flexGrow = String((byTier[name] ?? 0) / total);
    return part;
  }));
}

function drawBad(element, { bad_proxies: rows, pools }) {
  if (!rows.length && pools.every((pool) => !pool.lately.total_requests)) { fill(element); return; }
  refill(element, section('Failing now', { aside: 'proxies that failed their clients most in the last ten minutes, and why' },
    rows.length
      ? h('ul.bad', {}, rows.map((row) => h('li', {},
        h('p', {}, proxyLink(row.proxy, row.source), h('span', {}, 'in ', poolLink(row.source)), h('span', { class: scoreClass(row.score) }, `score ${score(row.score)}`), tier(row.tier), row.is_banned && placeState('banned')),
        h('p.muted', {}, why(row)))))
      : h('p.empty', {}, 'None: no proxy failed its clients more than once without working again.')));
}

function why(row) {
  const kinds = Object.keys(row.failed_lately_by_kind).every((kind) => kind === 'unknown') ? '' : `: ${failureList(row.failed_lately_by_kind)}`;
  const probe = row.last_probe === 'passed'
    ? 'Its last probe passed, so it is up, and the target or its way there is the problem.'
    : row.last_probe ? `Its last probe failed, too: ${probeResult(row.last_probe)}.` : 'It was not probed since the start.';
  const streak = row.failures_in_a_row > 1 ? `, the last ${count(row.failures_in_a_row)} in a row` : '';
  return `Failed ${count(row.failed_lately)} times${streak}${kinds}. Last ${relative(row.last_failed_at_ms)}. ${probe}`;
}

function drawFunnel(element, { funnel }) {
  const steps = [
    ['Known', funnel.known, 'named by any list', '#/proxies'],
    ['Due', funnel.due, 'for a probe now', undefined],
    ['Probed', funnel.probed, 'at least once', undefined],
    ['Connected', funnel.connected, 'took our connection in their last probe', undefined],
    ['Passed', funnel.passed, 'their last probe: active', '#/proxies?liveness=live'],
    ['In quarantine', funnel.quarantined, 'of these: they tamper with what they carry', '#/proxies?state=quarantine&liveness=live'],
    ['In a pool', funnel.pool, 'ready now in the fullest pool', '#/proxies?state=ready'],
  ];
  refill(element, h('dl.funnel', {}, steps.map(([name, n, hint, href]) => h('div', {},
    h('dt', {}, href ? h('a', { href }, name) : name, h('small', {}, hint)),
    h('dd', {}, h('span.funnel-number', {}, count(n)), meter(funnel.known ? n / funnel.known : 0))))));
}

function drawResults(element, { probe_results: results }) {
  const rows = Object.entries(results).filter(([name]) => name !== 'passed').sort((a, b) => b[1] - a[1]).slice(0, 8);
  if (!rows.length) { fill(element); return; }
  const most = rows[0][1];
  refill(element, h('h3', {}, 'Why probes fail'), h('dl.reasons', {}, rows.map(([name, n]) =>
    h('div', {}, h('dt', {}, probeResult(name)), h('dd', {}, h('span', {}, count(n)), meter(n / most))))));
}
