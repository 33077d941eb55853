// What was used, from the adapter's usage records.

import { useState } from './vendor/hooks.js';
import { amount, number, plural, short, shortAmount } from './format.js';
import { getInTurn } from './api.js';
import { html, Panel, Problem, Ranking, useAnswer } from './parts.js';
import { StackedBars } from './charts.js';

const DAY = 86_400_000;
const RANGES = { 7: 'Last 7 days', 30: 'Last 30 days', 90: 'Last 90 days' };
const MEASURES = {
  total: { text: 'Tokens', short, full: (value) => `${number(value)} tokens` },
  input: { text: 'Input tokens', short, full: (value) => `${number(value)} input tokens` },
  output: { text: 'Output tokens', short, full: (value) => `${number(value)} output tokens` },
  requests: { text: 'Requests', short, full: (value) => plural(value, 'request') },
  microUsd: { text: 'USD', short: (value) => shortAmount(value, 'usd'), full: (value) => amount(value, 'usd') },
};
const RANKINGS = { user: 'Users', model: 'Models', policy: 'Policies' };
// Counters that `user` stands for already, as documented for usage records.
const USERS = ['userid', 'user_id', 'user', 'sub', 'username', 'email'].map((name) => `auth.identity.${name}`);
// The number of further counters that are ranked.
const COUNTERS = 3;
// The number of names in a ranking, and of series in the chart.
const NAMES = 12;
const SERIES = 5;
const OTHER = 'Other models';

const shortDay = new Intl.DateTimeFormat('en-US', { day: 'numeric', month: 'short', timeZone: 'UTC' });
const dayText = (day) => (day ? shortDay.format(new Date(day)) : '');
const date = (time) => new Date(time).toISOString().slice(0, 10);

// The days of the range, in UTC as in the records. `to` is the day after the last one.
function daysOf(range) {
  const today = Date.parse(date(Date.now()));
  const days = Array.from({ length: Number(range) }, (_, index) => date(today - (Number(range) - 1 - index) * DAY));
  return { days, query: `from=${days[0]}&to=${date(today + DAY)}` };
}

// The sums of a measure by a field, the largest first.
function sums(rows, field, measure) {
  const all = new Map();
  for (const row of rows) {
    const name = row[field] ?? '';
    all.set(name, (all.get(name) ?? 0) + (row[measure] ?? 0));
  }
  return [...all].map(([name, value]) => ({ name, value })).filter(({ value }) => value > 0)
    .sort((a, b) => b.value - a.value || (a.name < b.name ? -1 : 1));
}

function seriesOf(rows, days, measure) {
  const models = sums(rows, 'model', measure);
  const named = models.slice(0, models.length > SERIES + 1 ? SERIES : SERIES + 1).map(({ name }) => name);
  const names = models.length > named.length ? [...named, undefined] : named;
  const place = new Map(days.map((day, index) => [day, index]));
  const series = names.map((name, index) => ({
    name: name === undefined ? OTHER : name || '(unknown model)', colour: `--series-${index + 1}`, values: days.map(() => 0),
  }));
  for (const row of rows) {
    const at = place.get(row.day);
    const index = named.includes(row.model ?? '') ? named.indexOf(row.model ?? '') : named.length;
    if (at !== undefined && series[index]) series[index].values[at] += row[measure] ?? 0;
  }
  return series;
}

function ByDay({ answer, days, measure }) {
  const { text, short: format } = MEASURES[measure];
  const series = seriesOf(answer.data ?? [], days, measure);
  if (!answer.data) return html`<p class="muted">Reading the records</p>`;
  if (series.length === 0) return html`<p class="muted calm">Nothing was used in these days.</p>`;
  return html`<${StackedBars} title=${`${text} per day and model`} labels=${days} series=${series} format=${format}
    tick=${dayText} step=${Math.ceil(days.length / 10)} height=${260} first="Day" />`;
}

function Ranked({ field, query, measure, beat }) {
  const isNamed = Object.hasOwn(RANKINGS, field);
  const title = isNamed ? RANKINGS[field] : field;
  const by = encodeURIComponent(isNamed ? field : `counter:${field}`);
  const answer = useAnswer(`usage?${query}&by=${by}`, beat, getInTurn);
  const { full } = MEASURES[measure];
  const rows = sums(answer.data ?? [], field, measure);
  const more = rows.length - NAMES;
  return html`<${Panel} title=${title} id=${`by-${field}`} side=${more > 0 && html`<span class="muted">and ${number(more)} more</span>`}>
    <${Problem} error=${answer.error} retry=${answer.retry} />
    <${Ranking} caption=${`${title} by ${MEASURES[measure].text.toLowerCase()}`} rows=${rows.slice(0, NAMES)} format=${full}
      empty=${answer.data ? 'Nothing was used in these days.' : 'Reading the records'} />
  <//>`;
}

// The counters by which a team or a tenant is limited, the most frequent first.
function countersOf(rates) {
  const uses = new Map();
  for (const name of rates.flatMap(({ counters }) => counters)) uses.set(name, (uses.get(name) ?? 0) + 1);
  return [...uses].filter(([name]) => !USERS.includes(name)).sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1))
    .slice(0, COUNTERS).map(([name]) => name);
}

export function Usage({ overview, beat }) {
  const [range, setRange] = useState('30');
  const [measure, setMeasure] = useState('total');
  // Records are summed by the database, so they are read every minute only.
  const slowly = beat?.slice(0, 16);
  const { days, query } = daysOf(range);
  const answer = useAnswer(`usage?${query}&by=day,model`, slowly, getInTurn);
  if (answer.error?.status === 404) {
    return html`<div class="notice"><p>This adapter keeps no usage records (<code>--usage</code>).</p>
      <p class="muted">The buckets show what was used in their current windows.</p></div>`;
  }
  const select = (label, value, set, choices) => html`<label>${label}
    <select value=${value} onChange=${(event) => set(event.target.value)}>${Object.entries(choices).map(([name, text]) => html`
      <option key=${name} value=${name} selected=${name === value}>${text.text ?? text}</option>`)}</select></label>`;
  const total = sums(answer.data ?? [], 'model', measure).reduce((sum, { value }) => sum + value, 0);
  return html`
    <form class="filters" aria-label="Usage" onSubmit=${(event) => event.preventDefault()}>
      ${select('Days', range, setRange, RANGES)}
      ${select('Measure', measure, setMeasure, MEASURES)}
      <span role="status" class="muted count">${answer.data ? `${MEASURES[measure].full(total)} in ${days.length} days (UTC)` : ''}</span>
    </form>
    <${Problem} error=${answer.error} retry=${answer.retry} />
    <${Panel} title="Per day" id="by-day"><${ByDay} answer=${answer} days=${days} measure=${measure} /><//>
    ${answer.data && html`<div class="columns even">${[...Object.keys(RANKINGS), ...countersOf(overview?.rates ?? [])].map((field) => html`
      <${Ranked} key=${field} field=${field} query=${query} measure=${measure} beat=${slowly} />`)}</div>`}`;
}
