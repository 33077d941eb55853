// 100,000 buckets: the page paints at once, stays responsive, and finds any of them.

import assert from 'node:assert/strict';

export default async function many({ open, api }) {
  const observe = (page) => page.addInitScript(() => {
    globalThis.longest = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) globalThis.longest = Math.max(globalThis.longest, entry.duration);
    }).observe({ type: 'longtask', buffered: true });
  });
  for (const at of ['', '#buckets']) {
    const page = await open({ at, prepare: observe });
    const rows = page.locator('table tbody tr');
    await page.getByRole('rowheader').first().waitFor();
    const shown = await page.evaluate(() => performance.now());
    const paint = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
    console.log(`/${at}: first paint after ${Math.round(paint)} ms, data after ${Math.round(shown)} ms, `
      + `longest task ${Math.round(await page.evaluate(() => globalThis.longest))} ms`);
    assert.ok(await rows.count() <= 250, 'the number of rows does not depend on the number of buckets');
    await page.context().close();
  }

  const page = await open({ at: '#buckets', prepare: observe });
  const count = page.locator('.count');
  await count.getByText('1 to 50 of 100,000 buckets').waitFor();
  const search = page.getByLabel('Search');
  await search.fill('user-04711');
  await count.getByText('1 to 1 of 1 bucket', { exact: true }).waitFor();
  const [bucket] = await api('counters?search=user-04711');
  const row = page.getByRole('row', { name: 'user-04711' });
  await row.waitFor();
  assert.equal(await row.locator('.used-cell').textContent(), bucket.used.toLocaleString('en-US'));
  await search.fill('user-0471');
  await count.getByText('1 to 10 of 10 buckets').waitFor();
  await search.fill('');
  await count.getByText('of 100,000 buckets').waitFor();

  // Filters and pages.
  await page.getByLabel('Show').selectOption('At the limit');
  const full = (await api('overview')).full;
  await count.getByText(`of ${full.toLocaleString('en-US')} buckets`).waitFor();
  await page.getByLabel('Show').selectOption('All buckets');
  await page.getByLabel('Sort by').selectOption('Used');
  await count.getByText('1 to 50 of 100,000 buckets').waitFor();
  await page.getByRole('button', { name: 'Next' }).click();
  await count.getByText('51 to 100 of 100,000 buckets').waitFor();
  await page.getByText('Page 2 of 2,000').waitFor();
  // The place is in the URL, so it can be shared and survives a reload.
  await page.reload();
  await count.getByText('51 to 100 of 100,000 buckets').waitFor();
  assert.equal(await page.getByLabel('Sort by').inputValue(), 'used');
  console.log(`longest task while searching: ${Math.round(await page.evaluate(() => globalThis.longest))} ms`);
}
