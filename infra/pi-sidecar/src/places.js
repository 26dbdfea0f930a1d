import { LineReader, LineWriter } from "./lines.js";
import { MAX_LINE_BYTES } from "./protocol.js";

/**
 * The places on disk that runs get over HTTP. The process that started us makes them, and kills and removes what a run
 * left there; it is asked over the pipe between us, and ends us by closing it.
 */
export class Places {
	/** @param {{input: NodeJS.ReadableStream, output: NodeJS.WritableStream}} pipe */
	constructor({ input, output }) {
		this.writer = new LineWriter(output, MAX_LINE_BYTES);
		this.last = 0;
		/** @type {Map<number, (answer: any) => void>} */
		this.asked = new Map();
		/** @type {Promise<any>} the first line: what to serve and where */
		this.configuration = new Promise((resolve) => {
			this.asked.set(0, resolve);
		});
		const reader = new LineReader({ maxBytes: MAX_LINE_BYTES, onLine: (line) => this.#take(JSON.parse(line)), onTooLong: () => {} });
		input.on("data", (chunk) => reader.push(chunk));
	}

	/** @param {object} line */
	say(line) {
		this.writer.write(line);
	}

	/** @param {string} run @param {{tools: boolean}} options whether it may write @returns {Promise<{workdir: string, mark: string}>} @throws {Error} if none can be made */
	async open(run, { tools }) {
		const { workdir, mark, problem } = await this.#ask({ type: "open", run, tools });
		if (problem) throw new Error(problem);
		return { workdir, mark };
	}

	/** @param {{workdir: string, mark: string}} place @param {{sweep: boolean}} options sweep: it may have left processes */
	async close({ workdir, mark }, { sweep }) {
		await this.#ask({ type: "close", workdir, mark, sweep });
	}

	/** @param {object} question @returns {Promise<any>} */
	#ask(question) {
		const id = ++this.last;
		const answered = new Promise((resolve) => this.asked.set(id, resolve));
		this.say({ ...question, id });
		return answered;
	}

	/** @param {any} answer */
	#take(answer) {
		this.asked.get(answer.id)?.(answer);
		this.asked.delete(answer.id);
	}
}
