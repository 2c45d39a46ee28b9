// One proxy: why it stands where it stands, and what happened to it.

import { get, post } from '../lib/api.js';
import { copy, field, fill, h, refill, section, select, table, toast } from '../lib/dom.js';
import { count, fullTime, milliseconds, percent, score } from '../lib/format.js';
import { canWords, cannotWords, failureKind, label, labelWords, network, placeState, poolLink, probeResult, scoreClass, tier, tierName, when } from '../lib/words.js';
import { curlLine } from './proxies.js';

const EVERY_MS = 4000;
const BANS = [['', 'until forgiven'], ['3600', 'for an hour'], ['86400', 'for a day'], ['604800', 'for a week']];
const EVENTS = { success: 'one more success', failure: 'one more failure', probe_passed: 'a passed probe', probe_failed: 'a failed probe' };

export function show(root, params, { signal, poll }) {
  const proxy = params.get('proxy') ?? '';
  let source = params.get('source') ?? '';
  let time = '';
  const facts = h('div');
  const actions = h('div.actions', { role: 'group', 'aria-label': 'Actions' });
  const explained = h('div');
  const past = h('div');
  fill(root, h('p', {}, h('a', { href: '#/proxies' }, '‹ All proxies')), h('h1.mono', {}, proxy), facts, explained, past);

  let again = async () => {};
  const act = async (path, body, words) => {
    try {
      const { done } = await post(path, { proxies: [proxy], ...body });
      toast(done ? words : 'It was not possible: the proxy is not known any more, or too much is waiting.', done ? '' : 'bad');
      await again();
    } catch (error) { toast(error.message, 'bad'); }
  };

  let drawn = '';
  function drawActions(bans) {
    const wanted = JSON.stringify([source, time, bans.length > 0]);
    if (wanted === drawn) return;
    drawn = wanted;
    const forSeconds = () => (time ? { for_s: Number(time) } : {});
    const button = (words, onclick) => h('button', { type: 'button', onclick }, words);
    refill(actions,
      button('Probe now', () => act('api/actions/probe', {}, 'It is probed within seconds.')),
      button(`Ban in ${source}`, () => act('api/actions/ban', { source, ...forSeconds() }, `Banned in ${source}.`)),
      button('Ban everywhere', () => act('api/actions/ban', forSeconds(), 'Banned in all pools.')),
      select(BANS, time, (value) => { time = value; drawn = ''; drawActions(bans); }, { 'aria-label': 'How long a ban holds' }),
      button('Forgive', () => act('api/actions/forgive', {}, 'Forgiven in all pools: bans lifted, rests ended.')),
      h('span.grow'), button('Copy curl line', () => copy(curlLine(proxy))));
  }

  async function load() {
    const known = await get('api/proxy', { proxy }, signal);
    if (!source) source = known.pools[0]?.source ?? (await get('api/pools', { limit: 1 }, signal)).pools[0].source;
    const asked = source;
    const [told, pools] = await Promise.all([get('api/explain', { source, proxy }, signal), get('api/pools', { limit: 500 }, signal)]);
    if (asked !== source) return;
    drawFacts(facts, known);
    drawActions(known.bans);
    drawExplained(told, pools.pools.map((pool) => pool.source));
    drawPast(past, known);
  }
  again = load;

  function drawExplained(told, pools) {
    const [first, ...rest] = told.text.map((sentence) => sentence.replaceAll('last_resort', 'last resort'));
    refill(explained, section('Why it stands where it stands', {
      aside: field('In pool', select(pools, source, (value) => {
        source = value;
        history.replaceState(null, '', `#/proxy?${new URLSearchParams({ proxy, source })}`);
        load().catch((error) => toast(error.message, 'bad'));
      })),
    },
    h('div.verdict', {}, h('strong', { class: `big ${scoreClass(told.score)}` }, score(told.score)), tier(told.tier), h('p', {}, first)),
    factors(told),
    h('ul.sentences', {}, rest.map((sentence) => h('li', {}, sentence))),
    told.effects && h('div.effects', {}, h('h3', {}, 'What would change it'), table([
      { title: 'After', cell: (row) => EVENTS[row.event] ?? row.event },
      { title: 'Score', number: true, cell: (row) => h('span', { class: scoreClass(row.score) }, score(row.score)) },
      { title: 'Change', number: true, cell: (row) => { const by = row.score - told.score; return `${by > 0 ? '+' : ''}${score(by)}`; } },
      { title: 'Stands', cell: (row) => tierName(row.tier) },
    ], told.effects, { caption: 'What would change it' })),
    actions));
  }

  poll(load, EVERY_MS);
}

