/** Our messages (OpenTelemetry's GenAI parts) to Pi's and back. */

import { Failure } from "./failures.js";

const NO_USAGE = Object.freeze({
	input: 0,
	output: 0,
	cacheRead: 0,
	cacheWrite: 0,
	totalTokens: 0,
	cost: Object.freeze({ input: 0, output: 0, cacheRead: 0, cacheWrite: 0, total: 0 }),
});

const FINISH_REASONS = { stop: "stop", length: "length", toolUse: "tool_call", error: "error", aborted: "cancelled" };

/** @param {{stopReason: string, rawStopReason?: string}} message @returns {string} */
export function finishReason(message) {
	if (message.rawStopReason === "content_filter" || message.rawStopReason === "refusal") return "content_filter";
	return FINISH_REASONS[message.stopReason] ?? "stop";
}

const textOf = (response) => (typeof response === "string" ? response : JSON.stringify(response ?? null));

/** @param {Record<string, any>} part */
function userContent(part) {
	if (part.type === "text") return { type: "text", text: part.content };
	if (part.type === "blob" && String(part.mime_type ?? "").startsWith("image/")) {
		return { type: "image", data: part.content, mimeType: part.mime_type };
	}
	throw new Failure("unsupported", `pi takes text and images from a user, not a part of type ${String(part.type)}`);
}

/** @param {Record<string, any>} message @param {{api: string, provider: string, id: string}} model */
function assistantMessage(message, model) {
	const content = [];
	for (const part of message.parts) {
		// Reasoning is left out: without its provider's signature it is refused, or read as something that was said.
		if (part.type === "text" && part.content) content.push({ type: "text", text: part.content });
		if (part.type === "tool_call") content.push({ type: "toolCall", id: part.id, name: part.name, arguments: part.arguments ?? {} });
	}
	const calls = content.some((block) => block.type === "toolCall");
	return {
		role: "assistant",
		content,
		api: model.api,
		provider: model.provider,
		model: model.id,
		usage: NO_USAGE,
		stopReason: calls ? "toolUse" : "stop",
		timestamp: Date.now(),
	};
}

/**
 * @param {Record<string, any>[]} messages
 * @param {{api: string, provider: string, id: string}} model
 * @returns {{system: string[], history: any[], last: any}} `last` is the user's turn or the last tool result
 * @throws {Failure}
 */
export function toPi(messages, model) {
	const system = [];
	const converted = [];
	const toolNames = new Map();
	for (const message of messages) {
		if (message.role === "system") {
			system.push(message.parts.filter((part) => part.type === "text").map((part) => part.content).join("\n"));
		} else if (message.role === "user") {
			converted.push({ role: "user", content: message.parts.map(userContent), timestamp: Date.now() });
		} else if (message.role === "assistant") {
			for (const part of message.parts) if (part.type === "tool_call") toolNames.set(part.id, part.name);
			converted.push(assistantMessage(message, model));
		} else if (message.role === "tool") {
			for (const part of message.parts.filter((entry) => entry.type === "tool_call_response")) {
				converted.push({
					role: "toolResult",
					toolCallId: part.id,
					toolName: toolNames.get(part.id) ?? "unknown",
					content: [{ type: "text", text: textOf(part.response) }],
					isError: part.is_error === true,
					timestamp: Date.now(),
				});
			}
		} else {
			throw new Failure("unsupported", `pi knows no role ${message.role}`);
		}
	}
	const last = converted.pop();
	if (!last || last.role === "assistant") throw new Failure("unsupported", "the last message must be the user's or a tool's");
	return { system, history: converted, last };
}

/** @param {any} block one block of Pi's assistant content */
export function partOf(block) {
	if (block.type === "text") return { type: "text", content: block.text };
	if (block.type === "thinking") return { type: "reasoning", content: block.thinking };
	return { type: "tool_call", id: block.id, name: block.name, arguments: block.arguments };
}

/** @param {{content?: any[]}} result @returns {string} */
export function toolText(result) {
	const blocks = result?.content ?? [];
	return blocks.map((block) => (block.type === "text" ? block.text : `[${block.mimeType ?? block.type} omitted]`)).join("\n");
}

/** @param {any} message Pi's assistant or tool message @returns {{role: string, parts: object[]}} */
export function fromPi(message) {
	if (message.role === "toolResult") {
		const part = { type: "tool_call_response", id: message.toolCallId, response: toolText(message), is_error: message.isError };
		return { role: "tool", parts: [part] };
	}
	return { role: "assistant", parts: message.content.map(partOf) };
}
