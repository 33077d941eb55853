import { createOpenAI } from '@ai-sdk/openai';
import { generateText, jsonSchema, streamText, tool } from 'ai';

const ask = { maxOutputTokens: 20 };
// Uses the Responses API, which is the SDK's default.
const model = (base) => createOpenAI({ baseURL: `${base}/v1`, apiKey: 'key' })('gpt-4o');
const chat = (base) => createOpenAI({ baseURL: `${base}/v1`, apiKey: 'key' }).chat('gpt-4o');

export async function plain(base) {
  return (await generateText({ ...ask, model: model(base), prompt: 'How does water flow?' })).text;
}

export async function stream(base) {
  let text = '';
  for await (const part of streamText({ ...ask, model: model(base), prompt: 'How does water flow?' }).textStream) text += part;
  return text;
}

export async function chat_stream(base) {
  let text = '';
  for await (const part of streamText({ ...ask, model: chat(base), prompt: 'How does water flow?' }).textStream) text += part;
  return text;
}

export async function tools(base) {
  const inputSchema = jsonSchema({ type: 'object', properties: { city: { type: 'string' } } });
  const tools = { get_weather: tool({ description: 'Weather.', inputSchema }) };
  const answer = await generateText({ ...ask, model: model(base), prompt: 'The weather?', tools });
  return `${answer.toolCalls[0].toolName} ${answer.toolCalls[0].input.city}`;
}

export async function abort(base) {
  const leaving = new AbortController();
  const asked = { ...ask, model: model(base), prompt: 'Speak slowly.', abortSignal: leaving.signal };
  for await (const part of streamText(asked).textStream) {
    leaving.abort();
    return part;
  }
}
