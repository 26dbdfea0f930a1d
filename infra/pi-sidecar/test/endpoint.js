/** A model for these tests: answers what it is told to, as OpenAI would stream it. */

import { mkdtemp, realpath, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LineWriter } from "../src/lines.js";
import { MAX_LINE_BYTES } from "../src/protocol.js";
import { Sidecar } from "../src/sidecar.js";

const delta = (content, finish_reason = null) => ({ choices: [{ index: 0, delta: content, finish_reason }] });

/** @param {string} text one chunk a word */
export const say = (text) => [...text.split(" ").map((word) => delta({ content: `${word} ` })), delta({}, "stop")];

/** @param {string} name @param {object} args */
export const call = (name, args) => [
	delta({ tool_calls: [{ index: 0, id: `call-${name}`, type: "function", function: { name, arguments: JSON.stringify(args) } }] }),
	delta({}, "tool_calls"),
];

/** Never ends. */
export const HANG = Symbol("hang");

/**
 * @param {any[]} script one entry per model call; the last one is repeated
 * @returns {Promise<{url: string, requests: {headers: any, body: any}[], closed: number, close: () => void}>}
 */
export async function openEndpoint(script) {
	const endpoint = { url: "", requests: [], closed: 0, close: () => {} };
	const server = createServer(async (request, response) => {
		const chunks = [];
		for await (const chunk of request) chunks.push(chunk);
		endpoint.requests.push({ headers: request.headers, body: JSON.parse(Buffer.concat(chunks).toString()) });
		response.on("close", () => response.writableEnded || endpoint.closed++);
		const step = script[Math.min(endpoint.requests.length, script.length) - 1];
		if (step === HANG) return;
		if (step.status) {
			response.writeHead(step.status, step.headers).end(step.body ?? "{}");
			return;
		}
		response.writeHead(200, { "content-type": "text/event-stream" });
		for (const chunk of step) response.write(`data: ${JSON.stringify({ id: "x", object: "chat.completion.chunk", ...chunk })}\n\n`);
		response.end("data: [DONE]\n\n");
	});
	await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
	endpoint.url = `http://127.0.0.1:${server.address().port}/v1`;
	endpoint.close = () => {
		server.closeAllConnections();
		server.close();
	};
	return endpoint;
}

/** What a sidecar writes, as objects; `until` waits for a line. */
export class Lines {
	constructor() {
		this.all = [];
		this.waiters = [];
	}

	write(text) {
		this.all.push(JSON.parse(text));
		this.waiters = this.waiters.filter((waiter) => !waiter());
		return true;
	}

	once() {}

	/** @param {(line: any) => boolean} wanted @returns {Promise<any>} */
	until(wanted) {
		return new Promise((resolve) => {
			const look = () => {
				const found = this.all.find(wanted);
				if (found) resolve(found);
				return found !== undefined;
			};
			if (!look()) this.waiters.push(look);
		});
	}
}

/** A sidecar with its output, a working directory, and a `run` line for an endpoint. @param {import("node:test").TestContext} test */
export async function openSidecar(test, script) {
	const endpoint = await openEndpoint(script);
	const workdir = await realpath(await mkdtemp(join(tmpdir(), "sidecar-test-")));
	const lines = new Lines();
	const sidecar = new Sidecar(new LineWriter(/** @type {any} */ (lines), MAX_LINE_BYTES));
	test.after(async () => {
		await sidecar.close();
		endpoint.close();
		await rm(workdir, { recursive: true, force: true });
	});
	const line = (more = {}) => ({
		type: "run",
		run: "a1",
		mark: "test/a1",
		workdir,
		model: { provider: "offline", id: "demo" },
		endpoint: { api_key: "sk-secret-key", base_url: endpoint.url, input_price: "1", output_price: "2" },
		messages: [{ role: "user", parts: [{ type: "text", content: "hi" }] }],
		tools: [],
		max_turns: 5,
		...more,
	});
	const take = (message) => sidecar.take(JSON.stringify(message));
	return { endpoint, workdir, lines, sidecar, line, take, done: () => lines.until((entry) => entry.type === "done") };
}
