import { CohereClientV2 } from 'cohere-ai';

const ask = { model: 'command-a', maxTokens: 20 };
const says = (content) => [{ role: 'user', content }];
const client = (base) => new CohereClientV2({ token: 'key', environment: base });

export async function plain(base) {
  const answer = await client(base).chat({ ...ask, messages: says('How does water flow?') });
  return answer.message.content[0].text;
}

export async function stream(base) {
  let text = '';
  for await (const event of await client(base).chatStream({ ...ask, messages: says('How does water flow?') })) {
    if (event.type === 'content-delta') text += event.delta.message.content.text;
  }
  return text;
}

export async function tools(base) {
  const parameters = { type: 'object', properties: { city: { type: 'string' } } };
  const tools = [{ type: 'function', function: { name: 'get_weather', parameters } }];
  const answer = await client(base).chat({ ...ask, messages: says('The weather?'), tools });
  const call = answer.message.toolCalls[0].function;
  return `${call.name} ${call.arguments}`;
}

export async function abort(base) {
  for await (const event of await client(base).chatStream({ ...ask, messages: says('Speak slowly.') })) {
    if (event.type === 'content-delta') return event.delta.message.content.text;
  }
}
