import OpenAI, { toFile } from 'openai';

const ask = { model: 'gpt-4o', max_tokens: 20 };
const client = (base) => new OpenAI({ baseURL: `${base}/v1`, apiKey: 'key' });
const says = (content) => [{ role: 'user', content }];

export async function plain(base) {
  const answer = await client(base).chat.completions.create({ ...ask, messages: says('How does water flow?') });
  return answer.choices[0].message.content;
}

export async function stream(base) {
  const asked = { ...ask, messages: says('How does water flow?'), stream: true };
  let text = '';
  // The client did not ask for usage, so every chunk has a choice.
  for await (const chunk of await client(base).chat.completions.create(asked)) text += chunk.choices[0].delta.content;
  return text;
}

export async function tools(base) {
  const parameters = { type: 'object', properties: { city: { type: 'string' } } };
  const tools = [{ type: 'function', function: { name: 'get_weather', parameters } }];
  const answer = await client(base).chat.completions.create({ ...ask, messages: says('The weather?'), tools });
  const call = answer.choices[0].message.tool_calls[0].function;
  return `${call.name} ${call.arguments}`;
}

export async function upload(base) {
  const file = await toFile(Buffer.from('{}\n'.repeat(5000)), 'notes.jsonl');
  return (await client(base).files.create({ file, purpose: 'batch' })).filename;
}

export async function abort(base) {
  const asked = { ...ask, messages: says('Speak slowly.'), stream: true };
  for await (const chunk of await client(base).chat.completions.create(asked)) return chunk.choices[0].delta.content;
}

export async function responses(base) {
  const asked = { model: 'gpt-5', input: 'How does water flow?', max_output_tokens: 20 };
  return (await client(base).responses.create(asked)).output_text;
}

export async function responses_stream(base) {
  const asked = { model: 'gpt-5', input: 'How does water flow?', max_output_tokens: 20, stream: true };
  let text = '';
  for await (const event of await client(base).responses.create(asked)) {
    if (event.type === 'response.output_text.delta') text += event.delta;
  }
  return text;
}
