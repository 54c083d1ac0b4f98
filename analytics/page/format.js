// Numbers, amounts and times in the viewer's locale.

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const oneDigit = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const twoDigits = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const upToTwo = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
const percentage = new Intl.NumberFormat(undefined, { style: 'percent', minimumFractionDigits: 1, maximumFractionDigits: 1 });
const compactNumber = new Intl.NumberFormat(undefined, { notation: 'compact', maximumFractionDigits: 2, minimumFractionDigits: 2 });
const clockTime = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const clockMinute = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const fullTime = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'long' });

const NOTHING = '–';

export const count = (n) => (Number.isFinite(n) ? whole.format(n) : NOTHING);

/** A rate: a decimal while it is small enough for one to matter. */
export const rate = (n) => (!Number.isFinite(n) ? NOTHING : n >= 100 ? whole.format(n) : oneDigit.format(n));

/** A share of one as a percentage. */
export function percent(share) {
  if (!Number.isFinite(share)) return NOTHING;
  // 99.96 % must not be shown as 100 % when something was declined.
  return percentage.format(share > 0.999 && share < 1 ? 0.999 : share);
}

/** Milliseconds without their unit. */
export const millis = (n) => (!Number.isFinite(n) ? NOTHING : n >= 100 ? whole.format(n) : n >= 10 ? oneDigit.format(n) : twoDigits.format(n));

/** A figure of a reason: a count, an amount or a ratio. */
export const figure = (n) => (Number.isFinite(n) ? upToTwo.format(n) : String(n ?? NOTHING));

/** A decimal text such as `1234.50`, grouped, with the fraction digits it came with. */
export function amount(text) {
  const match = /^(-?)(\d+)(?:\.(\d+))?$/.exec(String(text ?? ''));
  if (!match) return String(text ?? NOTHING);
  const digits = match[3]?.length ?? 0;
  return new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(Number(text));
}

/** A reporting amount in minor units (two digits), short once it is large. */
export function reporting(minor) {
  if (!Number.isFinite(minor)) return NOTHING;
  const major = minor / 100;
  return Math.abs(major) >= 100_000 ? compactNumber.format(major) : whole.format(major);
}

export const time = (ms) => (Number.isFinite(ms) ? clockTime.format(ms) : NOTHING);
/** The time without a.m. and p.m., for narrow screens. */
export const shortTime = (ms) => (Number.isFinite(ms)
  ? clockTime.formatToParts(ms).filter((part) => part.type !== 'dayPeriod').map((part) => part.value).join('').trim()
  : NOTHING);
export const minute = (ms) => clockMinute.format(ms);
export const dateTime = (ms) => (Number.isFinite(ms) ? fullTime.format(ms) : NOTHING);

/** `txn_0123abcd4567…` as `0123abcd…`. */
export function shortId(id) {
  const bare = String(id ?? '').replace(/^[a-z]{3}_/, '');
  return bare.length > 9 ? `${bare.slice(0, 8)}…` : bare;
}
