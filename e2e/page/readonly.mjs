// Without a configured token: everything can be read on this machine, and nothing can be changed. Usage records are off.

import assert from 'node:assert/strict';

export default async function readonly({ open }) {
  const page = await open({ at: '#buckets', expected: [/status of 404/] });
  await page.getByText('Read only.').waitFor();
  await page.getByRole('rowheader').first().waitFor();
  assert.equal(await page.getByRole('button', { name: 'Reset' }).count(), 0);
  assert.equal(await page.getByRole('button', { name: 'Grant' }).count(), 0);
  assert.equal(await page.getByRole('button', { name: 'Sign out' }).count(), 0);
  await page.getByRole('link', { name: 'Usage', exact: true }).click();
  await page.getByText('This adapter keeps no usage records (--usage).').waitFor();
  await page.getByRole('link', { name: 'Policies', exact: true }).click();
  await page.getByText('limits.free.rates[0].limit').first().waitFor();
  await page.getByText('not in force').first().waitFor();
  await page.getByRole('link', { name: 'Overview', exact: true }).click();
  await page.getByRole('heading', { name: 'Needs attention' }).waitFor();

  // A pause stops all updates.
  const button = page.getByRole('button', { name: 'Pause' });
  await button.click();
  await page.getByText('Paused').waitFor();
  assert.equal(await button.getAttribute('aria-pressed'), 'true');
  await button.click();
  await page.getByText('Live', { exact: true }).waitFor();
}
