// Numbers and times as people read them, in their own language and zone.

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const oneDigit = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const hours = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium', hourCycle: 'h23' });

/** The zone of whoever looks. */
export const viewerZone = canonical(Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC');

/** The one name of a zone that has several. */
export function canonical(zone) {
  try {
    return new Intl.DateTimeFormat(undefined, { timeZone: zone }).resolvedOptions().timeZone;
  } catch {
    return zone;
  }
}

export const count = (n) => (n === null || n === undefined ? '–' : whole.format(n));
export const rate = (n) => (n === null || n === undefined ? '–' : oneDigit.format(n));
export const percent = (n) => (n === null || n === undefined ? '–' : `${n === 100 || n === 0 ? whole.format(n) : oneDigit.format(n)}%`);
export const score = rate;
export const milliseconds = (n) => (n === null || n === undefined ? '–' : `${whole.format(n)} ms`);
export const clockTime = (ms) => clock.format(ms);
export const hoursMinutes = (ms) => hours.format(ms);
export const fullTime = (ms) => full.format(ms);

/** Bytes, in the largest unit of 1,024 that leaves a whole number. */
export function bytes(n) {
  if (n === null || n === undefined) return '–';
  let [value, at] = [n, 0];
  while (value >= 1024 && at < 4) { value /= 1024; at += 1; }
  return `${at && value < 10 ? oneDigit.format(value) : whole.format(value)} ${['bytes', 'KiB', 'MiB', 'GiB', 'TiB'][at]}`;
}

/** A length of time, to one unit. */
export function duration(seconds) {
  const s = Math.max(0, seconds);
  if (s < 120) return `${whole.format(s)} s`;
  if (s < 7200) return `${whole.format(s / 60)} min`;
  if (s < 172_800) return `${whole.format(s / 3600)} h`;
  return `${whole.format(s / 86_400)} days`;
}

/** "3 min ago", "in 20 s", with the whole time behind it. */
export function relative(ms, now = Date.now()) {
  if (ms === null || ms === undefined) return 'never';
  const seconds = (now - ms) / 1000;
  if (Math.abs(seconds) < 1) return 'now';
  return seconds < 0 ? `in ${duration(-seconds)}` : `${duration(seconds)} ago`;
}

/** The day of `ms` in `zone` as YYYY-MM-DD. */
export function dayIn(zone, ms = Date.now()) {
  try {
    return new Intl.DateTimeFormat('en-CA', { timeZone: zone, dateStyle: 'short' }).format(ms);
  } catch {
    return new Date(ms).toISOString().slice(0, 10);
  }
}
