import { ChatOpenAI } from '@langchain/openai';

const client = (base) =>
  new ChatOpenAI({ model: 'gpt-4o', maxTokens: 20, apiKey: 'key', configuration: { baseURL: `${base}/v1` } });

export async function plain(base) {
  return (await client(base).invoke('How does water flow?')).content;
}

export async function stream(base) {
  let text = '';
  for await (const chunk of await client(base).stream('How does water flow?')) text += chunk.content;
  return text;
}

export async function tools(base) {
  const parameters = { type: 'object', properties: { city: { type: 'string' } } };
  const tools = [{ type: 'function', function: { name: 'get_weather', parameters } }];
  const call = (await client(base).bindTools(tools).invoke('The weather?')).tool_calls[0];
  return `${call.name} ${call.args.city}`;
}

export async function abort(base) {
  const leaving = new AbortController();
  for await (const chunk of await client(base).stream('Speak slowly.', { signal: leaving.signal })) {
    if (!chunk.content) continue;
    leaving.abort();
    return chunk.content;
  }
}
