/**
 * The words of the pipe: versioned JSON Lines over stdio.
 *
 * The messages are defined once, as pydantic models in `consumers/harness/pi_protocol.py`; the golden lines in
 * `test/golden-lines.jsonl` are checked by both sides. This file only holds what Node needs at run time: the constants
 * and a validation of what comes in, strict about what it uses and deaf to what it does not know.
 */

export const PROTOCOL = 1;

/** Announced in `ready` and enforced both ways. A 2 MiB answer needs about 4 MiB escaped; 16 MiB in was measured fine. */
export const MAX_LINE_BYTES = 16 * 1024 * 1024;

/** The first line of every sidecar, and of every answer to a `run` over HTTP. @param {string} pi Pi's version */
export const readyLine = (pi) => ({ type: "ready", protocol: PROTOCOL, pi, node: process.versions.node, max_line_bytes: MAX_LINE_BYTES, pid: process.pid });

/** Lines, and bytes, of one run that may wait for an `ack` before only that run is paused. */
export const DEFAULT_WINDOW = 256;
export const WINDOW_BYTES = 4 * 1024 * 1024;

/** A line that cannot be understood. It is answered with an `error` line and costs nobody else anything. */
export class BadLine extends Error {
	/** @param {string} detail @param {string=} run @param {string=} field the one that is wrong; none: it is no JSON */
	constructor(detail, run, field) {
		super(detail);
		this.run = run;
		this.field = field;
	}
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isText = (value) => typeof value === "string" && value.length > 0;
const isCount = (value) => Number.isInteger(value) && value >= 0;
const isListOf = (check) => (value) => Array.isArray(value) && value.every(check);
const isMapOfText = (value) => isObject(value) && Object.values(value).every((entry) => typeof entry === "string");
const optional = (check) => (value) => value === undefined || value === null || check(value);

const FIELDS = {
	run: {
		run: isText,
		mark: isText,
		workdir: isText,
		model: (value) => isObject(value) && isText(value.provider) && isText(value.id),
		endpoint: (value) =>
			isObject(value) &&
			optional(isText)(value.api_key) &&
			optional(isText)(value.base_url) &&
			optional(isText)(value.api) &&
			optional(isMapOfText)(value.headers),
		messages: (value) => isListOf((m) => isObject(m) && isText(m.role) && Array.isArray(m.parts))(value) && value.length > 0,
		agents_md: optional((value) => typeof value === "string"),
		tools: isListOf(isText),
		python_tools: optional(isListOf((tool) => isObject(tool) && isText(tool.name) && isObject(tool.parameters))),
		ask_first: optional((value) => typeof value === "boolean"),
		thinking: optional(isText),
		max_turns: (value) => Number.isInteger(value) && value > 0,
		traceparent: optional(isText),
		tracestate: optional((value) => typeof value === "string"),
		baggage: optional((value) => typeof value === "string"),
		apart: optional((value) => typeof value === "boolean"),
		window: optional((value) => Number.isInteger(value) && value > 0),
		shell_prefix: optional(isListOf(isText)),
	},
	cancel: { run: isText },
	tool_result: { run: isText, tool_call_id: isText, content: (value) => typeof value === "string", is_error: optional((value) => typeof value === "boolean"), run_tool: optional((value) => typeof value === "boolean") },
	ack: { run: isText, n: isCount },
	ping: { id: isCount },
};

/**
 * @param {string} line
 * @returns {Record<string, any>} one of the messages of FIELDS
 * @throws {BadLine}
 */
export function parseLine(line) {
	let message;
	try {
		message = JSON.parse(line);
	} catch {
		// The parser's own words quote the input, and the input may hold a key.
		throw new BadLine("not JSON");
	}
	if (!isObject(message)) throw new BadLine("not an object", undefined, "");
	return checked(message);
}

/**
 * @param {Record<string, any>} message
 * @returns {Record<string, any>} the same
 * @throws {BadLine}
 */
export function checked(message) {
	const run = isText(message.run) ? message.run : undefined;
	const fields = Object.hasOwn(FIELDS, message.type) ? FIELDS[message.type] : undefined;
	if (!fields) throw new BadLine("unknown type", run, "type");
	for (const [name, check] of Object.entries(fields)) {
		if (!check(message[name])) throw new BadLine(`${message.type}: field ${name} is missing or wrong`, run, name);
	}
	return message;
}
