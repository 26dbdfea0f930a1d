import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LineWriter } from "./lines.js";
import { MAX_LINE_BYTES } from "./protocol.js";
import { Run } from "./run.js";

const CHUNKS = [
	{ choices: [{ index: 0, delta: { role: "assistant", content: "warm" }, finish_reason: null }] },
	{ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] },
];

/** A model that answers one word. @returns {Promise<import("node:http").Server>} */
function listen() {
	const server = createServer((request, response) => {
		request.resume();
		response.writeHead(200, { "content-type": "text/event-stream" });
		for (const chunk of CHUNKS) response.write(`data: ${JSON.stringify({ id: "warm", object: "chat.completion.chunk", ...chunk })}\n\n`);
		response.end("data: [DONE]\n\n");
	});
	return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

/**
 * One run through everything that is loaded lazily: without it the first real run takes 120 to 240 ms, with it 41.
 * Never throws: on a full disk a sidecar that had died could not start again, though most runs need no room there.
 * @returns {Promise<boolean>} whether it came to its end
 */
export async function warmUp() {
	try {
		return await perform(await mkdtemp(join(tmpdir(), "warm-")));
	} catch (error) {
		console.error(error);
		return false;
	}
}

/** @param {string} workdir which is removed */
async function perform(workdir) {
	const server = await listen();
	const sink = { last: undefined, write: (line) => (sink.last = JSON.parse(line)) };
	try {
		const base_url = `http://127.0.0.1:${server.address().port}/v1`;
		const line = { run: "warm-up", mark: "warm-up", workdir, model: { provider: "warm", id: "up" }, endpoint: { base_url }, tools: ["read"], max_turns: 1 };
		const messages = [{ role: "user", parts: [{ type: "text", content: "warm up" }] }];
		await new Run({ ...line, messages }, new LineWriter(/** @type {any} */ (sink), MAX_LINE_BYTES)).perform();
		return sink.last?.status === "completed";
	} finally {
		server.closeAllConnections();
		server.close();
		await rm(workdir, { recursive: true, force: true });
	}
}
