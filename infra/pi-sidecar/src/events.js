import { finishReason, fromPi, partOf, toolText } from "./messages.js";
import { usageOf } from "./models.js";

const PART_TYPES = { text: "text", thinking: "reasoning", toolCall: "tool_call" };
const PROGRESS_CHARS = 4096;
const isHighSurrogate = (code) => code >= 0xd800 && code <= 0xdbff;

/** Turns Pi's events into ours, in the shapes of `agentstream.schemas.events`. One per run; keeps no history. */
export class Translator {
	/** @param {{send: (event: object) => Promise<void>, offer: (event: object) => void, bill: import("./models.js").Bill, now?: () => number}} options */
	constructor({ send, offer, bill, now = () => performance.now() }) {
		this.send = send;
		this.offer = offer;
		this.bill = bill;
		this.now = now;
		this.turn = 0;
		this.messages = 0;
		/** @type {string | undefined} id of the assistant message that is being written */
		this.open = undefined;
		/** @type {Map<number, {type: string, carry: string}>} its parts that have not ended */
		this.parts = new Map();
		/** @type {Map<string, {startedAt: number, shown: string}>} */
		this.tools = new Map();
		/** @type {any} the last assistant message */
		this.last = undefined;
		this.hasOutput = false;
	}

	/** @param {any} event Pi's @returns {Promise<void>} */
	async take(event) {
		switch (event.type) {
			case "turn_start":
				this.turn += 1;
				return this.#emit({ type: "turn.started" });
			case "turn_end":
				return this.#turnEnded(event.message);
			case "message_start":
				return this.#messageStarted(event.message);
			case "message_update":
				return this.#part(event.assistantMessageEvent);
			case "message_end":
				return this.#messageEnded(event.message);
			case "tool_execution_start":
				this.tools.set(event.toolCallId, { startedAt: this.now(), shown: "" });
				return this.#emit({ type: "tool.started", tool_call_id: event.toolCallId, tool_name: event.toolName, arguments: event.args });
			case "tool_execution_update":
				return this.#toolProgressed(event);
			case "tool_execution_end":
				return this.#toolEnded(event);
		}
	}

	#emit(event) {
		return this.send({ ...event, turn: this.turn });
	}

	#messageStarted(message) {
		// A call that failed before its first byte is reported as a message too; it said nothing.
		if (message.role !== "assistant" || message.stopReason === "error" || message.stopReason === "aborted") return undefined;
		return this.#open();
	}

	#open() {
		this.messages += 1;
		this.open = `m${this.messages}`;
		return this.#emit({ type: "message.started", message_id: this.open, role: "assistant" });
	}

	/** @param {any} update */
	async #part(update) {
		const { contentIndex: part_index } = update;
		const block = update.partial.content[part_index];
		if (update.type.endsWith("_start")) {
			this.parts.set(part_index, { type: PART_TYPES[block.type], carry: "" });
			return this.#emit({ type: "part.started", message_id: this.open, part_index, part_type: PART_TYPES[block.type] });
		}
		if (update.type.endsWith("_delta")) return this.#delta(part_index, update.delta);
		if (update.type.endsWith("_end")) return this.#partEnded(part_index, block);
	}

	#delta(part_index, text) {
		const part = this.parts.get(part_index);
		if (!part) return undefined;
		// A provider may cut an emoji in two: its first half waits for the second, or both would become U+FFFD.
		let delta = part.carry + text;
		part.carry = "";
		if (isHighSurrogate(delta.charCodeAt(delta.length - 1))) {
			part.carry = delta.slice(-1);
			delta = delta.slice(0, -1);
		}
		if (!delta) return undefined;
		return this.#emit({ type: "part.delta", message_id: this.open, part_index, part_type: part.type, delta });
	}

	#partEnded(part_index, block) {
		const part = this.parts.get(part_index);
		if (!part) return undefined;
		this.parts.delete(part_index);
		return this.#emit({ type: "part.ended", message_id: this.open, part_index, part_type: part.type, part: partOf(block) });
	}

	async #messageEnded(message) {
		if (message.role === "toolResult") {
			this.messages += 1;
			const message_id = `m${this.messages}`;
			await this.#emit({ type: "message.started", message_id, role: "tool" });
			return this.#emit({ type: "message.ended", message_id, message: fromPi(message) });
		}
		if (message.role !== "assistant") return;
		this.last = message;
		this.bill.add(message.usage);
		if (!this.open && message.content.length && message.stopReason !== "error" && message.stopReason !== "aborted") await this.#open();
		if (!this.open) return;
		// What was cut off in the middle has no end of its own.
		for (const part_index of [...this.parts.keys()]) await this.#partEnded(part_index, message.content[part_index]);
		const message_id = this.open;
		this.open = undefined;
		const content = fromPi(message);
		this.hasOutput ||= content.parts.some((part) => part.type === "tool_call" || (part.type === "text" && part.content !== ""));
		await this.#emit({
			type: "message.ended",
			message_id,
			...(content.parts.length ? { message: content } : {}),
			finish_reason: finishReason(message),
			usage: usageOf(message.usage, message),
		});
	}

	#turnEnded(message) {
		return this.#emit({ type: "turn.ended", finish_reason: finishReason(message), usage: usageOf(message.usage, message) });
	}

	#toolProgressed(event) {
		const tool = this.tools.get(event.toolCallId);
		const text = toolText(event.partialResult);
		if (!tool || !text || text === tool.shown) return;
		// Pi shows the whole output each time, ten times a second; readers get what is new.
		const fresh = text.startsWith(tool.shown) ? text.slice(tool.shown.length) : text;
		tool.shown = text;
		const content = fresh.slice(-PROGRESS_CHARS);
		this.offer({
			type: "tool.progress",
			tool_call_id: event.toolCallId,
			tool_name: event.toolName,
			content,
			truncated: content.length < fresh.length,
			turn: this.turn,
		});
	}

	#toolEnded(event) {
		const startedAt = this.tools.get(event.toolCallId)?.startedAt ?? this.now();
		this.tools.delete(event.toolCallId);
		return this.#emit({
			type: "tool.ended",
			tool_call_id: event.toolCallId,
			tool_name: event.toolName,
			content: toolText(event.result),
			is_error: event.isError,
			duration_ms: Math.round(this.now() - startedAt),
		});
	}
}
