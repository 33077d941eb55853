// Every view, in light and dark, on a desktop and on a phone: no violation that axe finds, nothing cut off.

import { stub } from './usage.mjs';

const VIEWS = { overview: 'Overview', buckets: 'Buckets', usage: 'Usage', refusals: 'Refusals', warnings: 'Warnings',
  policies: 'Policies' };

export default async function everyone({ open, accessible, signIn, folder }) {
  for (const colorScheme of ['light', 'dark']) {
    for (const [device, width, height] of [['desktop', 1440, 960], ['phone', 320, 720]]) {
      const page = await open({ colorScheme, width, height, prepare: stub, expected: [/status of 401/] });
      await signIn(page);
      for (const [name, title] of Object.entries(VIEWS)) {
        await page.getByRole('link', { name: title, exact: true }).click();
        const heading = page.getByRole('heading', { name: title, level: 1 });
        await heading.waitFor();
        // Whoever uses a screen reader hears the new view.
        if (name !== 'overview') await page.waitForFunction(() => document.activeElement?.tagName === 'H1');
        await page.locator('main .panel').first().waitFor();
        if (name === 'overview' || name === 'usage' || name === 'refusals') await page.locator('.plot canvas').first().waitFor();
        if (name === 'buckets') await page.getByRole('meter').first().waitFor();
        await accessible(page, `${name}, ${colorScheme}, ${device}`);
        if (folder) await page.screenshot({ path: `${folder}/${name}-${colorScheme}-${device}.png`, fullPage: device === 'phone' });
      }
      await page.context().close();
    }
  }
  // The choice of colours wins over the system's.
  const page = await open({ colorScheme: 'light', expected: [/status of 401/] });
  await page.getByLabel('Colours').selectOption('Dark');
  const isDark = () => page.waitForFunction(() => getComputedStyle(document.body).backgroundColor === 'rgb(14, 20, 25)');
  await isDark();
  await page.reload();
  await isDark();
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
}
