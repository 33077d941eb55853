import { createAnthropic } from '@ai-sdk/anthropic';
import { generateText, streamText } from 'ai';

const ask = { maxOutputTokens: 15, prompt: 'How does water flow?' };
const model = (base) => createAnthropic({ baseURL: `${base}/v1`, apiKey: 'key' })('claude-opus-4-5');

export async function plain(base) {
  return (await generateText({ ...ask, model: model(base) })).text;
}

export async function stream(base) {
  let text = '';
  for await (const part of streamText({ ...ask, model: model(base) }).textStream) text += part;
  return text;
}
