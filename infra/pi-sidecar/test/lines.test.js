import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { Writable } from "node:stream";
import test from "node:test";
import { LineReader, LineTooLong, LineWriter } from "../src/lines.js";

function read(maxBytes, chunks) {
	const heard = [];
	const reader = new LineReader({ maxBytes, onLine: (line) => heard.push(line), onTooLong: (bytes) => heard.push(bytes) });
	for (const chunk of chunks) reader.push(Buffer.from(chunk));
	return heard;
}

test("lines are put together from pieces that cut them anywhere, characters included", () => {
	const bytes = Buffer.from("öne\n\ntwö 😀\nthree");
	for (let at = 0; at <= bytes.length; at++) assert.deepEqual(read(100, [bytes.subarray(0, at), bytes.subarray(at)]), ["öne", "twö 😀"]);
});

test("a line that is too long is dropped whole, told once, and the next one is read", () => {
	assert.deepEqual(read(4, ["abcd\nabc", "de", "fgh\nok\n"]), ["abcd", 8, "ok"]);
	assert.deepEqual(read(4, ["abcdefgh\nok\n"]), [8, "ok"]);
});

class Pipe extends EventEmitter {
	written = [];
	full = false;
	write(text) {
		this.written.push(text);
		return !this.full;
	}
}

test("a writer refuses a line that the other side could not read, counted in bytes", () => {
	const writer = new LineWriter(new Pipe(), 11);
	assert.equal(writer.write({ a: "ö" }), 11);
	assert.throws(() => writer.write({ a: "öö" }), LineTooLong);
});

test("a full pipe is waited for, by everyone, until it has drained", async () => {
	const pipe = new Pipe();
	pipe.full = true;
	const writer = new LineWriter(pipe, 100);
	writer.write({});
	writer.write({});
	let drained = 0;
	const waiting = [writer.drained(), writer.drained()].map((promise) => promise.then(() => drained++));
	await new Promise(setImmediate);
	assert.equal(drained, 0);
	pipe.emit("drain");
	await Promise.all(waiting);
	assert.equal(pipe.listenerCount("drain"), 0);
	await writer.drained();
});

test("half a surrogate pair leaves as a replacement character, deep inside too", () => {
	const pipe = new Pipe();
	new LineWriter(pipe, 100).write({ a: ["x\ud83d"], b: "😀" });
	assert.deepEqual(JSON.parse(pipe.written[0]), { a: ["x\ufffd"], b: "😀" });
});

test("what only looks like half a surrogate pair leaves as it is", () => {
	const pipe = new Pipe();
	const said = { text: "\\ud83d is how JSON writes it, \\\\ud83d is not", whole: "\ud83d\ude00" };
	new LineWriter(pipe, 200).write(said);
	assert.deepEqual(JSON.parse(pipe.written[0]), said);
});

test("what is written in one round of the loop leaves together, what is written later by itself", async () => {
	const pieces = [];
	const pipe = new Writable({ writev: (chunks, done) => (pieces.push(Buffer.concat(chunks.map(({ chunk }) => chunk)).toString()), done()) });
	const writer = new LineWriter(pipe, 100, { together: true });
	writer.write({ n: 1 });
	await undefined;
	writer.write({ n: 2 });
	assert.deepEqual(pieces, []);
	await new Promise(setImmediate);
	assert.deepEqual(pieces, ['{"n":1}\n{"n":2}\n']);
	writer.write({ n: 3 });
	await new Promise(setImmediate);
	assert.deepEqual(pieces.slice(1), ['{"n":3}\n']);
});

test("what is written together is not lost when the pipe is ended at once", async () => {
	const pieces = [];
	const pipe = new Writable({ writev: (chunks, done) => (pieces.push(...chunks.map(({ chunk }) => chunk.toString())), done()) });
	new LineWriter(pipe, 100, { together: true }).write({ n: 1 });
	await new Promise((resolve) => pipe.end(resolve));
	assert.deepEqual(pieces, ['{"n":1}\n']);
});
