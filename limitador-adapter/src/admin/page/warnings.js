// Which buckets reached a threshold of their limit (`warnAt`) lately.

import { quantity, time } from './format.js';
import { Badge, html, Panel, Problem, RateName, Table, useAnswer, Who } from './parts.js';
import { bucketsLink } from './links.js';

const kindOf = ({ used, max }) => (used >= max ? 'full' : 'close');

// A table of warnings. `columns` names those that are shown besides the bucket and the threshold.
export function WarningTable({ warnings, caption, isCaptionHidden, columns = [] }) {
  const all = [
    { title: 'Time', class: 'when', cell: (one) => time(one.time) },
    { title: 'Who', cell: (one) => html`<${Who} bucket=${one} />` },
    { title: 'Limit', cell: (one) => html`<${RateName} rate=${one} link=${bucketsLink(one)} />` },
    { title: 'Reached', class: 'num', cell: (one) => html`<${Badge} kind=${kindOf(one)}>${one.threshold}<//>` },
    ...columns,
  ];
  // The adapter gives no ids. Several warnings may be equal.
  const rows = warnings.map((one, index) => ({ ...one, key: warnings.length - index }));
  return html`<${Table} caption=${caption} isCaptionHidden=${isCaptionHidden} columns=${all} rows=${rows}
    keyOf=${(one) => `${one.time} ${one.key}`} empty="No limit with warnAt has reached a threshold since the adapter started." />`;
}

export function Warnings({ beat }) {
  const { data, error, retry } = useAnswer('warnings', beat);
  if (!data) return error ? html`<${Problem} error=${error} retry=${retry} />` : html`<p class="muted">Waiting for the adapter</p>`;
  const columns = [
    { title: 'Used', class: 'num', cell: (one) => quantity(one.used, one.unit) },
    { title: 'Maximum', class: 'num', cell: (one) => quantity(one.max, one.unit) },
  ];
  return html`
    <${Problem} error=${error} retry=${retry} />
    <${Panel} title="Latest" id="latest-warnings">
      <${WarningTable} warnings=${data.latest} columns=${columns}
        caption="The latest 100 warnings of this adapter, the newest first. The numbers are those of the moment of the warning." />
    <//>`;
}
