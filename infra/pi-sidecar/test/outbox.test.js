import assert from "node:assert/strict";
import test from "node:test";
import { Outbox } from "../src/outbox.js";

const writerOf = (bytes = 1) => {
	const written = [];
	return { written, write: (message) => (written.push(message), bytes), drained: async () => {}, draining: undefined };
};

const settled = async (promise) => {
	let done = false;
	promise.then(() => (done = true));
	await new Promise(setImmediate);
	return done;
};

test("lines are numbered from one and held back while the window is full", async () => {
	const writer = writerOf();
	const outbox = new Outbox({ writer, run: "a", window: 2 });
	await outbox.send({ type: "x" });
	await outbox.send({ type: "x" });
	const third = outbox.send({ type: "x" });
	assert.equal(await settled(third), false);
	outbox.ack(1);
	await third;
	assert.deepEqual(writer.written.map((line) => line.n), [1, 2, 3]);
});

test("a few huge lines fill the window as well", async () => {
	const outbox = new Outbox({ writer: writerOf(3 * 1024 * 1024), run: "a" });
	await outbox.send({});
	await outbox.send({});
	const third = outbox.send({});
	assert.equal(await settled(third), false);
	outbox.ack(2);
	await third;
});

test("a cancelled run gets its last line out however full the window is, and nothing else", async () => {
	const writer = writerOf();
	const outbox = new Outbox({ writer, run: "a", window: 1 });
	await outbox.send({ type: "event" });
	const held = outbox.send({ type: "event" });
	outbox.mute();
	await held;
	await outbox.send({ type: "event" });
	outbox.close({ type: "done" });
	outbox.close({ type: "done" });
	assert.deepEqual(writer.written.map((line) => line.type), ["event", "done"]);
});

test("what may be lost is not sent into a full window", async () => {
	const writer = writerOf();
	const outbox = new Outbox({ writer, run: "a", window: 1 });
	outbox.offer({ type: "progress" });
	outbox.offer({ type: "progress" });
	assert.equal(writer.written.length, 1);
});
