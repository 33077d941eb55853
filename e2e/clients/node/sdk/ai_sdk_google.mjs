import { createGoogleGenerativeAI } from '@ai-sdk/google';
import { generateText, streamText } from 'ai';

const ask = { maxOutputTokens: 20, prompt: 'How does water flow?' };
const model = (base) => createGoogleGenerativeAI({ baseURL: `${base}/v1beta`, apiKey: 'key' })('gemini-3-pro');

export async function plain(base) {
  return (await generateText({ ...ask, model: model(base) })).text;
}

export async function stream(base) {
  let text = '';
  for await (const part of streamText({ ...ask, model: model(base) }).textStream) text += part;
  return text;
}
