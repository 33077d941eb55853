// The policies, their status, and what is wrong with them.

import { number, plural } from './format.js';
import { Badge, html, Panel, Problem, useAnswer } from './parts.js';

// The state in words. An earlier version of a policy with errors may still be in force.
function stateOf({ inForce, mistakes, warnings = [] }) {
  if (mistakes.length > 0) return inForce ? ['full', 'errors: an earlier version is in force'] : ['full', 'not in force'];
  if (!inForce) return ['plain', 'not in force'];
  return warnings.length > 0 ? ['close', 'in force, with warnings'] : ['good', 'in force'];
}

const rank = ({ mistakes, warnings = [], inForce }) => (mistakes.length > 0 ? 0 : warnings.length > 0 ? 1 : inForce ? 3 : 2);

function Policy({ policy }) {
  const [kind, text] = stateOf(policy);
  const list = (title, lines) => lines.length > 0 && html`<h3>${title}</h3>
    <ul class="mistakes">${lines.map((line) => html`<li key=${line}><bdi>${line}</bdi></li>`)}</ul>`;
  return html`<li class=${`policy ${kind}`}>
    <div class="policy-head"><bdi class="policy-name">${policy.policy ?? 'unnamed document'}</bdi><${Badge} kind=${kind}>${text}<//></div>
    <p class="name"><bdi>${policy.file}</bdi>${policy.document > 1 ? `, document ${policy.document}` : ''}</p>
    ${list('Errors', policy.mistakes)}
    ${list('Warnings', policy.warnings ?? [])}
  </li>`;
}

export function Policies({ beat }) {
  const { data, error, retry } = useAnswer('policies', beat);
  if (!data) return error ? html`<${Problem} error=${error} retry=${retry} />` : html`<p class="muted">Waiting for the adapter</p>`;
  const order = [...data].sort((a, b) => rank(a) - rank(b));
  const wrong = data.filter((policy) => policy.mistakes.length > 0).length;
  const side = html`<span role="status" class="muted">${plural(data.length, 'policy', 'policies')}, ${number(wrong)} with errors</span>`;
  return html`<${Problem} error=${error} retry=${retry} />
    <${Panel} title="All policies" id="all-policies" side=${side}>
      ${order.length > 0
        ? html`<ul class="policies">${order.slice(0, 500).map((policy) => html`<${Policy} key=${`${policy.file} ${policy.document} ${policy.policy}`} policy=${policy} />`)}</ul>`
        : html`<p class="muted calm">This adapter has no policies.</p>`}
    <//>`;
}
