// Where proxies come from, and what each list is good for.

import { get, post } from '../lib/api.js';
import { fill, h, meter, refill, section, table, toast } from '../lib/dom.js';
import { count, duration, percent } from '../lib/format.js';
import { when } from '../lib/words.js';

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
      { title: 'Feed', sort: 'name', cell: (row) => [h('a', { href: `#/proxies?${new URLSearchParams({ feed: row.feed })}` }, row.feed), h('small.block', {}, row.url)] },
      { title: 'On the list', number: true, cell: (row) => count(row.proxies_on_list) },
      { title: 'Known', sort: 'known', number: true, cell: (row) => count(row.known) },
      { title: 'Live', sort: 'live', number: true, cell: (row) => count(row.live) },
      { title: 'Yield', cell: (row) => (row.known ? h('span.with-meter', {}, meter(row.live / row.known), h('span', {}, percent((100 * row.live) / row.known))) : h('span.muted', {}, '–')) },
      { title: 'Last good fetch', sort: 'fetched', cell: (row) => when(row.fetched_at_ms) },
      { title: 'Next', cell: (row) => (row.is_fetching ? 'fetching' : row.next_fetch_at_ms ? when(row.next_fetch_at_ms) : 'now') },
      { title: 'State', sort: 'failures', class: 'wide', cell: (row) => state(row) },
      { title: h('span.hidden', {}, 'Action'), cell: (row) => h('button', { type: 'button', disabled: row.is_fetching, 'aria-label': `Fetch ${row.feed} now`, onclick: () => now(row.feed) }, 'Fetch now') },
    ], page.feeds, { caption: 'Feeds', sort, onSort }),
    page.total > page.feeds.length && h('p.muted', {}, `The first ${PAGE} of ${count(page.total)}.`),
    byHand.known > 0 && h('p.muted', {}, `Besides, ${count(byHand.known)} were imported by hand; ${count(byHand.live)} of them are live.`)));
  }
  poll(load, EVERY_MS);
}

function state(row) {
  if (row.consecutive_failures) {
    return [h('span.tag.bad', {}, `failed ${row.consecutive_failures}×`), ' ', row.last_error];
  }
  if (row.last_error) return [h('span.tag.warn', {}, 'doubted'), ' ', row.last_error];
  if (!row.fetched_at_ms) return h('span.muted', {}, 'not fetched yet');
  return [h('span.tag.good', {}, 'works'), h('span.muted', {}, ` every ${duration(row.interval_s)}`)];
}
