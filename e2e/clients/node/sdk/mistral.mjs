import { Mistral } from '@mistralai/mistralai';

const ask = { model: 'mistral-large', maxTokens: 20 };
const says = (content) => [{ role: 'user', content }];
const client = (serverURL) => new Mistral({ apiKey: 'key', serverURL });

export async function plain(base) {
  const answer = await client(base).chat.complete({ ...ask, messages: says('How does water flow?') });
  return answer.choices[0].message.content;
}

export async function stream(base) {
  let text = '';
  const asked = { ...ask, messages: says('How does water flow?') };
  for await (const event of await client(base).chat.stream(asked)) text += event.data.choices[0].delta.content;
  return text;
}

export async function tools(base) {
  const parameters = { type: 'object', properties: { city: { type: 'string' } } };
  const tools = [{ type: 'function', function: { name: 'get_weather', parameters } }];
  const answer = await client(base).chat.complete({ ...ask, messages: says('The weather?'), tools });
  const call = answer.choices[0].message.toolCalls[0].function;
  return `${call.name} ${call.arguments}`;
}

export async function upload(base) {
  const file = { fileName: 'notes.jsonl', content: Buffer.from('{}\n'.repeat(5000)) };
  return (await client(base).files.upload({ file, purpose: 'batch' })).filename;
}

export async function abort(base) {
  for await (const event of await client(base).chat.stream({ ...ask, messages: says('Speak slowly.') })) {
    return event.data.choices[0].delta.content;
  }
}
