// Charts by uPlot, each with a tooltip, a legend to switch series off, zoom by dragging, and a table of its numbers.

import { fill, h } from './dom.js';
import { count, fullTime, hoursMinutes, clockTime } from './format.js';

const COLOURS = 10;
const dark = matchMedia('(prefers-color-scheme: dark)');

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const seriesColour = (at) => colour(`--series-${at % COLOURS}`);

/** Series past the tenth are dashed, so that no two look the same. */
const dash = (at) => (at < COLOURS ? undefined : at < 2 * COLOURS ? [6, 4] : [2, 3]);

/** Steps of an axis that shows no seconds. */
const MINUTES = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440];

/**
 * A chart over time.
 * @param title what it shows, for those who cannot see it
 * @param series `{ label, scale: 'percent' | 'count', bars, format, hue }`; `hue` is a place among the colours
 * @param scales `{ percent: { range, format }, count: {...} }`; the first stands on the left, the second on the right
 * @returns an element with `update(data)`; data is `[seconds[], values[], ...]`, `null` for no value
 */
export function timeChart({ title, series, scales, height = 260, seconds = false }) {
  const plot = h('div.plot', { role: 'img', 'aria-label': `${title}. The table below has its numbers.` });
  const tip = h('div.tip', { hidden: true });
  const legend = h('div.legend', { role: 'group', 'aria-label': 'Series' });
  const details = h('details.chart-table', {}, h('summary', {}, 'Show as a table'));
  const figure = h('figure.chart', { 'aria-label': title }, legend, h('div.plot-box', {}, plot, tip), details);
  const hidden = new Set();
  let data = null;
  let u = null;
  /** What somebody has zoomed to: `{ min, max }` in seconds. It stays when new numbers come. */
  let zoom = null;

  const hue = (at) => series[at].hue ?? at;
  const time = seconds ? clockTime : hoursMinutes;

  function options(width) {
    const axis = { stroke: colour('--muted'), grid: { stroke: colour('--line'), width: 1 }, ticks: { stroke: colour('--line'), width: 1, size: 4 }, font: '12px system-ui, sans-serif' };
    const names = Object.keys(scales);
    return {
      width, height,
      padding: [8, names.length > 1 ? 0 : 24, 0, 0],
      cursor: { y: false, drag: { x: true, y: false }, points: { size: 6 } },
      legend: { show: false },
      scales: { x: { time: true }, ...Object.fromEntries(names.map((name) => [name, { range: scales[name].range }])) },
      axes: [
        { ...axis, size: 30, space: seconds ? 80 : 56, ...(seconds ? {} : { incrs: MINUTES.map((n) => 60 * n) }), values: (_, splits) => splits.map((at) => time(at * 1000)) },
        ...names.map((name, at) => ({ ...axis, scale: name, side: at ? 1 : 3, size: 48, grid: at ? { show: false } : axis.grid, values: (_, splits) => splits.map(scales[name].format) })),
      ],
      series: [{}, ...series.map((one, at) => ({
        label: one.label, scale: one.scale, show: !hidden.has(at), spanGaps: false,
        stroke: one.bars ? undefined : seriesColour(hue(at)), width: 1.75, dash: dash(hue(at)),
        fill: one.bars ? `${colour('--bars')}` : undefined,
        paths: one.bars ? uPlot.paths.bars({ size: [0.8, 40], align: 1 }) : undefined,
        points: { show: one.bars ? false : (self, index) => lonely(self, index), size: 5, fill: seriesColour(hue(at)) },
      }))],
      hooks: { setCursor: [showTip], setScale: [noteZoom] },
    };
  }

  function noteZoom(self, key) {
    if (key !== 'x') return;
    const { min, max } = self.scales.x;
    const times = self.data[0];
    zoom = !times.length || (min <= times[0] && max >= times.at(-1)) ? null : { min, max };
  }

  /** Zooms to what was zoomed to before, unless that has moved out of sight. */
  function zoomAgain(kept) {
    if (kept && kept.max > data[0][0]) u.setScale('x', kept);
  }

  /** Points are drawn where a line would not be seen: one value between gaps. */
  function lonely(self, index) {
    const values = self.data[index];
    return values.length < 3 || values.some((value, at) => value !== null && (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null);
  }

  function showTip(self) {
    const at = self.cursor.idx;
    if (at === null || at === undefined || self.cursor.left < 0) { tip.hidden = true; return; }
    const rows = series.map((one, index) => [one, self.data[index + 1][at], index]).filter(([, value, index]) => value !== null && value !== undefined && !hidden.has(index));
    fill(tip, h('strong', {}, seconds ? clockTime(self.data[0][at] * 1000) : fullTime(self.data[0][at] * 1000)),
      rows.length ? rows.slice(0, 12).map(([one, value, index]) => h('div', {}, swatch(one, index), `${one.label}: ${one.format(value)}`)) : h('div', {}, 'no data'),
      rows.length > 12 && h('div.muted', {}, `and ${rows.length - 12} more`));
    tip.hidden = false;
    const left = self.cursor.left + self.bbox.left / devicePixelRatio;
    const toTheLeft = left > self.width / 2;
    tip.style.left = toTheLeft ? 'auto' : `${left + 12}px`;
    tip.style.right = toTheLeft ? `${self.width - left + 12}px` : 'auto';
  }

  function swatch(one, at) {
    const mark = h('i.swatch', { class: one.bars ? 'box' : undefined });
    mark.style.background = one.bars ? colour('--bars') : seriesColour(hue(at));
    return mark;
  }

  function drawLegend() {
    fill(legend, series.map((one, at) => h('button.legend-item', {
      type: 'button', 'aria-pressed': hidden.has(at) ? 'false' : 'true',
      onclick: (event) => {
        if (hidden.has(at)) hidden.delete(at); else hidden.add(at);
        u?.setSeries(at + 1, { show: !hidden.has(at) });
        event.currentTarget.setAttribute('aria-pressed', hidden.has(at) ? 'false' : 'true');
      },
    }, swatch(one, at), one.label)));
  }

  function build() {
    if (!data || !plot.clientWidth) return;
    const kept = zoom;
    u?.destroy();
    u = new uPlot(options(plot.clientWidth), data, plot);
    figure.uplot = u;
    zoomAgain(kept);
  }

  details.addEventListener('toggle', () => { if (details.open) drawTable(); });

  function drawTable() {
    details.querySelector('.table-wrap')?.remove();
    if (!data) return;
    const rows = data[0].map((at, index) => h('tr', {}, h('td', { 'data-x': at }, seconds ? clockTime(at * 1000) : fullTime(at * 1000)),
      series.map((one, of) => h('td.number', { 'data-value': data[of + 1][index] ?? '' }, data[of + 1][index] === null ? '–' : one.format(data[of + 1][index])))));
    details.append(h('div.table-wrap.short', { tabindex: '0', role: 'region', 'aria-label': title }, h('table', {},
      h('caption.hidden', {}, title),
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Time'), series.map((one) => h('th.number', { scope: 'col' }, one.label)))),
      h('tbody', {}, rows))));
  }

  const sized = new ResizeObserver(() => {
    if (!plot.clientWidth) return;
    if (u) { if (u.width !== plot.clientWidth) u.setSize({ width: plot.clientWidth, height }); } else build();
  });
  sized.observe(plot);
  const recolour = () => { drawLegend(); build(); };
  dark.addEventListener('change', recolour);

  figure.update = (next) => {
    data = next;
    if (!u) build();
    // While somebody drags, the next numbers wait for the ones after them.
    else if (u.select.width === 0) {
      const kept = zoom;
      u.setData(next);
      zoomAgain(kept);
    }
    if (details.open) drawTable();
  };
  figure.data = () => data;
  figure.zoomToData = () => {
    const times = data[0].filter((_, at) => data.slice(1).some((values) => values[at] !== null));
    // A slot before the first and two behind the last, because one value is a point without a width.
    const slot = data[0][1] - data[0][0];
    if (times.length) u?.setScale('x', { min: times[0] - slot, max: times.at(-1) + 2 * slot });
  };
  figure.resetZoom = () => { zoom = null; u?.setData(data); };
  figure.release = () => { sized.disconnect(); dark.removeEventListener('change', recolour); u?.destroy(); u = null; };
  drawLegend();
  return figure;
}

/** From 0 to a little above the most, so that a line of zeros lies at the bottom. */
export const fromZero = (_, least, most) => [0, Math.max(1, (most ?? 0) * 1.1)];

/** Bars of a distribution, drawn as a list: the numbers are its text. */
export function histogram(title, bars) {
  const most = Math.max(1, ...bars.map(([, n]) => n));
  return h('ol.histogram', { 'aria-label': title }, bars.map(([label, n]) => {
    const bar = h('span.bar', { 'aria-hidden': 'true' });
    bar.style.height = `${(n / most) * 100}%`;
    return h('li', { title: `${label}: ${count(n)}` }, bar, h('span.hidden', {}, `${label}: ${count(n)}`));
  }));
}
