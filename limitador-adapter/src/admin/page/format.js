// Numbers, amounts and times as text. Everything is in English, whatever the browser's language is.

const whole = new Intl.NumberFormat('en-US');
const compact = new Intl.NumberFormat('en-US', { notation: 'compact', maximumSignificantDigits: 3 });
const dollars = new Intl.NumberFormat('en-US', {
  style: 'currency', currency: 'USD', minimumFractionDigits: 2, maximumFractionDigits: 6,
});
const shortDollars = new Intl.NumberFormat('en-US', {
  style: 'currency', currency: 'USD', notation: 'compact', maximumSignificantDigits: 3,
});

export const UNITS = {
  requests: 'requests',
  tokens: 'tokens',
  inputTokens: 'input tokens',
  outputTokens: 'output tokens',
  usd: 'USD',
  concurrency: 'in flight',
};

export const CAUSES = {
  usedUp: 'Used up',
  inFlight: 'Held by requests in flight',
  tooLarge: 'Larger than the limit',
};

// The same in a few words, for a line below a number.
export const SHORT_CAUSES = { usedUp: 'used up', inFlight: 'held', tooLarge: 'too large' };

export const number = (value) => whole.format(value);
export const short = (value) => (Math.abs(value) < 100_000 ? whole.format(value) : compact.format(value));

// An amount of a unit without its name. USD are counted in micro-USD.
export const amount = (value, unit) => (unit === 'usd' ? dollars.format(value / 1e6) : whole.format(value));
export const shortAmount = (value, unit) =>
  unit === 'usd' ? (value < 1e9 ? dollars.format(value / 1e6) : shortDollars.format(value / 1e6)) : short(value);

// "20,000 tokens", "$5.00".
export const quantity = (value, unit) =>
  unit === 'usd' ? amount(value, unit) : `${amount(value, unit)} ${UNITS[unit] ?? unit}`;

// "24h", "Month, Europe/Berlin"; empty for concurrency.
export function windowOf(rate) {
  if (rate.window) return rate.window;
  if (!rate.period) return '';
  return rate.timeZone ? `${rate.period}, ${rate.timeZone}` : rate.period;
}

// The value of the API's parameter `window`.
export const windowName = (rate) => (rate.period && rate.timeZone ? `${rate.period}-${rate.timeZone}` : rate.window ?? rate.period);

// "20,000 tokens per 24h", or "tokens per 24h" without a known maximum.
export function rateText(rate) {
  const max = rate.max === undefined ? UNITS[rate.unit] ?? rate.unit : quantity(rate.max, rate.unit);
  const window = windowOf(rate);
  return window ? `${max} per ${window}` : max;
}

const STEPS = [['d', 86_400], ['h', 3600], ['min', 60], ['s', 1]];

// The two largest units of a duration: "3 h 12 min".
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return 'never';
  const first = STEPS.findIndex(([, length]) => seconds >= length);
  if (first < 0) return '0 s';
  const [name, length] = STEPS[first];
  const rest = STEPS[first + 1];
  const more = rest ? Math.floor((seconds % length) / rest[1]) : 0;
  return `${Math.floor(seconds / length)} ${name}${more ? ` ${more} ${rest[0]}` : ''}`;
}

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const minutes = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
export const time = (rfc3339) => clock.format(new Date(rfc3339));
export const minute = (rfc3339) => minutes.format(new Date(rfc3339));

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

// How full a bucket is. Without a known maximum, there is no share.
export function fullness({ max, granted = 0, used, held }) {
  if (max === undefined) return { share: undefined, state: 'unknown' };
  const room = max + granted;
  const share = room > 0 ? (used + held) / room : 1;
  const state = share >= 1 ? 'full' : share >= 0.8 ? 'close' : 'free';
  const part = (value) => (room > 0 ? Math.min(100, (100 * value) / room) : 0);
  const usedPart = room > 0 ? part(used) : 100;
  return { share, state, used: usedPart, held: Math.min(100 - usedPart, part(held)) };
}

// Rounds down, so that nothing is "100 %" that still has room.
export const percent = (share) => (share === undefined ? '' : `${number(Math.floor(share * 100))} %`);

// A key for a bucket or rate, and the text that names it.
export const keyOf = (one) => JSON.stringify([one.policy, one.limit, one.unit, windowOf(one), one.counters ?? null, one.overflow ?? false]);
