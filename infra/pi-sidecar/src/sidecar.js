import { BadLine, parseLine } from "./protocol.js";
import { Run } from "./run.js";

/** All runs of this process, and what is done about each line that comes in. */
export class Sidecar {
	/** @param {import("./lines.js").LineWriter} writer */
	constructor(writer) {
		this.writer = writer;
		/** @type {Map<string, Run>} */
		this.runs = new Map();
		this.closing = false;
	}

	/** Never throws: a bad line is answered with an `error` line. @param {string} text */
	take(text) {
		try {
			this.#dispatch(parseLine(text));
		} catch (error) {
			if (!(error instanceof BadLine)) throw error;
			this.complain(error.message, error.run);
		}
	}

	/** @param {string} detail @param {string=} run */
	complain(detail, run) {
		this.writer.write({ type: "error", detail, ...(run === undefined ? {} : { run }) });
	}

	#dispatch(message) {
		const run = this.runs.get(message.run);
		switch (message.type) {
			case "ping":
				return this.writer.write({ type: "pong", id: message.id });
			case "run":
				if (run) throw new BadLine("a run of this name is under way", message.run);
				return void this.perform(message);
			// The others may come late, for a run that has just ended: no error.
			case "ack":
				return run?.outbox.ack(message.n);
			case "cancel":
				return run?.cancel();
			case "tool_result":
				return run?.answer(message);
		}
	}

	/** @param {any} line a `run` line */
	async perform(line) {
		if (this.closing) return;
		const run = new Run(line, this.writer);
		this.runs.set(line.run, run);
		try {
			await run.perform();
		} finally {
			this.runs.delete(line.run);
		}
	}

	/** Aborts all runs, which kills their processes. @returns {Promise<void>} when they have ended */
	async close() {
		this.closing = true;
		for (const run of this.runs.values()) run.cancel();
		const deadline = Date.now() + 1_500;
		while (this.runs.size && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 10));
	}
}
