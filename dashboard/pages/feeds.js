// Where proxies come from, and what each list is good for.

import { get, post } from '../lib/api.js';
import { fill, h, refill, section, table, toast } from '../lib/dom.js';
import { bytes, count, duration, percent, relative } from '../lib/format.js';
import { rejectionList, when } from '../lib/words.js';

const EVERY_MS = 5000;
const PAGE = 200;

export function show(root, _, { signal, poll }) {
  const list = h('div');
  let sort = { key: 'name', descending: false };
  fill(root, h('h1', {}, 'Feeds'), list);
  const load = async () => {
    const page = await get('api/feeds', { sort: sort.key, order: sort.descending ? 'desc' : 'asc', limit: PAGE }, signal);
    draw(page);
  };
  const now = async (feed) => {
    try {
      await post('api/actions/fetch', { feed });
      toast(`Feed ${feed} is fetched now.`);
      await load();
    } catch (error) { toast(error.message, 'bad'); }
  };
  const onSort = (key) => {
    sort = { key, descending: sort.key === key ? !sort.descending : key !== 'name' };
    load().catch((error) => toast(error.message, 'bad'));
  };
  function draw(page) {
    const byHand = page.imported_by_hand;
    if (!page.total) {
      refill(list, section('No feeds yet', {},
        h('p', {}, 'A feed is a list of proxies that is fetched again and again: a URL or a file, in almost any format. Add one to config.ini, then reload (', h('code', {}, 'smartproxy'), ' notices SIGHUP, or POST /reload-sources):'),
        h('pre', {}, '[proxy_source_mine]\nurl = http://HOST/list.txt\nupdate_interval_minutes = 30\ndefault_protocol = http'),
        byHand.known > 0 && h('p', {}, `${count(byHand.known)} proxies were imported by hand; ${count(byHand.live)} of them are live.`)));
      return;
    }
    refill(list, section('Lists', { aside: `${count(page.total)} in the configuration` }, table([
      { title: 'Feed', sort: 'name', class: 'name', cell: (row) => [h('a', { href: `#/proxies?${new URLSearchParams({ feed: row.feed })}` }, row.feed), h('small.block', {}, row.url)] },
      { title: 'On the list', sort: 'listed', number: true, cell: (row) => [count(row.proxies_on_list), below(row.fetched_at_ms && `of ${count(row.lines)} lines`), below(row.list_bytes && bytes(row.list_bytes))] },
      { title: 'Refused', sort: 'rejected', number: true, class: 'reasons-cell', cell: (row) => [count(row.rejected_total), below(rejectionList(row.rejected))] },
      { title: 'New', number: true, cell: (row) => count(row.new) },
      { title: 'Only here', sort: 'unique', number: true, cell: (row) => [count(row.unique), below(row.unique_live && `${count(row.unique_live)} alive`)] },
      { title: 'Alive now', number: true, cell: (row) => [count(row.listed_live), below(row.proxies_on_list && `${percent((100 * row.listed_live) / row.proxies_on_list)} of them`)] },
      { title: 'Half live for', number: true, cell: life },
      { title: 'Good handouts', sort: 'good', number: true, cell: (row) => [count(row.good_handouts), below(uses(row) && `${percent((100 * row.good_handouts) / uses(row))} of ${count(uses(row))}`)] },
      { title: 'Last good fetch', sort: 'fetched', cell: (row) => [when(row.fetched_at_ms), below(next(row))] },
      { title: 'State', sort: 'failures', class: 'wide state', cell: (row) => state(row) },
      { title: h('span.hidden', {}, 'Action'), cell: (row) => h('button', { type: 'button', disabled: row.is_fetching, 'aria-label': `Fetch ${row.feed} now`, onclick: () => now(row.feed) }, 'Fetch now') },
    ], page.feeds, { caption: 'Feeds', sort, onSort, cards: true }),
    h('details.help', {}, h('summary', {}, 'What the columns say'), h('dl.terms', {}, [
      ['Refused', 'lines that are no proxy, or one that is not allowed, by reason'],
      ['New', 'proxies on the last list that nobody had named before'],
      ['Only here', 'proxies that no other list names now: what you would lose without this feed'],
      ['Half live for', 'the time from the first passed probe to the next failed one that half of its proxies reach'],
      ['Good handouts', 'requests that succeeded through proxies that this feed was the first to name'],
    ].map(([term, text]) => [h('dt', {}, term), h('dd', {}, text)]))),
    page.total > page.feeds.length && h('p.muted', {}, `The first ${PAGE} of ${count(page.total)}.`),
    byHand.known > 0 && h('p.muted', {}, `Besides, ${count(byHand.known)} were imported by hand; ${count(byHand.live)} of them are live.`)));
  }
  poll(load, EVERY_MS);
}

const below = (text) => (text ? h('small.block', {}, text) : null);
const uses = (row) => row.good_handouts + row.bad_handouts;

function life(row) {
  if (!row.median_life_s) return h('span.muted', { title: 'too few lives were seen' }, '–');
  return `${row.median_life_is_at_least ? 'over ' : ''}${duration(row.median_life_s)}`;
}

function next(row) {
  if (row.is_fetching) return 'being fetched';
  if (!row.next_fetch_at_ms || row.next_fetch_at_ms <= Date.now()) return 'next: now';
  return `next: ${relative(row.next_fetch_at_ms)}`;
}

function state(row) {
  if (row.paused_because) {
    return [h('span.tag.warn', {}, 'paused'), ` ${row.paused_because}. Fetched once a day until one does; “Fetch now” gives it another chance.`];
  }
  if (row.consecutive_failures) {
    return [h('span.tag.bad', {}, `failed ${row.consecutive_failures}×`), ' ', row.last_error];
  }
  if (row.last_error) return [h('span.tag.warn', {}, 'doubted'), ' ', row.last_error];
  if (!row.fetched_at_ms) return h('span.muted', {}, 'not fetched yet');
  return [h('span.tag.good', {}, 'works'), h('span.muted', {}, ` every ${duration(row.interval_s)}`)];
}
