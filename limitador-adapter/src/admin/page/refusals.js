// Which limits refused requests lately, and why.

import { CAUSES, duration, number, quantity, time } from './format.js';
import { Badge, html, Panel, Problem, RateName, Table, useAnswer, Who } from './parts.js';
import { MinutesChart } from './charts.js';
import { bucketsLink } from './links.js';
import { refusedOf } from './overview.js';

const KINDS = { usedUp: 'full', inFlight: 'plain', tooLarge: 'close' };

function ByRate({ rates }) {
  const order = [...rates].sort((a, b) => refusedOf(b) - refusedOf(a)).slice(0, 100);
  const columns = [
    { title: 'Limit', cell: (rate) => html`<${RateName} rate=${rate} link=${bucketsLink({ ...rate, show: 'close' })} />` },
    ...Object.entries(CAUSES).map(([cause, title]) => ({ title, class: 'num', cell: (rate) => number(rate[cause]) })),
  ];
  return html`<${Table} caption="Refusals of the last hour by limit. A request counts for each limit that refuses it." columns=${columns}
    rows=${order} keyOf=${JSON.stringify} empty="No request was refused in the last hour." />`;
}

function Latest({ latest }) {
  const columns = [
    { title: 'Time', class: 'when', cell: (one) => time(one.time) },
    { title: 'Who', cell: (one) => html`<${Who} bucket=${one} />` },
    { title: 'Limit', cell: (one) => html`<${RateName} rate=${one} link=${bucketsLink(one)} />` },
    { title: 'Cause', cell: (one) => html`<${Badge} kind=${KINDS[one.cause]}>${CAUSES[one.cause]}<//>` },
    { title: 'Needed', class: 'num', cell: (one) => quantity(one.needed, one.unit) },
    { title: 'Used', class: 'num', cell: (one) => number(one.used) },
    { title: 'Held', class: 'num', cell: (one) => number(one.held) },
    { title: 'Room in', class: 'num', cell: (one) => duration(one.retryInSeconds) },
  ].map((column) => (['Used', 'Held'].includes(column.title)
    ? { ...column, cell: (one) => quantity(one[column.title.toLowerCase()], one.unit) } : column));
  // The adapter gives no ids. Several refusals may be equal.
  const rows = latest.map((one, index) => ({ ...one, key: latest.length - index }));
  return html`<${Table} caption="The latest 100 refusals of this adapter, the newest first" columns=${columns} rows=${rows}
    keyOf=${(one) => `${one.time} ${one.key}`} empty="No request was refused since the adapter started." />`;
}

export function Refusals({ beat }) {
  const { data, error, retry } = useAnswer('refusals', beat);
  if (!data) return error ? html`<${Problem} error=${error} retry=${retry} />` : html`<p class="muted">Waiting for the adapter</p>`;
  return html`
    <${Problem} error=${error} retry=${retry} />
    <${Panel} title="Per minute" id="minutes" side=${html`<span class="muted">this adapter, last hour</span>`}>
      <${MinutesChart} minutes=${data.minutes} height=${240} />
    <//>
    <dl class="causes">
      <div><dt>${CAUSES.usedUp}</dt><dd>What was charged in this window leaves no room. Wait for the window to end, grant more, or raise the limit.</dd></div>
      <div><dt>${CAUSES.inFlight}</dt><dd>Other requests of the same bucket hold the rest. It passes in a few seconds.</dd></div>
      <div><dt>${CAUSES.tooLarge}</dt><dd>The request needs more than the whole limit, so it can never pass.</dd></div>
    </dl>
    <${Panel} title="By limit" id="by-limit"><${ByRate} rates=${data.rates} /><//>
    <${Panel} title="Latest" id="latest"><${Latest} latest=${data.latest} /><//>`;
}
