// The charts of the usage records, against answers as the API's contract describes them.

import assert from 'node:assert/strict';

const DAY = 86_400_000;
const day = (back) => new Date(Date.now() - back * DAY).toISOString().slice(0, 10);

export const ROWS = Array.from({ length: 30 }, (_, back) => [
  { user: 'alice', team: 'search', model: 'gpt-5.2', policy: 'default/llm', share: 5 },
  { user: 'bob', team: 'search', model: 'claude-sonnet-4-6', policy: 'default/llm', share: 3 },
  { user: 'support-agent', team: 'support', model: 'claude-haiku-4-6', policy: 'default/agents', share: 6 },
  { user: 'ci', team: 'platform', model: 'mistral-large', policy: 'default/llm', share: 1 },
].map(({ share, ...row }) => {
  const weekend = [0, 6].includes(new Date(Date.now() - back * DAY).getUTCDay()) ? 0.3 : 1;
  const total = Math.round(share * weekend * (90_000 + 9_000 * ((back * 7) % 5)));
  const input = Math.round(total * 0.7);
  return { ...row, day: day(back), requests: Math.round(total / 1800), input, cached: Math.round(input / 3), cacheWrite: 0,
    output: total - input, reasoning: 0, total, microUsd: total * 4 };
})).flat();

// How the page writes a number under a chart. On weekends, the rows have less than 100,000 tokens.
const compact = new Intl.NumberFormat('en-US', { notation: 'compact', maximumSignificantDigits: 3 });
const shown = (value) => (value < 100_000 ? value.toLocaleString('en-US') : compact.format(value));

// Answers like the adapter: sums by the fields that the query names.
export async function stub(page, rows = ROWS) {
  await page.route('**/api/usage?*', (route) => {
    const query = new URL(route.request().url()).searchParams;
    const by = query.get('by').split(',');
    const groups = new Map();
    for (const row of rows.filter(({ day: of }) => of >= query.get('from') && of < query.get('to'))) {
      const values = by.map((field) => (field === 'counter:auth.identity.team' ? ['auth.identity.team', row.team] : [field, row[field]]));
      const key = JSON.stringify(values);
      const group = groups.get(key) ?? Object.fromEntries(values);
      for (const field of ['requests', 'input', 'cached', 'cacheWrite', 'output', 'reasoning', 'total', 'microUsd']) {
        group[field] = (group[field] ?? 0) + row[field];
      }
      groups.set(key, group);
    }
    return route.fulfill({ json: [...groups.values()] });
  });
}

export default async function usage({ open, accessible }) {
  const page = await open({ at: '#usage', prepare: stub });
  const sum = (field, rows = ROWS) => rows.reduce((total, row) => total + row[field], 0);
  await page.getByText(`${sum('total').toLocaleString('en-US')} tokens in 30 days (UTC)`).waitFor();
  await page.locator('.plot canvas').waitFor();
  const users = page.getByRole('table', { name: 'Users by tokens' });
  const names = await users.getByRole('rowheader').allTextContents();
  assert.deepEqual(names, ['support-agent', 'alice', 'bob', 'ci']);
  const alice = sum('total', ROWS.filter(({ user }) => user === 'alice'));
  await users.getByText(`${alice.toLocaleString('en-US')} tokens`).waitFor();
  const teams = page.getByRole('table', { name: 'auth.identity.team by tokens' });
  assert.deepEqual(await teams.getByRole('rowheader').allTextContents(), ['search', 'support', 'platform']);
  await page.getByRole('heading', { name: 'Models' }).waitFor();
  await page.getByRole('heading', { name: 'Policies' }).waitFor();

  // The table under the chart has the chart's numbers.
  await page.getByText('Show as a table').click();
  const table = page.getByRole('table', { name: 'Tokens per day and model' });
  const row = await table.getByRole('row').last().textContent();
  const today = ROWS.filter((one) => one.day === day(0));
  assert.ok(row.startsWith(day(0)), row);
  assert.ok(row.includes(shown(today[1].total)), row);
  await accessible(page, 'usage');

  await page.getByLabel('Measure').selectOption('USD');
  await page.getByText(/^\$[\d,.]+ in 30 days \(UTC\)$/).waitFor();
  await page.getByLabel('Days').selectOption('Last 7 days');
  const week = ROWS.filter((one) => one.day >= day(6));
  const dollars = (sum('microUsd', week) / 1e6).toLocaleString('en-US', { style: 'currency', currency: 'USD', maximumFractionDigits: 6 });
  await page.getByText(`${dollars} in 7 days (UTC)`).waitFor();
}
