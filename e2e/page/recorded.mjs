// The charts of the usage records, with the adapter's own store and requests through Envoy.

import assert from 'node:assert/strict';

const CALLS = [
  { identity: { userid: 'alice', team: 'search' }, model: 'gpt-5.2', tokens: 700 },
  { identity: { userid: 'alice', team: 'search' }, model: 'mistral-large', tokens: 30 },
  { identity: { userid: 'bob', team: 'search' }, model: 'gpt-5.2', tokens: 200 },
  { identity: { userid: 'ci', team: 'platform' }, model: 'mistral-large', tokens: 4000 },
];

export default async function recorded({ open, api, ask, until }) {
  const page = await open({ at: '#usage' });
  const shown = async (calls) => {
    const total = calls.reduce((sum, { tokens }) => sum + tokens, 0);
    await until('the records', async () => (await api('usage'))[0]?.total === total);
    // The page reads the records once a minute, and when a view is opened.
    await page.getByRole('link', { name: 'Overview', exact: true }).click();
    await page.getByRole('link', { name: 'Usage', exact: true }).click();
    await page.getByText(`${total.toLocaleString('en-US')} tokens in 30 days (UTC)`).waitFor();
  };
  const ranking = async (title) => {
    const rows = page.getByRole('table', { name: `${title} by tokens` }).locator('tbody tr');
    await rows.first().locator('.num').waitFor();
    const row = async (one) => [await one.getByRole('rowheader').textContent(), await one.locator('.num').textContent()];
    return Promise.all((await rows.all()).map(row));
  };
  for (const call of CALLS.slice(0, 3)) await ask(JSON.stringify(call));
  await shown(CALLS.slice(0, 3));
  assert.deepEqual(await ranking('Users'), [['alice', '730 tokens'], ['bob', '200 tokens']]);
  await ask(JSON.stringify(CALLS[3]));
  await shown(CALLS);
  assert.deepEqual(await ranking('Users'), [['ci', '4,000 tokens'], ['alice', '730 tokens'], ['bob', '200 tokens']]);
  assert.deepEqual(await ranking('Models'), [['mistral-large', '4,030 tokens'], ['gpt-5.2', '900 tokens']]);
  assert.deepEqual(await ranking('auth.identity.team'), [['platform', '4,000 tokens'], ['search', '930 tokens']]);
  await page.getByText('Show as a table').click();
  const today = page.getByRole('table', { name: 'Tokens per day and model' }).getByRole('row').last();
  assert.match(await today.textContent(), /4,030.*900/);
}
