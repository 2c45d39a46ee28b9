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
};

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
