// Vercel's AI SDK against a server: a streamed answer, and one with a call. Arguments: the server's address, the model.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { createInterface } from "node:readline";

const [url, name] = process.argv.slice(2);
const model = createOpenAICompatible({ name: "edgert", baseURL: `${url}/v1`, includeUsage: true })(name);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const asked = [];

const streamed = streamText({ model, prompt: "hello" });
let text = "";
for await (const part of streamed.textStream) text += part;
console.log(JSON.stringify({ text, tokens: (await streamed.usage).outputTokens }));

await lines.next(); // the model is to call now
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const get_weather = tool({
  description: "The weather of a city",
  inputSchema: jsonSchema(parameters),
  execute: async ({ city }) => {
    asked.push(city);
    console.log("called");
    await lines.next(); // the model is to answer now
    return "rain";
  },
});
const answer = await generateText({ model, prompt: "The weather?", tools: { get_weather }, stopWhen: stepCountIs(3) });
console.log(JSON.stringify({ text: answer.text, asked }));
process.exit(0);
