// Parts that several views use.

import { h } from './vendor/preact.js';
import { useCallback, useEffect, useRef, useState } from './vendor/hooks.js';
import htm from './vendor/htm.js';
import { get } from './api.js';
import { amount, fullness, percent, quantity, rateText, UNITS } from './format.js';

// Values become text or properties, never markup.
export const html = htm.bind(h);

// Answers are asked for again at most this often.
const REFRESH = 1_500;

// Follows an answer of the API. `beat` changes whenever there may be a new one. The last answer stays while the next one
// is on its way. `ask` is how to get it.
export function useAnswer(path, beat, ask = get) {
  const [state, setState] = useState({});
  const last = useRef({ path: undefined, time: 0, running: false });
  const [again, setAgain] = useState(0);
  const retry = useCallback(() => setAgain((n) => n + 1), []);
  useEffect(() => {
    if (path === undefined) return undefined;
    const now = last.current;
    const isNew = now.path !== path || now.again !== again;
    const wait = isNew ? 0 : Math.max(0, now.time + REFRESH - Date.now());
    if (!isNew && now.running) {
      return undefined;
    }
    const timer = setTimeout(async () => {
      now.control?.abort();
      const control = new AbortController();
      Object.assign(now, { path, again, time: Date.now(), running: true, control });
      try {
        const { data, total } = await ask(path, control.signal);
        if (!control.signal.aborted) setState({ data, total, path });
      } catch (error) {
        if (!control.signal.aborted) setState((old) => ({ ...(old.path === path ? old : {}), error, path }));
      }
      if (now.control === control) now.running = false;
    }, wait);
    return () => clearTimeout(timer);
  }, [path, beat, again]);
  useEffect(() => () => last.current.control?.abort(), []);
  return { ...state, isCurrent: state.path === path, retry };
}

// A table that becomes a list of cards on a phone. Roles are explicit because CSS changes the display of its parts.
export function Table({ caption, isCaptionHidden = false, columns, rows, keyOf, empty }) {
  return html`
    <div class="table-box">
      <table role="table">
        <caption class=${isCaptionHidden ? 'hidden' : ''}>${caption}</caption>
        <thead role="rowgroup">
          <tr role="row">${columns.map((column) => html`<th role="columnheader" scope="col" class=${column.class}>${column.title}</th>`)}</tr>
        </thead>
        <tbody role="rowgroup">
          ${rows.map((row) => html`
            <tr role="row" key=${keyOf(row)}>
              ${columns.map((column, index) => index === 0
                ? html`<th role="rowheader" scope="row" class=${column.class}>${column.cell(row)}</th>`
                : html`<td role="cell" class=${column.class} data-label=${column.label ?? column.title}>${column.cell(row)}</td>`)}
            </tr>`)}
          ${rows.length === 0 && html`
            <tr role="row"><td role="cell" class="empty" colspan=${columns.length}>${empty}</td></tr>`}
        </tbody>
      </table>
    </div>`;
}

const STATES = { full: 'at limit', close: 'close', free: '', unknown: '' };

export function Badge({ kind, children }) {
  return html`<span class=${`badge ${kind}`}>${children}</span>`;
}

// How full a bucket is: used, held and free. The text beside it has the same information.
export function Bar({ bucket }) {
  const { share, state, used, held } = fullness(bucket);
  if (share === undefined) return html`<span class="muted">${bucket.inForce === false ? 'no longer in force' : 'maximum per request'}</span>`;
  const text = `${amount(bucket.used, bucket.unit)} used and ${amount(bucket.held, bucket.unit)} held of ${quantity(bucket.max + (bucket.granted ?? 0), bucket.unit)}`;
  return html`
    <div class="fullness">
      <div class=${`bar ${state}`} role="meter" aria-label="How full" aria-valuemin="0" aria-valuemax="100"
        aria-valuenow=${Math.min(100, Math.floor(share * 100))} aria-valuetext=${text}>
        <span class="used" style=${{ width: `${used}%` }}></span><span class="held" style=${{ width: `${held}%` }}></span>
      </div>
      <span class=${`share ${state}`}>${percent(share)}</span>
      <span class="state">${STATES[state] && html`<${Badge} kind=${state}>${STATES[state]}<//>`}</span>
    </div>`;
}

// Whom a bucket counts for. Tenants choose the values, so they are isolated from the text around them.
export function Who({ bucket }) {
  if (bucket.overflow) return html`<span class="who"><em>everybody beyond the counters' memory</em></span>`;
  const counters = Object.entries(bucket.counters);
  if (counters.length === 0) return html`<span class="who"><em>everybody</em></span>`;
  return html`<span class="who">${counters.map(([name, value]) => html`
    <span class="counter" key=${name}><bdi class="value" title=${value}>${cut(value)}</bdi><span class="name">${name}</span></span>`)}</span>`;
}

const LONGEST = 96;
const cut = (text) => (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);

export const whoText = (bucket) => bucket.overflow ? 'the overflow bucket'
  : Object.entries(bucket.counters).map(([name, value]) => `${name} = ${value}`).join(', ') || 'everybody';

export function RateName({ rate, link }) {
  const name = html`<bdi>${rate.policy}</bdi><span class="slash">/</span><bdi class="limit">${rate.limit}</bdi>`;
  return html`<span class="rate">
    ${link ? html`<a href=${link}>${name}</a>` : html`<span>${name}</span>`}
    <span class="name">${rateText(rate)}${rate.boundary === 'Soft' ? ', soft' : ''}${rate.inForce === false ? ', no longer in force' : ''}</span>
  </span>`;
}

export const unitName = (unit) => UNITS[unit] ?? unit;

export function Panel({ title, id, children, side }) {
  return html`<section class="panel" aria-labelledby=${id}>
    <div class="panel-head"><h2 id=${id}>${title}</h2>${side}</div>${children}
  </section>`;
}

export function Problem({ error, retry }) {
  if (!error) return null;
  return html`<div class="notice bad" role="alert"><p>${error.message}</p>
    ${retry && html`<button type="button" onClick=${retry}>Try again</button>`}</div>`;
}

// A ranking as horizontal bars: one row per name.
export function Ranking({ caption, rows, format, empty }) {
  const most = Math.max(1, ...rows.map((row) => row.value));
  return html`
    <div class="table-box ranking"><table>
      <caption class="hidden">${caption}</caption>
      <thead class="hidden"><tr><th scope="col">Name</th><th scope="col">Share</th><th scope="col">Amount</th></tr></thead>
      <tbody>
        ${rows.map((row) => html`<tr key=${row.name}>
          <th scope="row"><bdi title=${row.name}>${row.name === '' ? '(none)' : cut(row.name)}</bdi></th>
          <td class="track" aria-hidden="true"><span class="fill" style=${{ width: `${(100 * row.value) / most}%` }}></span></td>
          <td class="num">${format(row.value)}</td></tr>`)}
        ${rows.length === 0 && html`<tr><td class="empty" colspan="3">${empty}</td></tr>`}
      </tbody>
    </table></div>`;
}
