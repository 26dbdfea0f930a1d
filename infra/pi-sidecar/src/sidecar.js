import { BadLine, parseLine } from "./protocol.js";
import { Run } from "./run.js";

/** All runs of this process, and what is done about each line that comes in. */
export class Sidecar {
	/** @param {any=} writer a `LineWriter` for what lines in are answered with; none where they come with their own */
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
				return void this.begin(message, this.writer);
			// The others may come late, for a run that has just ended: no error.
			case "ack":
				return run?.outbox.ack(message.n);
			case "cancel":
				return run?.cancel();
			case "tool_result":
				return run?.answer(message);
		}
	}

	/**
	 * @param {any} line a `run` line @param {import("./lines.js").LineWriter} writer takes its lines
	 * @returns {{run: Run, ended: Promise<void>} | undefined} nothing if the sidecar is closing
	 * @throws {BadLine} if a run of this name is under way
	 */
	begin(line, writer) {
		if (this.runs.has(line.run)) throw new BadLine("a run of this name is under way", line.run, "run");
		if (this.closing) return undefined;
		const run = new Run(line, writer);
		this.runs.set(line.run, run);
		const ended = run.perform().finally(() => this.runs.delete(line.run));
		return { run, ended };
	}

	/** Aborts all runs, which kills their processes. @returns {Promise<void>} when they have ended */
	async close() {
		this.closing = true;
		for (const run of this.runs.values()) run.cancel();
		const deadline = Date.now() + 1_500;
		while (this.runs.size && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 10));
	}
}
