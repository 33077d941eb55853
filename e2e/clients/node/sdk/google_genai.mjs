import { GoogleGenAI } from '@google/genai';

const ask = { model: 'gemini-3-pro', contents: 'How does water flow?' };
const config = { maxOutputTokens: 20 };
const client = (baseUrl) => new GoogleGenAI({ apiKey: 'key', httpOptions: { baseUrl } });

export async function plain(base) {
  return (await client(base).models.generateContent({ ...ask, config })).text;
}

export async function stream(base) {
  let text = '';
  for await (const chunk of await client(base).models.generateContentStream({ ...ask, config })) text += chunk.text;
  return text;
}

export async function tools(base) {
  const parameters = { type: 'OBJECT', properties: { city: { type: 'STRING' } } };
  const tools = [{ functionDeclarations: [{ name: 'get_weather', description: 'Weather.', parameters }] }];
  const answer = await client(base).models.generateContent({ ...ask, config: { ...config, tools } });
  return `${answer.functionCalls[0].name} ${answer.functionCalls[0].args.city}`;
}

export async function upload(base) {
  const file = new Blob(['notes'.repeat(5000)], { type: 'text/plain' });
  return (await client(base).files.upload({ file, config: { mimeType: 'text/plain' } })).name;
}

export async function count(base) {
  return String((await client(base).models.countTokens(ask)).totalTokens);
}

export async function abort(base) {
  const asked = { ...ask, contents: 'Speak slowly.' };
  for await (const chunk of await client(base).models.generateContentStream({ ...asked, config })) return chunk.text;
}
