// The service's short words, said to people.

import { fill, h } from './dom.js';
import { canonical, fullTime, relative, viewerZone } from './format.js';

const PROBE_RESULTS = {
  passed: 'passed',
  resolve: 'its host name has no address',
  special_address: 'its address is not allowed',
  refused: 'connection refused',
  unreachable: 'unreachable',
  connect_timeout: 'no connection in time',
  local: 'our own machine could not do it',
  handshake_timeout: 'silent after the connection',
  handshake_refused: 'refused to connect us to the target',
  authentication: 'wants a login',
  garbage: 'spoke another protocol',
  closed: 'closed the connection',
  reset: 'reset the connection',
  tls: 'TLS did not come up',
  response_timeout: 'no answer in time',
  status: 'wrong status from the target',
  bad_body: 'changed or cut the answer',
  text_missing: 'the answer lacks what it must have',
  text_forbidden: 'the answer has what it must not have',
  too_small: 'the answer is too small',
};

const FAILURES = {
  timeout: 'timed out',
  proxy_error: 'proxy error',
  dead: 'not reachable',
  blocked: 'blocked by the target',
  slow: 'too slow',
  content_error: 'wrong content',
  unknown: 'failed, no reason given',
};

const REJECTIONS = {
  no_entry: 'no proxy',
  protocol: 'unknown protocol',
  host: 'bad host',
  port: 'bad port',
  login: 'bad login',
  trailing: 'link',
  special: 'special address',
  too_long: 'too long',
};

const TIERS = {
  proven: ['proven', 'has worked in this pool and probably will again'],
  live: ['live', 'passed its last probe, not proven in this pool'],
  unproven: ['unproven', 'known, but nothing says that it is up'],
  last_resort: ['last resort', 'failed here at least twice in a row'],
};

const STATES = {
  ready: ['ready', 'may be handed out now'],
  cooling: ['cooling', 'was used a moment ago'],
  resting: ['resting', 'rests after failures'],
  apart: ['apart', 'no candidate: not live and never used here'],
  banned: ['banned', 'ruled out by hand'],
  quarantine: ['quarantine', 'tampers with what it carries, so it is not handed out'],
};

// What a proxy can do: in a table, that it can, that it cannot.
const ABILITIES = {
  forward: ['plain', 'forwards plain HTTP', 'does not forward plain HTTP'],
  connect_443: ['443', 'opens tunnels to port 443', 'opens no tunnels to port 443'],
  connect_other: ['ports', 'opens tunnels to other ports', 'opens no tunnels to other ports'],
  tls: ['TLS', 'carries TLS, with the certificate of the target verified', 'does not carry TLS'],
  by_name: ['name', 'looks names up by itself', 'does not look names up'],
  by_address: ['address', 'takes addresses', 'takes no addresses'],
  login: ['login', 'takes the login that it is listed with', 'refuses the login that it is listed with'],
};

// What is wrong with it.
const LABELS = {
  injects: ['injects', 'changes pages: puts something in, or leaves something out'],
  rewrites_headers: ['rewrites headers', 'changes or drops headers of requests or answers'],
  leaks_address: ['leaks address', 'tells the target our address'],
  fakes_target: ['fakes target', 'answers in the place of the target'],
  breaks_tls: ['breaks TLS', 'shows another certificate than that of the target'],
};

export const abilityNames = Object.entries(ABILITIES).map(([word, [name]]) => [word, name]);
export const labelNames = Object.entries(LABELS).map(([word, [name]]) => [word, name]);
export const abilityName = (word) => (ABILITIES[word] ?? [word])[0];
export const canWords = (word) => (ABILITIES[word] ?? [word, word])[1];
export const cannotWords = (word) => (ABILITIES[word] ?? [word, word, `not ${word}`])[2];
export const labelName = (word) => (LABELS[word] ?? [word])[0];
export const labelWords = (word) => (LABELS[word] ?? [word, word])[1];

/** A label as a tag: what is wrong at a glance. */
export const label = (word) => h('span.tag', { class: `label-${word}`, title: labelWords(word) }, labelName(word));

/** "AS64500 Example Net". */
export const network = (of) => [`AS${of.asn}`, of.organisation].filter(Boolean).join(' ');

export const probeResult = (word) => PROBE_RESULTS[word] ?? word ?? 'not probed since the start';
export const failureKind = (word) => FAILURES[word ?? 'unknown'] ?? word;

export function tier(word) {
  const [name, hint] = TIERS[word] ?? [word, ''];
  return h('span.tag', { class: `tier-${word}`, title: hint }, name);
}

export function placeState(word) {
  const [name, hint] = STATES[word] ?? [word, ''];
  return h('span', { class: `state-${word}`, title: hint }, name);
}

export const tierName = (word) => (TIERS[word] ?? [word])[0];
export const tierHint = (word) => (TIERS[word] ?? ['', ''])[1];

/** A moment, relative, with the whole time behind it. */
export function when(ms) {
  if (ms === null || ms === undefined) return h('span.muted', {}, 'never');
  return h('time', { datetime: new Date(ms).toISOString(), title: fullTime(ms) }, relative(ms));
}

/** "blocked by the target (4), timed out (2)". */
export function failureList(byKind) {
  return Object.entries(byKind).sort((a, b) => b[1] - a[1]).map(([kind, n]) => `${failureKind(kind)} (${n})`).join(', ');
}

/** "bad port (4), no proxy (2)": entries of a list that were not taken. */
export function rejectionList(byReason) {
  return Object.entries(byReason).sort((a, b) => b[1] - a[1]).map(([reason, n]) => `${REJECTIONS[reason] ?? reason} (${n})`).join(', ');
}

export const proxyLink = (proxy, source) =>
  h('a.mono', { href: `#/proxy?${new URLSearchParams(source ? { proxy, source } : { proxy })}` }, proxy);

export const poolLink = (source) => h('a', { href: `#/pools?${new URLSearchParams({ source })}` }, source);

/** A score with a bar. */
export const scoreClass = (score) => (score >= 60 ? 'good' : score >= 25 ? 'fair' : 'poor');

/** Called with what the service says of itself. */
export function introduce({ version, zone }) {
  fill(document.getElementById('version'), `SmartProxy ${version}`);
  fill(document.getElementById('zones'), canonical(zone) === viewerZone
    ? `Times are in your zone, ${viewerZone}, which is the server's, too.`
    : `Times are in your zone, ${viewerZone}. Days begin at midnight in the server's, ${zone}.`);
}
