// Runs an SDK's cases, and prints one line of JSON for each.
// Usage: run.mjs SDK '{"case": "http://127.0.0.1:PORT", ...}'
const [name, cases] = process.argv.slice(2);
const sdk = await import(`./sdk/${name}.mjs`);

async function play(name, base) {
  if (name === 'short' || name === 'long') {
    // The first call uses up the limit.
    await sdk.plain(base);
    return sdk.plain(base);
  }
  return name === 'never' ? sdk.plain(base) : sdk[name](base);
}

for (const [name, base] of Object.entries(JSON.parse(cases))) {
  const begun = performance.now();
  let result;
  try {
    result = { text: await play(name, base) };
  } catch (error) {
    result = { error: `${error?.constructor?.name}: ${error?.message} ${error?.body ?? ''}` };
  }
  console.log(JSON.stringify({ case: name, seconds: (performance.now() - begun) / 1000, ...result }));
}
process.exit();
