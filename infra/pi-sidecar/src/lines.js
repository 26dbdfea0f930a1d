/** Lines in and out of a pipe, both bounded, neither ever blocking the other runs. */

const NEWLINE = 0x0a;

/**
 * Splits a stream of bytes into lines of at most `maxBytes`.
 *
 * A longer line is dropped up to its newline and reported once: the reader recovers instead of growing without bound.
 */
export class LineReader {
	/** @param {{maxBytes: number, onLine: (line: string) => void, onTooLong: (bytes: number) => void}} options */
	constructor({ maxBytes, onLine, onTooLong }) {
		this.maxBytes = maxBytes;
		this.onLine = onLine;
		this.onTooLong = onTooLong;
		/** @type {Buffer[]} chunks of the line that is not complete yet; joined once, or 15 MiB would be copied 240 times */
		this.pending = [];
		this.pendingBytes = 0;
		this.dropped = 0;
	}

	/** @param {Buffer} chunk */
	push(chunk) {
		let start = 0;
		for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
			this.#take(chunk.subarray(start, end));
			this.#finish();
			start = end + 1;
		}
		this.#take(chunk.subarray(start));
	}

	/** @param {Buffer} bytes */
	#take(bytes) {
		if (this.dropped || this.pendingBytes + bytes.length > this.maxBytes) {
			this.dropped += this.pendingBytes + bytes.length;
			this.pending = [];
			this.pendingBytes = 0;
			return;
		}
		if (bytes.length === 0) return;
		this.pending.push(bytes);
		this.pendingBytes += bytes.length;
	}

	#finish() {
		const { pending, dropped } = this;
		this.pending = [];
		this.pendingBytes = 0;
		this.dropped = 0;
		if (dropped) this.onTooLong(dropped);
		else if (pending.length) this.onLine(Buffer.concat(pending).toString("utf8"));
	}
}

/** A line that would be longer than the other side reads. */
export class LineTooLong extends Error {
	/** @param {number} bytes */
	constructor(bytes) {
		super(`a line of ${bytes} bytes is longer than the pipe's limit`);
		this.bytes = bytes;
	}
}

/** Half a surrogate pair is legal JSON and illegal UTF-8: Python could read it and never send it on. */
const wellFormed = (_key, value) => (typeof value === "string" && !value.isWellFormed() ? value.toWellFormed() : value);

/** Half a pair is written as an escape: only a line that has one is looked through, which takes twice as long. */
function toJson(message) {
	const json = JSON.stringify(message);
	return json.includes("\\ud") ? JSON.stringify(message, wellFormed) : json;
}

/** Writes lines; `drained()` is what makes back-pressure, since unread output would grow in memory without bound. */
export class LineWriter {
	/** @param {NodeJS.WritableStream} stream @param {number} maxBytes @param {{together?: boolean}} options together: what is written in one round of the loop goes out in one piece */
	constructor(stream, maxBytes, { together = false } = {}) {
		this.stream = stream;
		this.maxBytes = maxBytes;
		this.together = together;
		this.corked = false;
		/** @type {Promise<void> | undefined} */
		this.draining = undefined;
	}

	/**
	 * @param {object} message
	 * @returns {number} the bytes of the line
	 * @throws {LineTooLong}
	 */
	write(message) {
		const line = `${toJson(message)}\n`;
		const bytes = Buffer.byteLength(line);
		if (bytes > this.maxBytes) throw new LineTooLong(bytes);
		if (this.together && !this.corked) this.#cork();
		if (!this.stream.write(line) && !this.draining) {
			this.draining = new Promise((resolve) => {
				this.stream.once("drain", () => {
					this.draining = undefined;
					resolve();
				});
			});
		}
		return bytes;
	}

	/** A system call for each line took 6 % of a trivial run here, and woke the reader as often. */
	#cork() {
		this.corked = true;
		this.stream.cork();
		setImmediate(() => {
			this.corked = false;
			this.stream.uncork();
		});
	}

	/** @returns {Promise<void>} */
	drained() {
		return this.draining ?? Promise.resolve();
	}
}
