import { DEFAULT_WINDOW, WINDOW_BYTES } from "./protocol.js";

/**
 * The lines of one run on their way to Python: numbered, and held back while too many of them are unacknowledged.
 *
 * Only the run that owns the outbox waits; the pipe itself is shared, and its `drain` is awaited too.
 */
export class Outbox {
	/** @param {{writer: import("./lines.js").LineWriter, run: string, window?: number | null}} options */
	constructor({ writer, run, window }) {
		this.writer = writer;
		this.run = run;
		this.window = window ?? DEFAULT_WINDOW;
		this.n = 0;
		/** Nothing but the last line may follow. */
		this.muted = false;
		this.closed = false;
		/** @type {{n: number, bytes: number}[]} */
		this.waiting = [];
		this.waitingBytes = 0;
		/** @type {(() => void)[]} */
		this.wakers = [];
	}

	get full() {
		return this.waiting.length >= this.window || this.waitingBytes >= WINDOW_BYTES;
	}

	/**
	 * Sends when the window allows; returns when the pipe has taken it. Nothing is sent once the outbox is closed.
	 * @param {Record<string, unknown>} message
	 * @throws {import("./lines.js").LineTooLong}
	 */
	async send(message) {
		while (this.full && !this.muted) await new Promise((resolve) => this.wakers.push(() => resolve(undefined)));
		if (this.muted) return;
		this.#write(message);
		await this.writer.drained();
	}

	/** For what may be lost: sent only when there is room. @param {Record<string, unknown>} message */
	offer(message) {
		if (!this.full && !this.muted && !this.writer.draining) this.#write(message);
	}

	/** The last line of the run: never waits, is sent once, and nothing can follow it. @param {Record<string, unknown>} message */
	close(message) {
		this.mute();
		if (this.closed) return;
		this.closed = true;
		this.#write(message);
	}

	/** Drops what is still to come, and wakes whoever waits for room: the run was cancelled. */
	mute() {
		this.muted = true;
		this.#wake();
	}

	/** @param {number} n the last line that Python has dealt with */
	ack(n) {
		while (this.waiting.length && this.waiting[0].n <= n) this.waitingBytes -= this.waiting.shift()?.bytes ?? 0;
		if (!this.full) this.#wake();
	}

	#wake() {
		for (const wake of this.wakers.splice(0)) wake();
	}

	/** @param {Record<string, unknown>} message */
	#write(message) {
		const n = this.n + 1;
		const bytes = this.writer.write({ ...message, run: this.run, n });
		this.n = n;
		this.waiting.push({ n, bytes });
		this.waitingBytes += bytes;
	}
}
