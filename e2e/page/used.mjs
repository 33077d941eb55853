// What the page shows is what was used, also while requests run through Envoy.

import assert from 'node:assert/strict';

const numberOf = (text) => Number(text.replaceAll(',', ''));

export default async function used({ open, api, ask, until }) {
  const page = await open({ at: '#buckets?unit=tokens', expected: [/net::ERR_/] });
  const cell = (kind) => page.getByRole('row', { name: 'alice' }).locator(`.${kind}-cell`);
  const shown = async (kind) => numberOf(await cell(kind).textContent());
  const counted = async () => (await api('counters?unit=tokens&counter=auth.identity.userid:alice'))[0];
  await ask('start');
  await cell('used').waitFor();
  let last = 0;
  for (let round = 0; round < 5; round += 1) {
    // The page is at most a few seconds behind. It never shows more than was used, and what it shows only grows.
    await until('the page shows more', async () => (await shown('used')) > last);
    last = await shown('used');
    assert.ok(last <= (await counted()).used, 'no more than was used');
  }
  const sent = Number(await ask('stop'));
  assert.equal((await counted()).used, sent, 'what the provider reported was charged');
  await until('the page shows all of it', async () => (await shown('used')) === sent);

  // A request that waits for its answer holds its amount.
  await ask('hold');
  await until('the page shows the hold', async () => (await shown('held')) === 100);
  const bar = page.getByRole('row', { name: 'alice' }).getByRole('meter');
  assert.match(await bar.getAttribute('aria-valuetext'), /used and 100 held of 100,000,000 tokens/);
  await ask('release');
  await until('the page shows its end', async () => (await shown('held')) === 0);

  // Refusals and their causes.
  await ask('refuse');
  await page.getByRole('link', { name: 'Refusals', exact: true }).click();
  const refusal = page.locator('#latest').locator('..').locator('..').getByRole('row', { name: 'bob' }).first();
  await refusal.waitFor();
  assert.match(await refusal.textContent(), /Used up/);
  await page.getByRole('link', { name: 'Overview', exact: true }).click();
  await until('the overview counts it', async () => /Refused in the last hour1/.test(await page.locator('.tiles').textContent()));

  // Bob's bucket reached both thresholds with one charge.
  await page.getByRole('heading', { name: 'Warnings' }).waitFor();
  await page.getByRole('link', { name: 'Warnings', exact: true }).click();
  const warned = page.getByRole('table', { name: 'The latest 100 warnings' }).getByRole('row', { name: 'bob' });
  const reached = async () => (await warned.getByRole('cell').filter({ hasText: /^\d+%$/ }).allTextContents()).sort();
  await until('both warnings', async () => (await reached()).length === 2);
  assert.deepEqual(await reached(), ['100%', '80%']);
  assert.match(await warned.first().textContent(), /100,000,000 tokens/);
  await page.getByRole('link', { name: 'Overview', exact: true }).click();

  // The adapter restarts with empty counters. The page notices, and follows the new one.
  await ask('kill');
  await page.getByText('Adapter unreachable, trying again').waitFor();
  await ask('restart');
  await page.getByText('Live', { exact: true }).waitFor();
  await until('the counters of the new adapter', async () => /Buckets0/.test(await page.locator('.tiles').textContent()));
}
