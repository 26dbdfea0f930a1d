import assert from "node:assert/strict";
import { mkdtemp, realpath, rm } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import test from "node:test";
import { Room } from "../src/apart.js";
import { HttpFront } from "../src/http.js";
import { placeOf } from "../src/json_place.js";
import { Sidecar } from "../src/sidecar.js";
import { Lines, openEndpoint, say } from "./endpoint.js";

/** A front on a free port; the places on disk are made here instead of by the process that would have started it. */
async function openFront(context) {
	const places = {
		open: async (run) => ({ workdir: await realpath(await mkdtemp(join(tmpdir(), "front-test-"))), mark: `test/${run}` }),
		close: ({ workdir }) => rm(workdir, { recursive: true, force: true }),
	};
	const front = new HttpFront({ sidecar: new Sidecar(), places: /** @type {any} */ (places), pi: "0" });
	const port = await front.listen({ host: "127.0.0.1", port: 0 });
	context.after(() => front.close(0));
	return { front, port };
}

/** Posts a `run` line; the answer is not read before it is asked for. */
function post(port, line) {
	return new Promise((resolve, reject) => {
		const request = httpRequest({ port, host: "127.0.0.1", path: "/run", method: "POST" }, resolve);
		request.on("error", reject);
		request.end(JSON.stringify(line));
	});
}

const line = (run, endpoint) => ({
	type: "run",
	run,
	model: { provider: "offline", id: "demo" },
	endpoint: { api_key: "sk-secret-key", base_url: endpoint.url },
	messages: [{ role: "user", parts: [{ type: "text", content: "hi" }] }],
	tools: [],
	max_turns: 5,
});

async function read(response) {
	const lines = new Lines();
	for await (const text of createInterface(response)) if (text) lines.write(text);
	return lines.all;
}

test("a client that does not read pauses its own run, loses nothing, and holds up nobody else", async (context) => {
	const word = "x".repeat(64 * 1024);
	const long = await openEndpoint([say(Array(150).fill(word).join(" "))]);
	const short = await openEndpoint([say("one two")]);
	context.after(() => [long, short].map((endpoint) => endpoint.close()));
	const { front, port } = await openFront(context);
	const slow = await post(port, line("slow", long));
	const run = front.sidecar.runs.get("slow");
	// Until the connection has taken all that fits, and the run waits for more room.
	for (let n = -1; run.outbox.n !== n || !run.outbox.writer.draining; await new Promise((resolve) => setTimeout(resolve, 50))) n = run.outbox.n;
	const held = run.outbox.n;
	assert.ok(held < 150, `${held} lines of 64 KiB were taken`);
	const quick = await read(await post(port, line("quick", short)));
	assert.equal(quick.at(-1).status, "completed");
	assert.equal(run.outbox.n, held);
	const lines = await read(slow);
	assert.equal(lines.at(-1).status, "completed");
	assert.deepEqual(lines.slice(1).map((entry) => entry.n), Array.from({ length: lines.length - 1 }, (_, index) => index + 1));
	assert.equal(lines.filter((entry) => entry.event?.type === "part.delta").reduce((bytes, entry) => bytes + entry.event.delta.length, 0), 150 * (word.length + 1));
});

test("a client that goes away while its run waits for it to read ends the run", async (context) => {
	const long = await openEndpoint([say(Array(150).fill("x".repeat(64 * 1024)).join(" "))]);
	context.after(() => long.close());
	const { front, port } = await openFront(context);
	const slow = await post(port, line("slow", long));
	const run = front.sidecar.runs.get("slow");
	while (!run.outbox.writer.draining) await new Promise((resolve) => setTimeout(resolve, 10));
	const { gone } = front.runs.get("slow");
	slow.destroy();
	await gone;
	assert.equal(front.sidecar.runs.size, 0);
});

for (const [text, line, column] of [
	["{", 1, 2],
	['{"a": x}', 1, 7],
	['{"a":1,}', 1, 8],
	["[1,2", 1, 5],
	['{"a":"b\nc"}', 1, 8],
	['{"a":1} x', 1, 9],
	["", 1, 1],
	['{"a":tru}', 1, 6],
	['{\n "b": [1, 2,, 3]}', 2, 13],
	['{"a" 1}', 1, 6],
	['"\\x"', 1, 2],
	["01", 1, 2],
	["[]]", 1, 3],
	['{"a":[{}, {"b":"\\u12"}]}', 1, 17],
]) {
	test(`${JSON.stringify(text)} stops being JSON at ${line}:${column}`, () => {
		assert.throws(() => JSON.parse(text));
		assert.deepEqual(placeOf(text), { line, column });
	});
}

test("who gives up waiting for room takes none, and who leaves lets the next one in", async () => {
	const room = new Room(1);
	const [first, second, third] = [room.enter(), room.enter(), room.enter()];
	await first.entered;
	second.leave();
	await second.entered;
	let inside = false;
	third.entered.then(() => (inside = true));
	await new Promise(setImmediate);
	assert.equal(inside, false);
	first.leave();
	await third.entered;
	third.leave();
	assert.equal(room.places, 1);
});
