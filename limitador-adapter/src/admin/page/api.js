// Calls to the adapter. The token is sent as a header only, and kept for this tab only.

import { createParser } from './vendor/eventsource-parser.js';

const TOKEN = 'weir-token';
const SILENCE = 40_000;
const POLL = 5_000;

let token = sessionStorage.getItem(TOKEN) ?? '';

export const hasToken = () => token !== '';

export function setToken(value) {
  token = value;
  if (value) sessionStorage.setItem(TOKEN, value);
  else sessionStorage.removeItem(TOKEN);
}

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Paths are relative, so that the page works behind a proxy that adds a prefix.
const request = (path, init = {}) => {
  const headers = { ...init.headers };
  if (token) headers.authorization = `Bearer ${token}`;
  return fetch(new URL(`api/${path}`, document.baseURI), {
    ...init, headers, credentials: 'omit', cache: 'no-store', redirect: 'error',
  });
};

async function checked(response) {
  if (response.ok) return response;
  const text = (await response.text()).trim();
  throw new ApiError(response.status, text || `the adapter answered ${response.status}`);
}

export async function get(path, signal) {
  const response = await checked(await request(path, { signal }));
  const total = response.headers.get('x-total-count');
  return { data: await response.json(), total: total === null ? undefined : Number(total) };
}

// The database answers only a few questions about usage at once, so the page asks one after the other.
let turn = Promise.resolve();

export function getInTurn(path, signal) {
  const answer = turn.then(async () => {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await get(path, signal);
      } catch (error) {
        if (error.status !== 429 || attempt >= 8) throw error;
        await pause(500 * (attempt + 1), signal);
      }
    }
  });
  turn = answer.catch(() => {});
  return answer;
}

export async function post(path, body) {
  const headers = { 'content-type': 'application/json' };
  const response = await request(path, { method: 'POST', headers, body: JSON.stringify(body) });
  return (await checked(response)).json();
}

const pause = (milliseconds, signal) =>
  new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener('abort', end);
  });

// Reads one stream of events to its end. `EventSource` cannot send the token.
async function stream(signal, onEvent) {
  const silence = new AbortController();
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENCE);
  };
  heard();
  try {
    const both = AbortSignal.any([signal, silence.signal]);
    const response = await checked(await request('events', { signal: both }));
    const parser = createParser({ onEvent: ({ event, data }) => onEvent(event, JSON.parse(data)) });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      parser.feed(value);
    }
  } finally {
    clearTimeout(timer);
  }
}

// Follows the adapter until the signal. `on.overview`, `on.problem`, `on.away` (with the reason) and `on.denied` are
// called as things change.
export async function follow(signal, on) {
  let wait = 500;
  while (!signal.aborted) {
    try {
      await stream(signal, (event, data) => {
        wait = 500;
        if (event === 'overview') on.overview(data);
        else on.problem(data);
      });
      // The adapter ends streams when it stops, and when the token is replaced.
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401 || error.status === 403) {
        on.denied(error);
        return;
      }
      if (error.status === 503) {
        // There are too many listeners.
        await poll(signal, on);
        continue;
      }
      on.away();
    }
    await pause(wait * (0.75 + Math.random() / 2), signal);
    wait = Math.min(wait * 2, 10_000);
  }
}

async function poll(signal, on) {
  try {
    on.overview((await get('overview', signal)).data);
  } catch (error) {
    if (signal.aborted) return;
    if (error.status === 401 || error.status === 403) on.denied(error);
    else if (error.status) on.problem(error.message);
    else on.away();
  }
  await pause(POLL, signal);
}
