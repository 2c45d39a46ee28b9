// Elements. Text only ever becomes a text node: nothing that a feed or a pool is called can become markup.

/** An element: `h('a.link', { href }, 'text', child)`. Names of handlers begin with `on`; `undefined`, `null` and `false`
 *  attributes and children are left out. */
export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split('.');
  const element = document.createElement(name || 'div');
  if (classes.length) element.className = classes.join(' ');
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'class') element.classList.add(...String(value).split(' ').filter(Boolean));
    else if (key === 'value' || key === 'checked' || key === 'indeterminate') element[key] = value;
    else element.setAttribute(key, value === true ? '' : String(value));
  }
  append(element, children);
  return element;
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Puts `children` in place of what is in `element`. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** A part of a page with a heading. */
export function section(title, { aside, id } = {}, ...children) {
  return h('section.card', { id, 'aria-label': title },
    h('div.card-head', {}, h('h2', {}, title), aside && h('div.card-aside', {}, aside)), ...children);
}

/** A table. Columns: `{ title, cell(row), number, sort, class }`. With `cards`, each row is a card on a phone. */
export function table(columns, rows, { caption, empty, sort, onSort, rowAttributes, cards } = {}) {
  const head = columns.map((column) => {
    const attributes = { scope: 'col', class: column.number ? 'number' : undefined };
    if (!column.sort || !onSort) return h('th', attributes, column.title);
    const isCurrent = sort?.key === column.sort;
    const order = isCurrent ? (sort.descending ? 'descending' : 'ascending') : 'none';
    const arrow = isCurrent ? (sort.descending ? ' ↓' : ' ↑') : '';
    return h('th', { ...attributes, 'aria-sort': order },
      h('button.sort', { type: 'button', onclick: () => onSort(column.sort) }, column.title, h('span', { 'aria-hidden': 'true' }, arrow)));
  });
  const body = rows.length
    ? rows.map((row) => h('tr', rowAttributes?.(row) ?? {}, columns.map((column) =>
        h('td', { 'data-label': cards && typeof column.title === 'string' ? column.title : undefined, class: [column.number ? 'number' : '', column.class ?? ''].join(' ') || undefined }, column.cell(row)))))
    : [h('tr', {}, h('td.empty', { colspan: columns.length }, empty ?? 'Nothing here.'))];
  return h('div.table-wrap', { tabindex: '0', role: 'region', 'aria-label': caption },
    h('table', { class: cards ? 'cards' : undefined }, caption && h('caption.hidden', {}, caption), h('thead', {}, h('tr', {}, head)), h('tbody', {}, body)));
}

/** A field with its label. */
export function field(label, control) {
  return h('label.field', {}, h('span', {}, label), control);
}

/** A list to choose from: options are values, or `[value, words]`. */
export function select(options, value, onchange, attributes = {}) {
  return h('select', { ...attributes, onchange: (event) => onchange(event.target.value) },
    options.map((option) => {
      const [key, words] = Array.isArray(option) ? option : [option, option];
      return h('option', { value: key, selected: String(key) === String(value) }, words);
    }));
}

/** A bar that is `share` (0 to 1) full. */
export function meter(share, kind = '') {
  const inner = h('span', { class: kind || undefined });
  inner.style.width = `${Math.max(0, Math.min(1, share || 0)) * 100}%`;
  return h('span.meter', { 'aria-hidden': 'true' }, inner);
}

/** A short message that goes away by itself. */
export function toast(text, kind = '') {
  const element = h('p.toast', { class: kind || undefined }, text);
  document.getElementById('toasts').append(element);
  setTimeout(() => element.remove(), kind === 'bad' ? 9000 : 4500);
}

/** Saves `text` as a file. */
export function download(name, text, type = 'text/plain') {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h('a', { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Copies `text`; where the browser does not allow it (no https), shows it to be copied by hand. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast('Copied.');
  } catch {
    const area = h('textarea', { readonly: true, rows: 3, 'aria-label': 'To copy' });
    area.value = text;
    const dialog = h('dialog', { 'aria-label': 'Copy' }, h('p', {}, 'Your browser does not let this page copy. Copy it yourself:'), area,
      h('p.right', {}, h('button', { type: 'button', onclick: () => dialog.close() }, 'Close')));
    dialog.addEventListener('close', () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    area.select();
  }
}

const FOCUSABLE = 'a[href], button, input, select, textarea, summary, [tabindex="0"]';

/** Like `fill`, for a part that is renewed by itself: whoever works in it keeps the focus, the scroll position, and what
 *  was opened. */
export function refill(element, ...children) {
  const focusable = [...element.querySelectorAll(FOCUSABLE)];
  const focused = focusable.indexOf(document.activeElement);
  const scrolls = [...element.querySelectorAll('.table-wrap')].map((one) => [one.scrollLeft, one.scrollTop]);
  const opened = [...element.querySelectorAll('details')].map((one) => one.open);
  fill(element, children);
  element.querySelectorAll('.table-wrap').forEach((one, at) => { if (scrolls[at]) [one.scrollLeft, one.scrollTop] = scrolls[at]; });
  element.querySelectorAll('details').forEach((one, at) => { if (opened[at]) one.open = true; });
  if (focused >= 0) element.querySelectorAll(FOCUSABLE)[focused]?.focus({ preventScroll: true });
  return element;
}
