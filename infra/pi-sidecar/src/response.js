/** The lines of one run on their way to an HTTP client: what a `LineWriter` wants of a stream, and signs of life. */
export class ResponseStream {
	/** @param {import("node:http").ServerResponse} response @param {{beatMs: number}} options an empty line after so much silence */
	constructor(response, { beatMs }) {
		this.response = response;
		this.taken = 0;
		this.quiet = true;
		/** Called with the number of lines that the client's connection has taken: TCP does here what `ack` does in a pipe. */
		this.onTaken = (_lines) => {};
		/** @type {(() => void)[]} */
		this.wakers = [];
		this.beat = setInterval(() => this.#beat(), beatMs);
		// A client that went away: `close` follows, which is what counts.
		response.on("error", () => {});
		response.on("drain", () => this.#wake());
		response.on("close", () => {
			clearInterval(this.beat);
			// There will be no `drain`, and a run that waits for one would never end.
			this.#wake();
		});
	}

	/** @param {string} line @returns {boolean} false: wait for `drain` */
	write(line) {
		if (this.response.destroyed || this.response.writableEnded) return true;
		this.quiet = false;
		return this.response.write(line, (error) => {
			if (!error) this.onTaken(++this.taken);
		});
	}

	/** A line that is none of the run's own, and has no number. @param {object} line */
	say(line) {
		if (!this.response.destroyed && !this.response.writableEnded) this.response.write(`${JSON.stringify(line)}\n`);
	}

	/** @param {"drain"} _event @param {() => void} wake */
	once(_event, wake) {
		if (this.response.destroyed) wake();
		else this.wakers.push(wake);
	}

	/** Nothing more will come. */
	end() {
		clearInterval(this.beat);
		this.response.end();
	}

	#beat() {
		if (this.quiet && !this.response.writableNeedDrain && !this.response.destroyed) this.response.write("\n");
		this.quiet = true;
	}

	#wake() {
		for (const wake of this.wakers.splice(0)) wake();
	}
}
