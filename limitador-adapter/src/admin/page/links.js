// Links into the list of buckets.

import { windowName } from './format.js';

export function bucketsLink({ policy, limit, unit, window, period, timeZone, show, sort }) {
  const query = { policy, limit, unit, window: windowName({ window, period, timeZone }), show, sort };
  const set = Object.entries(query).filter(([, value]) => value);
  return `#buckets?${new URLSearchParams(set)}`;
}

// Shows a view with these parameters, without another entry in the browser's history.
export function go(name, query = {}) {
  const set = Object.entries(query).filter(([, value]) => value !== undefined && value !== '');
  const text = new URLSearchParams(set).toString();
  const hash = `#${name}${text ? `?${text}` : ''}`;
  if (location.hash === hash) return;
  history.replaceState(null, '', hash);
  dispatchEvent(new HashChangeEvent('hashchange'));
}
