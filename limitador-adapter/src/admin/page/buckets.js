// The list of buckets. The adapter searches, filters, sorts and divides it into pages.

import { useCallback, useEffect, useRef, useState } from './vendor/hooks.js';
import { amount, duration, keyOf, number, plural, quantity, windowOf } from './format.js';
import { Bar, html, Panel, Problem, RateName, Table, unitName, useAnswer, Who } from './parts.js';
import { bucketsLink, go } from './links.js';
import { GrantDialog, ResetDialog } from './dialogs.js';

const PAGE = 50;
const TYPING = 250;
// After a change, the list is read from the storage instead of the shared readings.
const FRESH = 3_000;

const SHOW = {
  '': { text: 'All buckets', query: {} },
  full: { text: 'At the limit', query: { minShare: 100 } },
  close: { text: '80 % or more', query: { minShare: 80 } },
  held: { text: 'With holds now', query: { minHeld: 1 } },
};
const SORT = { share: 'Share of the maximum', used: 'Used', held: 'Held' };

const FILTERS = ['search', 'policy', 'limit', 'unit', 'window', 'show', 'sort', 'page'];
const known = (options, value, otherwise) => (Object.hasOwn(options, value ?? '') ? value ?? '' : otherwise);

function read(query) {
  const at = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? '']));
  const page = Math.max(1, Number.parseInt(at.page, 10) || 1);
  return { ...at, page, show: known(SHOW, at.show, ''), sort: known(SORT, at.sort, 'share') };
}

function pathOf({ search, policy, limit, unit, window, show, sort, page }, isFresh) {
  const query = new URLSearchParams({ sort, count: PAGE, after: (page - 1) * PAGE, ...SHOW[show].query });
  if (!isFresh) query.set('maxAge', '2');
  for (const [name, value] of Object.entries({ search, policy, limit, unit, window })) {
    if (value) query.set(name, value);
  }
  // The API decodes %20, and leaves a plus sign as it is.
  return `counters?${query.toString().replaceAll('+', '%20')}`;
}

// The filter that one option of the select stands for.
const choice = (rate) => JSON.stringify([rate.policy, rate.limit]);

function LimitSelect({ at, rates, onChange }) {
  const groups = new Map();
  for (const rate of rates) groups.set(rate.policy, (groups.get(rate.policy) ?? new Set()).add(rate.limit));
  const value = at.policy && at.limit ? choice(at) : at.policy ? choice({ policy: at.policy, limit: '' }) : '';
  const change = (event) => {
    const [policy, limit] = event.target.value ? JSON.parse(event.target.value) : ['', ''];
    onChange({ policy, limit, unit: '', window: '' });
  };
  return html`<label>Limit
    <select value=${value} onChange=${change}>
      <option value="">All limits</option>
      ${[...groups].map(([policy, limits]) => html`<optgroup key=${policy} label=${policy}>
        <option value=${choice({ policy, limit: '' })} selected=${value === choice({ policy, limit: '' })}>All of ${policy}</option>
        ${[...limits].map((limit) => html`<option key=${limit} value=${choice({ policy, limit })}
          selected=${value === choice({ policy, limit })}>${limit}</option>`)}
      </optgroup>`)}
    </select></label>`;
}

function Select({ label, options, value, onChange }) {
  return html`<label>${label}
    <select value=${value} onChange=${(event) => onChange(event.target.value)}>
      ${Object.entries(options).map(([name, text]) => html`<option key=${name} value=${name} selected=${name === value}>${text}</option>`)}
    </select></label>`;
}

function Filters({ at, rates, change }) {
  const [text, setText] = useState(at.search);
  const typed = useRef(at.search);
  // A link may have set another search.
  useEffect(() => {
    if (at.search !== typed.current) {
      typed.current = at.search;
      setText(at.search);
    }
  }, [at.search]);
  useEffect(() => {
    if (text === typed.current) return undefined;
    const timer = setTimeout(() => {
      typed.current = text;
      change({ search: text });
    }, TYPING);
    return () => clearTimeout(timer);
  }, [text]);
  const show = Object.fromEntries(Object.entries(SHOW).map(([name, { text: shown }]) => [name, shown]));
  const narrowed = [at.unit && unitName(at.unit), at.window].filter(Boolean).join(' per ');
  return html`<form class="filters" role="search" aria-label="Buckets" onSubmit=${(event) => event.preventDefault()}>
    <label class="grow">Search
      <input type="search" value=${text} maxlength="200" placeholder="User, team, policy or limit" spellcheck="false"
        onInput=${(event) => setText(event.target.value)} /></label>
    <${LimitSelect} at=${at} rates=${rates} onChange=${change} />
    <${Select} label="Show" options=${show} value=${at.show} onChange=${(value) => change({ show: value })} />
    <${Select} label="Sort by" options=${SORT} value=${at.sort} onChange=${(value) => change({ sort: value })} />
    ${narrowed && html`<button type="button" onClick=${() => change({ unit: '', window: '' })}>Only ${narrowed}: remove</button>`}
  </form>`;
}

