// Signing in, resetting and granting, with the keyboard too, and values that try to be markup.

import assert from 'node:assert/strict';

const refused = [/status of 40[13]/];

export default async function operator({ open, api, signIn, until, accessible, token, url }) {
  const page = await open({ expected: refused });
  await page.getByLabel('Admin token').waitFor();
  assert.equal(await page.getByRole('navigation').count(), 0, 'nothing is shown without the token');
  await accessible(page, 'the sign-in form');
  await signIn(page, 'wrong');
  await page.getByText('The adapter does not accept this token.').waitFor();
  await signIn(page);
  await page.getByRole('navigation', { name: 'Views' }).waitFor();
  assert.ok(!page.url().includes(token), 'the token is in no URL');
  await page.reload();
  await page.getByText('Live', { exact: true }).waitFor();

  // Tenants choose the values of counters.
  const evil = '<img src=x onerror="document.body.dataset.evil=1">';
  await page.getByRole('link', { name: 'Buckets', exact: true }).click();
  const evilRow = page.getByRole('row').filter({ hasText: evil });
  await evilRow.waitFor();
  assert.equal(await page.locator('img[src=x]').count(), 0);
  await evilRow.getByRole('button', { name: 'Reset' }).click();
  await page.getByRole('dialog').getByText(evil).waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  assert.equal(await page.evaluate(() => document.body.dataset.evil), undefined);

  // A reset, with the keyboard alone.
  const used = async (who) => (await api(`counters?counter=auth.identity.userid:${who}&unit=tokens`))[0]?.used ?? 0;
  assert.equal(await used('alice'), 900);
  await page.getByLabel('Search').focus();
  await page.keyboard.type('alice');
  await page.getByText('1 to 1 of 1 bucket', { exact: true }).waitFor();
  await until('the button has the focus', async () => {
    await page.keyboard.press('Tab');
    return page.evaluate(() => document.activeElement.textContent === 'Reset');
  });
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(outline, 'solid', 'the focus is visible');
  await page.keyboard.press('Enter');
  const dialog = page.getByRole('dialog');
  await dialog.getByText('900 tokens').waitFor();
  await accessible(page, 'the dialog');
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'detached' });
  assert.equal(await used('alice'), 900, 'a cancelled reset changes nothing');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Reset', 'the focus returns');
  await page.keyboard.press('Enter');
  await dialog.getByRole('button', { name: 'Reset' }).click();
  await page.getByText('1 bucket reset.').waitFor();
  assert.equal(await used('alice'), 0);
  await page.getByText('No bucket matches.').waitFor();

  // A grant.
  await page.getByLabel('Search').fill('bob');
  const bob = page.getByRole('row', { name: 'bob' });
  await bob.getByRole('button', { name: 'Grant' }).click();
  await dialog.getByLabel('Additional tokens').fill('1.5');
  await dialog.getByRole('button', { name: 'Grant' }).click();
  await dialog.getByText('Enter a whole number of at least 1.').waitFor();
  await dialog.getByLabel('Additional tokens').fill('500');
  await dialog.getByRole('button', { name: 'Grant' }).click();
  await page.getByText('500 tokens granted. 600 tokens remain in this window.').waitFor();
  await bob.getByText('with 500 tokens granted').waitFor();
  assert.equal((await api('counters?search=bob'))[0].granted, 500);

  // The token is sent in a header only, so another site's form changes nothing.
  const forged = await fetch(`${url}/api/counters/reset`, { method: 'POST', body: JSON.stringify({ policy: 'default/llm' }) });
  assert.equal(forged.status, 401);
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByLabel('Admin token').waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await page.reload();
  await page.getByLabel('Admin token').waitFor();
}
