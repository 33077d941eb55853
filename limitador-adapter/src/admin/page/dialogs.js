// The two changes that an operator can make. Both show whom they concern, and ask before they act.

import { useEffect, useRef, useState } from './vendor/hooks.js';
import { post } from './api.js';
import { plural, quantity, windowName, windowOf } from './format.js';
import { html, whoText } from './parts.js';

const bodyOf = (bucket) => ({
  policy: bucket.policy, limit: bucket.limit, unit: bucket.unit, window: windowName(bucket), counters: bucket.counters,
});

// `crypto.randomUUID` exists only where the page is loaded over HTTPS or from this machine.
const newId = () => `page-${[...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`;

function Dialog({ title, children, action, onSubmit, onClose }) {
  const dialog = useRef();
  const [error, setError] = useState('');
  const [isBusy, setBusy] = useState(false);
  useEffect(() => {
    const shown = dialog.current;
    shown.showModal();
    return () => shown.open && shown.close();
  }, []);
  // It is closed while it is still part of the page, so that the focus returns to where it was.
  const finish = (text) => {
    dialog.current?.close();
    onClose(text);
  };
  const submit = async (event) => {
    event.preventDefault();
    if (isBusy) return;
    setBusy(true);
    setError('');
    try {
      finish(await onSubmit());
    } catch (problem) {
      setError(problem.message);
      setBusy(false);
    }
  };
  const cancel = (event) => {
    event.preventDefault();
    finish();
  };
  return html`<dialog ref=${dialog} aria-labelledby="dialog-title" onCancel=${cancel}>
    <form onSubmit=${submit}>
      <h2 id="dialog-title">${title}</h2>
      ${children}
      <p class=${error ? 'error' : 'hidden'} role="alert">${error}</p>
      <div class="dialog-buttons">
        <button type="button" onClick=${cancel}>Cancel</button>
        <button type="submit" class="primary" disabled=${isBusy}>${action}</button>
      </div>
    </form>
  </dialog>`;
}

function Subject({ bucket }) {
  return html`<dl class="subject">
    <div><dt>Who</dt><dd><bdi>${whoText(bucket)}</bdi></dd></div>
    <div><dt>Limit</dt><dd><bdi>${bucket.policy}/${bucket.limit}</bdi>, ${windowOf(bucket)}</dd></div>
    <div><dt>Used now</dt><dd>${quantity(bucket.used, bucket.unit)}${bucket.held > 0 ? `, and ${quantity(bucket.held, bucket.unit)} held` : ''}</dd></div>
  </dl>`;
}

export function ResetDialog({ bucket, onClose }) {
  const reset = async () => {
    const { reset: count } = await post('counters/reset', bodyOf(bucket));
    return count === 0 ? 'There was nothing to reset.' : `${plural(count, 'bucket')} reset.`;
  };
  return html`<${Dialog} title="Reset this bucket?" action="Reset" onSubmit=${reset} onClose=${onClose}>
    <${Subject} bucket=${bucket} />
    <p>A new window starts. What was used and granted in this one no longer counts. Requests in flight keep their holds, and are charged in the new window.</p>
  <//>`;
}

export function GrantDialog({ bucket, onClose }) {
  const [text, setText] = useState('');
  // Repeating a grant with the same id changes nothing, so that a second click does no harm.
  const [id] = useState(newId);
  const isMoney = bucket.unit === 'usd';
  const grant = async () => {
    const value = isMoney ? Math.round(Number(text) * 1e6) : Number(text);
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new Error(isMoney ? 'Enter an amount in USD.' : 'Enter a whole number of at least 1.');
    }
    const after = await post('counters/grant', { ...bodyOf(bucket), amount: value, id });
    return `${quantity(value, bucket.unit)} granted. ${quantity(after.remaining, after.unit)} remain in this window.`;
  };
  return html`<${Dialog} title="Grant more until the window ends" action="Grant" onSubmit=${grant} onClose=${onClose}>
    <${Subject} bucket=${bucket} />
    <label for="grant-amount">Additional ${isMoney ? 'USD' : quantity(2, bucket.unit).replace(/^\S+ /, '')}</label>
    <input id="grant-amount" inputmode=${isMoney ? 'decimal' : 'numeric'} autocomplete="off" required value=${text}
      onInput=${(event) => setText(event.target.value)} />
  <//>`;
}
