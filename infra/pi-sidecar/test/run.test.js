import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { HANG, call, openSidecar, say } from "./endpoint.js";

const eventsOf = (lines, type) => lines.all.filter((line) => line.event?.type === type).map((line) => line.event);

test("a run answers, with its own key, and ends once", async (context) => {
	const { endpoint, line, lines, take, done } = await openSidecar(context, [say("one two three")]);
	take(line({ agents_md: "Your name is Bob." }));
	assert.equal((await done()).status, "completed");
	assert.deepEqual(eventsOf(lines, "part.delta").map((event) => event.delta), ["one ", "two ", "three "]);
	assert.equal(endpoint.requests[0].headers.authorization, "Bearer sk-secret-key");
	assert.match(endpoint.requests[0].body.messages[0].content, /Your name is Bob\./);
	assert.equal(lines.all.filter((entry) => entry.type === "done").length, 1);
	assert.deepEqual(lines.all.map((entry) => entry.n), lines.all.map((_, index) => index + 1));
});

test("a cancelled run says so at once and its model call is closed", async (context) => {
	const { endpoint, line, lines, sidecar, take, done } = await openSidecar(context, [HANG]);
	take(line());
	await lines.until((entry) => entry.event?.type === "turn.started");
	while (endpoint.requests.length === 0) await new Promise(setImmediate);
	take({ type: "cancel", run: "a1" });
	assert.deepEqual(await done(), { type: "done", status: "cancelled", run: "a1", n: 2 });
	while (sidecar.runs.size || endpoint.closed === 0) await new Promise(setImmediate);
});

test("a run that is cancelled before it began does not begin", async (context) => {
	const { endpoint, line, take, done } = await openSidecar(context, [say("no")]);
	take(line());
	take({ type: "cancel", run: "a1" });
	assert.equal((await done()).status, "cancelled");
	assert.equal(endpoint.requests.length, 0);
});

test("a run whose lines nobody acknowledges is paused, and another is not", async (context) => {
	const { line, lines, take } = await openSidecar(context, [say("one two three four five six seven eight")]);
	take(line({ run: "slow", window: 4 }));
	take(line({ run: "quick" }));
	await lines.until((entry) => entry.type === "done" && entry.run === "quick");
	await lines.until((entry) => entry.run === "slow" && entry.n === 4);
	assert.equal(lines.all.filter((entry) => entry.run === "slow").length, 4);
	for (let n = 4; ; n = lines.all.filter((entry) => entry.run === "slow").length) {
		take({ type: "ack", run: "slow", n });
		await lines.until((entry) => entry.run === "slow" && entry.n > n);
		if (lines.all.some((entry) => entry.type === "done" && entry.run === "slow")) return;
	}
});

test("a looping model is called exactly as often as allowed", async (context) => {
	const { endpoint, line, take, done } = await openSidecar(context, [call("bash", { command: "true" })]);
	take(line({ tools: ["bash"], max_turns: 3 }));
	assert.equal((await done()).error.code, "max_turns");
	assert.equal(endpoint.requests.length, 3);
});

test("a tool outside the list does not run, and files outside the directory are not read", async (context) => {
	const { line, lines, take, done, workdir } = await openSidecar(context, [call("bash", { command: "id" }), call("read", { path: "/etc/hostname" }), call("read", { path: "in.txt" }), say("ok")]);
	await writeFile(join(workdir, "in.txt"), "inside");
	take(line({ tools: ["read"] }));
	await done();
	assert.deepEqual(eventsOf(lines, "tool.ended").map((event) => event.is_error), [true, true, false]);
	assert.match(eventsOf(lines, "tool.ended")[1].content, /Refused/);
});

test("a failure of the provider is not retried and gives no secret away", async (context) => {
	const body = JSON.stringify({ error: { message: "bad key sk-secret-key" } });
	const { endpoint, line, take, done } = await openSidecar(context, [{ status: 401, body }]);
	take(line());
	const { error } = await done();
	assert.equal(error.code, "provider_auth");
	assert.ok(!JSON.stringify(error).includes("sk-secret-key"));
	assert.equal(endpoint.requests.length, 1);
});

test("a bad line is answered and costs nobody anything", async (context) => {
	const { line, lines, sidecar, take, done } = await openSidecar(context, [say("ok")]);
	take(line());
	for (const bad of ["{", "[]", '{"type":"run","run":"a9"}', '{"type":"toString"}', '{"type":"ping","id":-1}']) sidecar.take(bad);
	take(line());
	assert.equal(lines.all.filter((entry) => entry.type === "error").length, 6);
	assert.ok(!JSON.stringify(lines.all.filter((entry) => entry.type === "error")).includes("sk-secret"));
	assert.equal((await done()).status, "completed");
});

test("Python is asked before each tool: its answer stands for the tool's, which runs only where Python says so", async (context) => {
	const script = [call("bash", { command: "echo real > left" }), call("bash", { command: "echo ran; cat left" }), say("done")];
	const { line, lines, take, done } = await openSidecar(context, script);
	take(line({ tools: ["bash"], ask_first: true }));
	const first = await lines.until((entry) => entry.type === "tool_call");
	assert.deepEqual([first.tool_name, first.arguments], ["bash", { command: "echo real > left" }]);
	take({ type: "tool_result", run: "a1", tool_call_id: first.tool_call_id, content: "recorded", is_error: false });
	const second = await lines.until((entry) => entry.type === "tool_call" && entry.n > first.n);
	take({ type: "tool_result", run: "a1", tool_call_id: second.tool_call_id, content: "", run_tool: true });
	await done();
	const answers = lines.all.filter((entry) => entry.event?.type === "tool.ended").map((entry) => entry.event.content);
	assert.equal(answers[0], "recorded");
	assert.match(answers[1], /^ran\n/);
	assert.match(answers[1], /No such file/);
});
