// Plays one scenario in Chromium: `node run.mjs NAME JSON`. The test that runs it also does what a browser cannot: a
// scenario asks for it on stdout, and waits for a line on stdin.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { readFileSync } from 'node:fs';

const [name, settings] = process.argv.slice(2);
const { url, token, folder } = JSON.parse(settings);
const require = createRequire(`${process.env.WEIR_PAGE_MODULES}/node_modules/`);
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// Asks the test to do something, and returns what it answers.
async function ask(what) {
  console.log(`ask ${what}`);
  return (await answers.next()).value;
}

const browser = await chromium.launch({ executablePath: process.env.WEIR_CHROMIUM, args: ['--no-sandbox', '--disable-dev-shm-usage'] });

// Opens a new page. What it logs as an error, and what its security policy forbids, fails the scenario.
const problems = [];
async function open({ colorScheme = 'light', width = 1440, height = 900, at = '', expected = [], prepare } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, reducedMotion: 'reduce' });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const report = (text) => {
    if (!expected.some((pattern) => pattern.test(text))) problems.push(text);
  };
  page.on('console', (message) => message.type() === 'error' && report(message.text()));
  page.on('pageerror', (error) => report(`${error.stack ?? error}`));
  page.on('dialog', (dialog) => { report(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  await prepare?.(page);
  await page.goto(`${url}/${at}`);
  return page;
}

async function api(path, init = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const response = await fetch(`${url}/api/${path}`, { ...init, headers });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

// Fails with every violation that axe finds.
async function accessible(page, what) {
  const violations = await page.evaluate(`(async () => {
    ${axe}
    const { violations } = await axe.run(document, { resultTypes: ['violations'] });
    return violations.flatMap(({ id, help, nodes }) => nodes.map((node) => id + ': ' + help + ': ' + node.html.slice(0, 200) + ' ' + node.failureSummary));
  })()`);
  if (violations.length > 0) throw new Error(`${what}: ${violations.join('\n')}`);
  // Nothing is cut off at the side, except in a box of its own.
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (overflow > 0) throw new Error(`${what}: the page is ${overflow} pixels too wide`);
}

async function signIn(page, value = token) {
  await page.getByLabel('Admin token').fill(value);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

// Waits until a condition holds.
async function until(what, condition) {
  const end = Date.now() + 30_000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

try {
  const { default: scenario } = await import(`./${name}.mjs`);
  await scenario({ open, api, ask, accessible, signIn, until, url, token, folder });
  if (problems.length > 0) throw new Error(`the page reports errors:\n${problems.join('\n')}`);
  console.log('passed');
} catch (error) {
  console.log(problems.join('\n'));
  console.log(error.stack);
  process.exitCode = 1;
} finally {
  await browser.close();
  process.exit();
}
