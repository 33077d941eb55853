import Anthropic, { toFile } from '@anthropic-ai/sdk';

const ask = { model: 'claude-opus-4-5', max_tokens: 15 };
const client = (base) => new Anthropic({ baseURL: base, apiKey: 'key' });
const says = (content) => [{ role: 'user', content }];

export async function plain(base) {
  const answer = await client(base).messages.create({ ...ask, messages: says('How does water flow?') });
  return answer.content[0].text;
}

export async function stream(base) {
  return client(base).messages.stream({ ...ask, messages: says('How does water flow?') }).finalText();
}

export async function tools(base) {
  const input_schema = { type: 'object', properties: { city: { type: 'string' } } };
  const tools = [{ name: 'get_weather', input_schema }];
  const answer = await client(base).messages.create({ ...ask, messages: says('The weather?'), tools });
  return `${answer.content[0].name} ${answer.content[0].input.city}`;
}

export async function upload(base) {
  const file = await toFile(Buffer.from('notes'.repeat(5000)), 'notes.txt', { type: 'text/plain' });
  return (await client(base).beta.files.upload({ file })).filename;
}

export async function count(base) {
  const asked = { model: ask.model, messages: says('How does water flow?') };
  return String((await client(base).messages.countTokens(asked)).input_tokens);
}

export async function abort(base) {
  const asked = { ...ask, messages: says('Speak slowly.'), stream: true };
  for await (const event of await client(base).messages.create(asked)) {
    if (event.type === 'content_block_delta') return event.delta.text;
  }
}
