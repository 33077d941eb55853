// The first view: numbers, what is closest to its limit, what is wrong, and all limits.

import { duration, keyOf, number, plural, quantity, short, shortAmount, SHORT_CAUSES } from './format.js';
import { Badge, Bar, html, Panel, RateName, Table, useAnswer, Who } from './parts.js';
import { bucketsLink } from './links.js';
import { MinutesChart } from './charts.js';
import { WarningTable } from './warnings.js';

export const refusedOf = ({ usedUp, inFlight, tooLarge }) => usedUp + inFlight + tooLarge;

function Tile({ title, value, kind, note, href }) {
  const body = html`<span class="tile-value">${value}</span>${note && html`<span class="tile-note">${note}</span>`}`;
  return html`<div class=${`tile ${kind ?? ''}`}><dt>${title}</dt><dd>${href ? html`<a href=${href}>${body}</a>` : body}</dd></div>`;
}

function causesNote(refused) {
  const causes = Object.entries(SHORT_CAUSES).filter(([cause]) => refused[cause] > 0);
  return causes.map(([cause, text]) => `${short(refused[cause])} ${text}`).join(', ');
}

function Tiles({ overview }) {
  const { policies, buckets, full, close, refused, rates } = overview;
  const held = rates.filter((rate) => rate.held > 0);
  const heldText = held.length === 0 ? 'nothing' : plural(held.length, 'limit');
  return html`<dl class="tiles">
    <${Tile} title="At the limit" value=${number(full)} kind=${full > 0 ? 'full' : ''} note="no room left" href=${bucketsLink({ show: 'full' })} />
    <${Tile} title="Close to the limit" value=${number(close)} kind=${close > 0 ? 'close' : ''} note="80 % or more" href=${bucketsLink({ show: 'close' })} />
    <${Tile} title="Buckets" value=${number(buckets)} note=${`of ${plural(rates.length, 'limit')}`} href="#buckets" />
    <${Tile} title="Held now" value=${heldText} note="for requests in flight" href=${bucketsLink({ show: 'held', sort: 'held' })} />
    <${Tile} title="Refused in the last hour" value=${short(refusedOf(refused))} note=${causesNote(refused) || 'no request'} href="#refusals" />
    <${Tile} title="Policies in force" value=${number(policies.inForce)} kind=${policies.invalid > 0 ? 'full' : ''}
      note=${policies.invalid > 0 ? `${number(policies.invalid)} with errors` : policies.warned > 0 ? `${number(policies.warned)} with warnings` : 'no errors'} href="#policies" />
  </dl>`;
}

function Closest({ buckets }) {
  const columns = [
    { title: 'Who', cell: (bucket) => html`<${Who} bucket=${bucket} />` },
    { title: 'Limit', cell: (bucket) => html`<${RateName} rate=${bucket} />` },
    { title: 'Full', class: 'wide', cell: (bucket) => html`<${Bar} bucket=${bucket} />` },
    { title: 'Remaining', class: 'num', cell: (bucket) => quantity(bucket.remaining, bucket.unit) },
    { title: 'Ends in', class: 'num', cell: (bucket) => (bucket.unit === 'concurrency' ? '' : duration(bucket.resetsInSeconds)) },
  ];
  return html`<${Table} caption="The buckets with the largest share of their maximum" isCaptionHidden columns=${columns} rows=${buckets}
    keyOf=${keyOf} empty="No bucket has been used in its current window." />`;
}

function Limits({ rates }) {
  const order = [...rates].sort((a, b) => b.full - a.full || b.close - a.close || refusedOf(b.refused) - refusedOf(a.refused)
    || b.buckets - a.buckets);
  const shown = order.slice(0, 100);
  const columns = [
    { title: 'Limit', cell: (rate) => html`<${RateName} rate=${rate} link=${bucketsLink(rate)} />` },
    { title: 'Buckets', class: 'num', cell: (rate) => number(rate.buckets) },
    { title: 'At the limit', class: 'num', cell: (rate) => (rate.full > 0 ? html`<${Badge} kind="full">${number(rate.full)}<//>` : '0') },
    { title: 'Close', class: 'num', cell: (rate) => (rate.close > 0 ? html`<${Badge} kind="close">${number(rate.close)}<//>` : '0') },
    { title: 'Used', class: 'num', cell: (rate) => (rate.unit === 'concurrency' ? '' : shortAmount(rate.used, rate.unit)) },
    { title: 'Held', class: 'num', cell: (rate) => shortAmount(rate.held, rate.unit) },
    { title: 'Refused in the last hour', class: 'num', cell: (rate) => short(refusedOf(rate.refused)) },
  ];
  const more = order.length - shown.length;
  return html`<${Table} isCaptionHidden=${more === 0} caption=${more > 0 ? `The first 100 of ${number(order.length)} limits` : 'All limits, with sums over their buckets'}
    columns=${columns} rows=${shown} keyOf=${keyOf} empty="No policy is in force." />`;
}

function Attention({ overview }) {
  const { data } = useAnswer('policies', overview.policies.invalid + overview.policies.warned * 1e6);
  const wrong = (data ?? []).filter((policy) => policy.mistakes.length > 0);
  const warned = (data ?? []).filter((policy) => policy.mistakes.length === 0 && policy.warnings?.length > 0);
  if (wrong.length + warned.length === 0) return null;
  const line = (policy, kind, texts) => html`<li key=${policy.file + (policy.policy ?? '')}>
    <${Badge} kind=${kind}>${kind === 'full' ? 'error' : 'warning'}<//>
    <a href="#policies"><bdi>${policy.policy ?? policy.file}</bdi></a>: <bdi>${texts[0]}</bdi>
    ${texts.length > 1 && html`<span class="muted"> and ${texts.length - 1} more</span>`}</li>`;
  return html`<${Panel} title="Needs attention" id="attention"><ul class="notices">
    ${wrong.slice(0, 5).map((policy) => line(policy, 'full', policy.mistakes))}
    ${warned.slice(0, 5).map((policy) => line(policy, 'close', policy.warnings))}
  </ul><//>`;
}

function LatestWarnings({ beat }) {
  const { data } = useAnswer('warnings', beat);
  const latest = data?.latest.slice(0, 5) ?? [];
  if (latest.length === 0) return null;
  return html`<${Panel} title="Warnings" id="warnings" side=${html`<a href="#warnings">All warnings</a>`}>
    <${WarningTable} warnings=${latest} caption="The latest five warnings" isCaptionHidden />
  <//>`;
}

export function Overview({ overview, beat }) {
  const refusals = useAnswer('refusals', beat);
  if (!overview) return html`<p class="muted">Waiting for the adapter</p>`;
  return html`
    <${Tiles} overview=${overview} />
    <div class="columns">
      <${Panel} title="Closest to the limit" id="closest" side=${html`<a href=${bucketsLink({ sort: 'share' })}>All buckets</a>`}>
        <${Closest} buckets=${overview.closest} />
      <//>
      <div class="stack">
        <${Attention} overview=${overview} />
        <${LatestWarnings} beat=${beat} />
        <${Panel} title="Refused in the last hour" id="refused" side=${html`<a href="#refusals">Causes</a>`}>
          <${MinutesChart} minutes=${refusals.data?.minutes} />
        <//>
      </div>
    </div>
    <${Panel} title="Limits" id="limits"><${Limits} rates=${overview.rates} /><//>`;
}
