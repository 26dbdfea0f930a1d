import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { chatSpanId } from "../src/models.js";
import { parseLine } from "../src/protocol.js";
import { call, openSidecar, say } from "./endpoint.js";

const golden = readFileSync(new URL("golden-lines.jsonl", import.meta.url), "utf8")
	.trim()
	.split("\n")
	.map((line) => JSON.parse(line));
const toSidecar = golden.filter((entry) => entry.to === "sidecar").map((entry) => entry.line);
const toWorker = golden.filter((entry) => entry.to === "worker").map((entry) => entry.line);

/** The names of a line's fields, its event's included: what the other side's models are made for. */
const shape = (line) => [line.type, line.status, line.event?.type, line.event?.role ?? line.event?.message?.role, ...Object.keys(line), ...Object.keys(line.event ?? {}), ...Object.keys(line.error ?? {})].join(" ");

test("the span of a model call has the id that the worker gives it", () => {
	const ids = JSON.parse(readFileSync(new URL("span-ids.json", import.meta.url), "utf8"));
	for (const { attempt, call: number, span } of ids) assert.equal(chatSpanId(attempt, number), span);
});

test("every golden line for the sidecar is understood as it is", () => {
	for (const line of toSidecar) assert.deepEqual(parseLine(JSON.stringify(line)), line);
});

test("every line that a run writes is one of the golden ones", async (context) => {
	const { line, lines, take, done } = await openSidecar(context, [call("bash", { command: "echo a" }), call("count", { word: "agent" }), say("one two")]);
	take({ type: "ping", id: 7 });
	take(line({ tools: ["bash"], python_tools: [{ name: "count", description: "Counts", parameters: { type: "object" } }] }));
	const asked = await lines.until((entry) => entry.type === "tool_call");
	take({ type: "tool_result", run: "a1", tool_call_id: asked.tool_call_id, content: "5" });
	await done();
	const known = new Set(toWorker.map(shape));
	for (const written of lines.all) {
		// This endpoint counts no tokens, so these two say nothing of them.
		const full = ["message.ended", "turn.ended"].includes(written.event?.type) && written.event.finish_reason ? { ...written, event: { ...written.event } } : written;
		if (full !== written) {
			const { turn, ...rest } = full.event;
			full.event = { ...rest, usage: {}, turn };
		}
		assert.ok(known.has(shape(full)), `not golden: ${JSON.stringify(written)}`);
	}
});
