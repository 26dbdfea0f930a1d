import { realpath } from "node:fs/promises";
import { Translator } from "./events.js";
import { Failure, providerFailure } from "./failures.js";
import { LineTooLong } from "./lines.js";
import { finishReason, toPi } from "./messages.js";
import { Bill, createStreamFunction, resolveModel } from "./models.js";
import { Outbox } from "./outbox.js";
import { createSession, limitTurns } from "./session.js";
import { createTools } from "./tools.js";

/** A provider's stream that ignores its abort must not hold a cancelled run: the promise to the caller is two seconds. */
const CANCEL_GRACE_MS = 1_000;

/** Values that must never leave, longest first, or a short one would leave the tail of a longer one. */
function createRedactor(endpoint) {
	const secrets = [endpoint.api_key, ...Object.values(endpoint.headers ?? {})].filter((value) => value && value.length >= 4);
	secrets.sort((a, b) => b.length - a.length);
	return (text) => secrets.reduce((clean, secret) => clean.replaceAll(secret, "[redacted]"), text);
}

/** One attempt of one run: from its `run` line to its one `done` line. */
export class Run {
	/** @param {any} line the `run` line @param {import("./lines.js").LineWriter} writer */
	constructor(line, writer) {
		this.line = line;
		this.outbox = new Outbox({ writer, run: line.run, window: line.window });
		this.redact = createRedactor(line.endpoint);
		this.cancelled = false;
		/** Whether it may have left processes behind. */
		this.usedTools = false;
		/** @type {Failure | undefined} what ended the run from within, before the agent noticed */
		this.failure = undefined;
		/** @type {(() => void) | undefined} */
		this.abort = undefined;
		/** @type {Map<string, (answer: any) => void>} calls that Python has not answered */
		this.calls = new Map();
		/** @type {NodeJS.Timeout | undefined} */
		this.grace = undefined;
	}

	/** Never throws; sends exactly one `done`. @returns {Promise<void>} */
	async perform() {
		let done;
		try {
			done = await this.#perform();
		} catch (error) {
			done = this.#failed(error);
		}
		clearTimeout(this.grace);
		this.#done(done);
	}

	cancel() {
		if (this.cancelled) return;
		this.cancelled = true;
		this.abort?.();
		this.outbox.mute();
		this.grace = setTimeout(() => this.#done({ status: "cancelled" }), CANCEL_GRACE_MS);
	}

	/** @param {any} answer a `tool_result` line */
	answer(answer) {
		this.calls.get(answer.tool_call_id)?.(answer);
		this.calls.delete(answer.tool_call_id);
	}

	async #perform() {
		// Only tools look at it: without any, the file system need not be asked.
		const workdir = this.line.tools.length ? await realpath(this.line.workdir) : this.line.workdir;
		const run = { ...this.line, workdir };
		const { model, priceSource } = resolveModel(run.model, run.endpoint);
		const { system, history, last } = toPi(run.messages, model);
		const tools = createTools(run, (call, signal) => this.#ask(call, signal));
		const { stream, calls } = createStreamFunction(run);
		const session = await createSession({ run, model, stream, tools, system, history });
		try {
			const limit = limitTurns(session.agent, run.max_turns);
			const bill = new Bill(priceSource);
			const translator = new Translator({
				bill,
				send: (event) => {
					this.usedTools ||= event.type === "tool.started";
					return this.#send({ type: "event", event });
				},
				offer: (event) => this.outbox.offer({ type: "event", event }),
			});
			session.agent.subscribe((event) => translator.take(event));
			this.abort = () => session.agent.abort();
			if (this.cancelled) return { status: "cancelled" };
			await this.#drive(session, last);
			return this.#outcome(translator, limit, calls.last, bill);
		} finally {
			session.dispose();
		}
	}

	async #drive(session, last) {
		if (last.role === "user") return session.agent.prompt(last);
		session.sessionManager.appendMessage(last);
		session.agent.state.messages = [...session.agent.state.messages, last];
		return session.agent.continue();
	}

	#outcome(translator, limit, call, bill) {
		const { last } = translator;
		const cost = bill.toLine();
		if (this.cancelled) return { status: "cancelled" };
		if (this.failure) return this.#failed(this.failure);
		if (!last) return this.#failed(new Failure("internal", "the agent ended without a message"));
		if (last.stopReason === "error") return this.#failed(providerFailure(call, last.errorMessage ?? "the provider failed"));
		if (last.stopReason === "aborted") return this.#failed(new Failure("internal", "the agent was aborted"));
		if (limit.exceeded) return this.#failed(new Failure("max_turns", `the agent used all its ${this.line.max_turns} turns`));
		if (!translator.hasOutput) return this.#failed(new Failure("no_output", "the model ended without saying anything"));
		return { status: "completed", finish_reason: finishReason(last), ...(cost ? { cost } : {}) };
	}

	#failed(error) {
		if (this.cancelled) return { status: "cancelled" };
		if (error instanceof Failure) return { status: "failed", error: error.toLine(this.redact) };
		console.error(this.redact(String(error?.stack ?? error)));
		return { status: "failed", error: new Failure("internal", "the sidecar failed; its log says more").toLine(this.redact) };
	}

	async #send(message) {
		try {
			await this.outbox.send(message);
		} catch (error) {
			if (!(error instanceof LineTooLong)) throw error;
			// Cut, the answer would read as a complete one; so the run fails, and says why.
			this.failure ??= new Failure("output_too_large", error.message);
			this.abort?.();
		}
	}

	#done(done) {
		this.outbox.close({ type: "done", ...done });
	}

	/** @param {any} call @param {AbortSignal=} signal */
	async #ask(call, signal) {
		const answered = new Promise((resolve, reject) => {
			this.calls.set(call.tool_call_id, resolve);
			signal?.addEventListener("abort", () => reject(new Error("Operation aborted")), { once: true });
		});
		// It may be rejected while the window is full and nobody awaits it yet.
		answered.catch(() => {});
		await this.#send({ type: "tool_call", ...call });
		return answered;
	}
}