/** The score as a product, step by step. */
function factors(told) {
  const step = (words, value, hint) => h('li', { title: hint }, h('span', {}, words), h('strong', {}, value));
  return h('ol.factors', { 'aria-label': 'How the score comes about' },
    step('Is it up now?', percent(100 * (told.up.probability)), 'what all pools together believe'),
    step('Works here if up?', percent(100 * (told.here.works_if_up)), 'what this pool has seen'),
    step('Chance now', percent(100 * told.chance), 'both, moved by the last outcomes'),
    step('Left by latency', percent(100 * told.latency_factor), 'slow ones lose some'),
    step('Score', score(told.score), '100 times chance times latency'));
}

function drawFacts(element, known) {
  const fact = (name, value) => h('div', {}, h('dt', {}, name), h('dd', {}, value));
  const quarantined = known.pools.filter((pool) => pool.quarantine.length > 0);
  refill(element,
    known.bans.length > 0 && h('p.notice.warn', {}, known.bans.map((ban) => `Banned by hand in ${ban.source ?? 'all pools'}, ${ban.until_ms ? `until ${fullTime(ban.until_ms)}` : 'until it is forgiven'}. `)),
    quarantined.length > 0 && h('p.notice.warn', {}, `In quarantine in ${quarantined.map((pool) => pool.source).join(', ')}: it tampers with what it carries, so it is not handed out.`),
    h('dl.facts', {},
      fact('Probes', known.is_live ? h('span.tag.good', {}, 'live') : known.last_probed_at_ms ? h('span.tag.bad', {}, 'dead') : h('span.muted', {}, 'not probed yet')),
      fact('Last probe', known.last_probed_at_ms ? [when(known.last_probed_at_ms), known.last_probe ? `: ${probeResult(known.last_probe)}` : ''] : 'never'),
      fact('Last passed', when(known.last_passed_at_ms)),
      fact('Latency', milliseconds(known.latency_ms)),
      fact('Anonymity', known.anonymity ?? '–'),
      fact('Carries https', known.https ? 'yes' : known.inabilities.includes('tls') ? 'no' : 'not known'),
      fact('Comes out at', known.exit ?? '–'),
      fact('Country', known.country ?? '–'),
      fact('Network', known.network ? network(known.network) : '–'),
      fact('Feed', known.feed ? h('a', { href: `#/proxies?${new URLSearchParams({ feed: known.feed })}` }, known.feed) : 'imported by hand')),
    known.labels.length > 0 && h('div.found', {}, h('h3', {}, 'What is wrong with it'),
      h('ul.sentences', {}, known.labels.map((one) => h('li', {}, label(one), ` It ${labelWords(one)}.`)))),
    known.abilities.length + known.inabilities.length > 0 && h('div.found', {}, h('h3', {}, 'What it can do'),
      h('ul.sentences', {}, known.abilities.map((one) => h('li', {}, `It ${canWords(one)}.`)), known.inabilities.map((one) => h('li.muted', {}, `It ${cannotWords(one)}.`)))));
}

function drawPast(element, known) {
  refill(element, h('div.columns', {},
    section('In every pool', {}, table([
      { title: 'Pool', class: 'name', cell: (row) => poolLink(row.source) },
      { title: 'Score', number: true, cell: (row) => h('span', { class: scoreClass(row.score) }, score(row.score)) },
      { title: 'Stands', cell: (row) => [tier(row.tier), row.is_banned && [' ', placeState('banned')], row.quarantine.length > 0 && [' ', placeState('quarantine')]] },
      { title: 'Worked', number: true, cell: (row) => count(row.successes) },
      { title: 'Failed', number: true, cell: (row) => count(row.failures) },
      { title: 'In a row', number: true, cell: (row) => count(row.failures_in_a_row) },
      { title: 'Last heard of', cell: (row) => when(row.last_outcome_at_ms) },
    ], known.pools, { caption: 'In every pool', cards: true, empty: 'No pool has used it, and it is not live.' })),
    section('What happened', { aside: 'the last 16 probes and outcomes since the start, the latest first' }, table([
      { title: 'When', cell: (row) => when(row.at_ms) },
      { title: 'What', cell: (row) => [h('span', { class: row.is_good ? 'good' : 'poor', 'aria-hidden': 'true' }, row.is_good ? '● ' : '○ '), row.kind === 'probe' ? 'probe' : [row.kind === 'pool_probe' ? 'probe for ' : 'used in ', poolLink(row.source)]] },
      { title: 'Result', cell: (row) => (row.is_good ? (row.kind === 'outcome' ? 'worked' : 'passed') : row.kind === 'outcome' ? failureKind(row.reason) : probeResult(row.reason)) },
      { title: 'Took', number: true, cell: (row) => milliseconds(row.took_ms) },
    ], known.events, { caption: 'What happened', empty: 'Nothing since the start. Proxies that were never used and never passed have no history, only a last probe.' }))));
}
