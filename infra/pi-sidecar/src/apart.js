import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Failure } from "./failures.js";
import { LineReader } from "./lines.js";
import { MAX_LINE_BYTES } from "./protocol.js";

const MAIN = fileURLToPath(new URL("main.js", import.meta.url));
const CANCEL_MS = 1_200;
const EXIT_MS = 3_000;

/** So many runs have a process of their own at once: each takes 143 MB, and half a second of a core to start. */
export const APART_AT_ONCE = 4;

/** Lets a few in at once, in the order in which they came. */
export class Room {
	/** @param {number} places */
	constructor(places) {
		this.places = places;
		/** @type {(() => void)[]} */
		this.waiting = [];
	}

	/** @returns {{entered: Promise<void>, leave: () => void}} to be left once, also by who has not entered yet */
	enter() {
		let inside = this.places > 0;
		if (inside) this.places -= 1;
		let wake = () => {};
		const entered = inside ? Promise.resolve() : new Promise((resolve) => (wake = () => resolve(undefined)));
		const admit = () => {
			inside = true;
			wake();
		};
		if (!inside) this.waiting.push(admit);
		const leave = () => {
			if (!inside) this.waiting = this.waiting.filter((other) => other !== admit);
			else if (this.waiting.length) this.waiting.shift()?.();
			else this.places += 1;
			wake();
		};
		return { entered, leave };
	}
}

/**
 * One run in a sidecar of its own, which dies alone if it dies: its worker has seen the shared one die under it.
 * The same program over the same pipe; its lines are handed on as they are.
 */
export class ApartRun {
	/** @param {any} line the `run` line @param {import("./response.js").ResponseStream} stream takes its lines */
	constructor(line, stream) {
		this.line = line;
		this.stream = stream;
		this.usedTools = false;
		this.cancelled = false;
		this.onCancel = () => {};
		this.sent = 0;
		/** @type {any} its last line, which counts once the process has ended as it should */
		this.done = undefined;
	}

	/** Never throws; hands on exactly one `done`. */
	async perform() {
		let scratch;
		try {
			scratch = await mkdtemp(join(tmpdir(), "apart-"));
			if (!this.cancelled) await this.#live(scratch);
		} catch (error) {
			console.error(error);
			this.done = { status: "failed", error: new Failure("harness_unavailable", "no process could be started for the run", { retriable: true }).toLine((text) => text) };
		} finally {
			if (scratch) await rm(scratch, { recursive: true, force: true });
		}
		const done = this.cancelled ? { status: "cancelled" } : this.done;
		this.stream.write(`${JSON.stringify({ ...done, type: "done", run: this.line.run, n: this.sent + 1 })}\n`);
	}

	cancel() {
		if (this.cancelled) return;
		this.cancelled = true;
		this.onCancel();
		this.#say({ type: "cancel", run: this.line.run });
		this.grace = setTimeout(() => this.child?.kill("SIGKILL"), CANCEL_MS);
	}

	/** @param {any} answer a `tool_result` line */
	answer(answer) {
		this.#say(answer);
	}

	/** @param {string} scratch */
	async #live(scratch) {
		const { apart: _, ...line } = this.line;
		this.child = spawn(process.execPath, [...process.execArgv, MAIN], { env: { ...process.env, TMPDIR: scratch }, stdio: ["pipe", "pipe", "inherit"] });
		const ended = new Promise((resolve, reject) => {
			this.child?.on("error", reject);
			this.child?.on("close", (code, signal) => resolve(signal ?? code));
		});
		const reader = new LineReader({ maxBytes: MAX_LINE_BYTES, onLine: (text) => this.#take(text, line), onTooLong: () => this.child?.kill("SIGKILL") });
		this.child.stdout.on("data", (chunk) => reader.push(chunk));
		this.child.stdin.on("error", () => {});
		this.stream.onTaken = (n) => this.#say({ type: "ack", run: line.run, n });
		try {
			const how = await ended;
			if (how === 0 && this.done) return;
			const error = new Failure("harness_crashed", typeof how === "string" ? `the Pi sidecar was killed by ${how}` : `the Pi sidecar ended with ${how}`, { retriable: true });
			this.done = { status: "failed", error: error.toLine((text) => text) };
		} finally {
			clearTimeout(this.grace);
		}
	}

	/** @param {string} text @param {any} line */
	#take(text, line) {
		const message = JSON.parse(text);
		switch (message.type) {
			case "ready":
				return this.cancelled ? this.child?.stdin?.end() : this.#say(line);
			case "error":
				this.done = { status: "failed", error: new Failure("internal", message.detail).toLine((detail) => detail) };
				return this.#leave();
			case "done":
				this.done = message;
				return this.#leave();
			case "event":
			case "tool_call":
				this.usedTools ||= message.event?.type === "tool.started";
				this.sent = message.n;
				return void this.stream.write(`${text}\n`);
		}
	}

	#leave() {
		this.child?.stdin?.end();
		this.grace ??= setTimeout(() => this.child?.kill("SIGKILL"), EXIT_MS);
	}

	/** @param {object} line */
	#say(line) {
		if (this.child?.stdin?.writable) this.child.stdin.write(`${JSON.stringify(line)}\n`);
	}
}