function Pages({ page, total, change }) {
  const last = Math.max(1, Math.ceil(total / PAGE));
  if (last === 1) return null;
  return html`<nav class="pages" aria-label="Pages of buckets">
    <button type="button" disabled=${page <= 1} onClick=${() => change({ page: 1 })}>First</button>
    <button type="button" disabled=${page <= 1} onClick=${() => change({ page: page - 1 })}>Previous</button>
    <span>Page ${number(page)} of ${number(last)}</span>
    <button type="button" disabled=${page >= last} onClick=${() => change({ page: page + 1 })}>Next</button>
  </nav>`;
}

export function Buckets({ query, overview, beat }) {
  const at = read(query);
  const [acted, setActed] = useState(0);
  const [dialog, setDialog] = useState(undefined);
  const [done, setDone] = useState('');
  const isFresh = Date.now() - acted < FRESH;
  const answer = useAnswer(pathOf(at, isFresh), beat);
  const change = useCallback((changes) => go('buckets', { ...read(query), page: undefined, ...changes }), [query]);
  const rows = answer.data ?? [];
  const total = answer.total ?? 0;
  const close = (text) => {
    setDialog(undefined);
    // The button that opened the dialog may be gone by now.
    requestAnimationFrame(() => document.activeElement === document.body && document.querySelector('h1')?.focus());
    if (text) {
      setDone(text);
      setActed(Date.now());
    }
  };
  const canChange = overview?.canChange;
  const columns = [
    { title: 'Who', cell: (bucket) => html`<${Who} bucket=${bucket} />` },
    { title: 'Limit', cell: (bucket) => html`<${RateName} rate=${bucket} link=${bucketsLink(bucket)} />` },
    { title: 'Full', class: 'wide', cell: (bucket) => html`<${Bar} bucket=${bucket} />` },
    { title: 'Used', class: 'num used-cell', cell: (bucket) => (bucket.unit === 'concurrency' ? '' : amount(bucket.used, bucket.unit)) },
    { title: 'Held', class: 'num held-cell', cell: (bucket) => html`${amount(bucket.held, bucket.unit)}
      ${bucket.leased > 0 && html`<span class="name">${amount(bucket.leased, bucket.unit)} of it leased</span>`}` },
    { title: 'Remaining', class: 'num', cell: (bucket) => html`${bucket.remaining === undefined ? '' : amount(bucket.remaining, bucket.unit)}
      ${bucket.granted > 0 && html`<span class="name">with ${quantity(bucket.granted, bucket.unit)} granted</span>`}` },
    { title: 'Ends in', class: 'num', cell: (bucket) => (bucket.unit === 'concurrency' ? '' : duration(bucket.resetsInSeconds)) },
    ...(canChange ? [{ title: 'Change', class: 'actions', cell: (bucket) => html`<${Actions} bucket=${bucket} onDialog=${setDialog} />` }] : []),
  ];
  const shown = total === 0 ? '' : `${number((at.page - 1) * PAGE + 1)} to ${number((at.page - 1) * PAGE + rows.length)} of `;
  return html`
    <${Panel} title="Every counter of every limit" id="list" side=${html`<span role="status" class="muted count">${answer.data ? `${shown}${plural(total, 'bucket')}` : ''}</span>`}>
      <${Filters} at=${at} rates=${overview?.rates ?? []} change=${change} />
      <${Problem} error=${answer.error} retry=${answer.retry} />
      <p role="status" class=${done ? 'done' : 'hidden'}>${done}</p>
      <div aria-busy=${!answer.isCurrent} class=${answer.isCurrent || !answer.data ? '' : 'stale'}>
        <${Table} caption="Buckets" isCaptionHidden columns=${columns} rows=${rows} keyOf=${keyOf}
          empty=${answer.data ? 'No bucket matches.' : 'Reading the counters'} />
      </div>
      <${Pages} page=${at.page} total=${total} change=${change} />
      ${overview && !canChange && html`<p class="muted foot">Read only. To reset counters and grant more here, start the adapter with <code>--admin-token-file</code>.</p>`}
    <//>
    ${dialog?.kind === 'reset' && html`<${ResetDialog} bucket=${dialog.bucket} onClose=${close} />`}
    ${dialog?.kind === 'grant' && html`<${GrantDialog} bucket=${dialog.bucket} onClose=${close} />`}`;
}

// What the adapter can grant: a rate in force whose window ends.
const canGrant = (bucket) => bucket.inForce !== false && bucket.unit !== 'concurrency' && !windowOf(bucket).includes('sliding');

function Actions({ bucket, onDialog }) {
  // A reset without counter values would reset every bucket of the limit.
  if (bucket.overflow || bucket.unit === 'concurrency') return null;
  return html`<span class="buttons">
    <button type="button" onClick=${() => onDialog({ kind: 'reset', bucket })}>Reset</button>
    ${canGrant(bucket) && html`<button type="button" onClick=${() => onDialog({ kind: 'grant', bucket })}>Grant</button>`}
  </span>`;
}
