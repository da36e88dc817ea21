// What a JavaScript program does with this server, by OpenAI's own client. Prints one JSON object of what came back.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, maxRetries: 0 });
const messages = [{ role: "user", content: "你好" }];
const seeded = { model: "allinone", messages, seed: 3, temperature: 0.7, max_tokens: 12 };
const found = {};

const whole = await client.chat.completions.create({ ...seeded, logprobs: true, top_logprobs: 2 });
found.whole = whole.choices[0].message.content;
// a character may be spread over several tokens: their bytes are joined, not their texts
const spelled = whole.choices[0].logprobs.content.flatMap((token) => token.bytes);
found.told = new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(spelled));
found.usage = whole.usage;

found.streamed = "";
const stream = await client.chat.completions.create({ ...seeded, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  found.streamed += chunk.choices[0]?.delta?.content ?? "";
  found.streamedUsage = chunk.usage ?? found.streamedUsage;
}

const helper = client.chat.completions.stream(seeded);
found.helped = await helper.finalContent();

const label = await client.chat.completions.create({
  model: "allinone/sentiment",
  messages: [{ role: "user", content: "今天的实验终于成功了,太棒了!" }],
  logprobs: true,
});
found.label = label.choices[0].message.content;
found.labelLogprob = label.choices[0].logprobs.content[0].logprob;

const held = await client.chat.completions.create({
  ...seeded,
  max_tokens: 60,
  response_format: {
    type: "json_schema",
    json_schema: {
      name: "verdict",
      strict: true,
      schema: {
        type: "object",
        properties: { mood: { type: "string", enum: ["good", "bad"] } },
        required: ["mood"],
        additionalProperties: false,
      },
    },
  },
});
found.mood = JSON.parse(held.choices[0].message.content).mood;

const completion = await client.completions.create({ model: "allinone", prompt: ["从前", "有一天"], max_tokens: 4 });
found.numTexts = completion.choices.length;

const packed = await client.embeddings.create({ model: "allinone", input: ["今天很开心", "天气不错"] });
const plain = await client.embeddings.create({ model: "allinone", input: "天气不错", encoding_format: "float" });
found.sizes = packed.data.map((item) => item.embedding.length);
found.isSame = packed.data[1].embedding.every((value, place) => Math.abs(value - plain.data[0].embedding[place]) < 1e-6);

found.models = [];
for await (const model of client.models.list()) found.models.push(model.id);
found.model = (await client.models.retrieve("allinone/sentiment")).id;

found.errors = [];
for (const fields of [{ model: "none" }, { tools: [{ type: "function", function: { name: "f" } }] }]) {
  try {
    await client.chat.completions.create({ ...seeded, ...fields });
  } catch (error) {
    found.errors.push({ name: error.constructor.name, status: error.status, param: error.param, says: error.message });
  }
}

const left = await client.chat.completions.create({ ...seeded, max_tokens: 3000, stream: true });
for await (const chunk of left) break; // aborts the request

console.log(JSON.stringify(found));
