// The frame of the page: sign-in, navigation, and the connection to the adapter.

import { render } from './vendor/preact.js';
import { useCallback, useEffect, useRef, useState } from './vendor/hooks.js';
import { follow, hasToken, setToken } from './api.js';
import { time } from './format.js';
import { html } from './parts.js';
import { Overview } from './overview.js';
import { Buckets } from './buckets.js';
import { Usage } from './usage.js';
import { Refusals } from './refusals.js';
import { Warnings } from './warnings.js';
import { Policies } from './policies.js';

const VIEWS = {
  overview: { title: 'Overview', view: Overview },
  buckets: { title: 'Buckets', view: Buckets },
  usage: { title: 'Usage', view: Usage },
  refusals: { title: 'Refusals', view: Refusals },
  warnings: { title: 'Warnings', view: Warnings },
  policies: { title: 'Policies', view: Policies },
};

const THEME = 'weir-theme';
const THEMES = { auto: 'System', light: 'Light', dark: 'Dark' };

// "#buckets?policy=default%2Fllm" as a view and its parameters.
function place() {
  const [name, query = ''] = location.hash.slice(1).split('?');
  return { name: Object.hasOwn(VIEWS, name) ? name : 'overview', query: new URLSearchParams(query) };
}

function useTheme() {
  const [theme, setTheme] = useState(() => {
    const stored = localStorage.getItem(THEME);
    return Object.hasOwn(THEMES, stored) ? stored : 'auto';
  });
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem(THEME, theme);
    dispatchEvent(new Event('weir-theme'));
  }, [theme]);
  return [theme, setTheme];
}

// `status` is one of connecting, live, away, problem, denied, paused.
function useLive(isPaused, round) {
  const [live, setLive] = useState({ status: 'connecting' });
  const [isHidden, setHidden] = useState(document.hidden);
  useEffect(() => {
    const change = () => setHidden(document.hidden);
    document.addEventListener('visibilitychange', change);
    return () => document.removeEventListener('visibilitychange', change);
  }, []);
  useEffect(() => {
    if (isPaused || isHidden) return undefined;
    const control = new AbortController();
    setLive((old) => (old.status === 'denied' ? { status: 'connecting' } : old));
    const update = (change) => !control.signal.aborted && setLive((old) => ({ ...old, ...change }));
    follow(control.signal, {
      overview: (overview) => update({ status: 'live', overview, beat: overview.time, problem: undefined }),
      problem: (problem) => update({ status: 'problem', problem }),
      away: () => update({ status: 'away' }),
      denied: (denied) => {
        setLive({ status: 'denied', denied });
        control.abort();
      },
    });
    return () => control.abort();
  }, [isPaused, isHidden, round]);
  return live;
}

function Connection({ live, isPaused, onPause }) {
  const texts = {
    connecting: 'Connecting', live: 'Live', away: 'Adapter unreachable, trying again', problem: 'Counters unavailable',
  };
  const text = isPaused ? 'Paused' : texts[live.status] ?? '';
  return html`<div class="connection">
    <span class=${`dot ${isPaused ? 'paused' : live.status}`} aria-hidden="true"></span>
    <span role="status">${text}</span>
    ${live.overview && html`<span class="clock muted">${time(live.overview.time)}</span>`}
    <button type="button" class="quiet" aria-pressed=${isPaused} onClick=${onPause}>Pause</button>
  </div>`;
}

function SignIn({ denied, onToken }) {
  const [value, setValue] = useState('');
  const field = useRef();
  useEffect(() => field.current?.focus(), []);
  const submit = (event) => {
    event.preventDefault();
    if (value.trim()) onToken(value.trim());
  };
  const isForbidden = denied.status === 403;
  return html`<main class="sign-in" id="content">
    <h1>${isForbidden ? 'The adapter shows no data here' : 'Sign in'}</h1>
    ${isForbidden
      ? html`<p role="alert">${denied.message}</p>
        <p class="muted">Start the adapter with <code>--admin-token-file</code>, then load this page again.</p>`
      : html`<form onSubmit=${submit}>
        <label for="token">Admin token</label>
        <input id="token" ref=${field} type="password" autocomplete="off" spellcheck="false" value=${value}
          aria-invalid=${hasToken()} aria-describedby="token-help" onInput=${(event) => setValue(event.target.value)} />
        ${hasToken() && html`<p class="error" role="alert">The adapter does not accept this token.</p>`}
        <p id="token-help" class="muted">The contents of the file that <code>--admin-token-file</code> names. This tab keeps the token until you close it or sign out.</p>
        <button type="submit" class="primary">Sign in</button>
      </form>`}
  </main>`;
}

function App() {
  const [at, setAt] = useState(place);
  const [theme, setTheme] = useTheme();
  const [isPaused, setPaused] = useState(false);
  const [round, setRound] = useState(0);
  const live = useLive(isPaused, round);
  const heading = useRef();
  useEffect(() => {
    const change = () => {
      setAt((old) => {
        const next = place();
        if (next.name !== old.name) requestAnimationFrame(() => heading.current?.focus());
        return next;
      });
    };
    addEventListener('hashchange', change);
    return () => removeEventListener('hashchange', change);
  }, []);
  const { title, view: View } = VIEWS[at.name];
  useEffect(() => {
    document.title = live.status === 'denied' ? 'Sign in · Weir' : `${title} · Weir`;
  }, [title, live.status]);
  const changeToken = useCallback((value) => {
    setToken(value);
    setRound((n) => n + 1);
  }, []);
  const isDenied = live.status === 'denied';
  return html`
    <a class="skip" href="#content" onClick=${(event) => { event.preventDefault(); (heading.current ?? document.querySelector('input'))?.focus(); }}>Skip to the content</a>
    <header class="top">
      <a class="brand" href="#overview"><img src="page/icon.svg" alt="" width="22" height="22" /><span>Weir</span>
        ${live.overview && html`<span class="version">${live.overview.version}</span>`}</a>
      ${!isDenied && html`
        <nav aria-label="Views">${Object.entries(VIEWS).map(([name, { title: text }]) => html`
          <a key=${name} href=${`#${name}`} aria-current=${name === at.name ? 'page' : undefined}>${text}</a>`)}</nav>
        <${Connection} live=${live} isPaused=${isPaused} onPause=${() => setPaused(!isPaused)} />`}
      <div class="tools">
        <label class="hidden" for="theme">Colours</label>
        <select id="theme" value=${theme} onChange=${(event) => setTheme(event.target.value)}>
          ${Object.entries(THEMES).map(([name, text]) => html`<option key=${name} value=${name}>${text}</option>`)}
        </select>
        ${hasToken() && !isDenied && html`<button type="button" class="quiet" onClick=${() => changeToken('')}>Sign out</button>`}
      </div>
    </header>
    ${isDenied
      ? html`<${SignIn} key=${round} denied=${live.denied} onToken=${changeToken} />`
      : html`<main id="content">
        <h1 tabindex="-1" ref=${heading}>${title}</h1>
        ${live.status === 'problem' && html`<div class="notice bad" role="alert"><p>${live.problem}</p></div>`}
        <${View} key=${at.name} query=${at.query} overview=${live.overview} beat=${live.beat} />
      </main>`}`;
}

const root = document.getElementById('app');
root.replaceChildren();
render(html`<${App} />`, root);
