import { placeOf } from "./json_place.js";
import { BadLine, checked, parseLine } from "./protocol.js";

/** A request that is answered with a status and a reason, and costs nobody else anything. */
export class Refusal extends Error {
	/** @param {number} status @param {string} code @param {string} detail @param {{at?: object, headers?: Record<string, string>}=} more */
	constructor(status, code, detail, more = {}) {
		super(detail);
		this.status = status;
		this.code = code;
		this.at = more.at;
		this.headers = more.headers ?? {};
	}

	/** @returns {{error: object}} */
	toBody() {
		return { error: { code: this.code, detail: this.message, ...(this.at ? { at: this.at } : {}) } };
	}
}

const DRAIN_MS = 5_000;

/**
 * The body of a request, read whole. One that is too long is dropped as it comes and refused at its end, or after five
 * seconds: a client that writes first and reads then would see a broken connection instead of the reason.
 * @param {import("node:http").IncomingMessage} request @param {number} maxBytes @returns {Promise<string>}
 * @throws {Refusal}
 */
export function readBody(request, maxBytes) {
	return new Promise((resolve, reject) => {
		const chunks = [];
		let bytes = 0;
		let late;
		const refuse = () => reject(new Refusal(413, "payload_too_large", `the body is longer than ${maxBytes} bytes`, { headers: { connection: "close" } }));
		request.on("data", (chunk) => {
			bytes += chunk.length;
			if (bytes <= maxBytes) return void chunks.push(chunk);
			chunks.length = 0;
			late ??= setTimeout(refuse, DRAIN_MS);
		});
		request.on("end", () => {
			clearTimeout(late);
			if (bytes > maxBytes) refuse();
			else resolve(Buffer.concat(chunks).toString("utf8"));
		});
		request.on("error", reject);
		request.on("close", () => {
			clearTimeout(late);
			reject(new Error("the client went away"));
		});
	});
}

/**
 * A message of the protocol. Where it works and what its processes are marked with is ours to say: a client must not
 * choose a directory of this machine, or the program that the shell runs in.
 * @param {string} text @param {string[]} shellPrefix @returns {Record<string, any>}
 * @throws {Refusal} that names the place
 */
export function parseMessage(text, shellPrefix) {
	try {
		const message = JSON.parse(text);
		if (message?.type !== "run") return parseLine(text);
		return checked({ ...message, mark: "of the server", workdir: "of the server", shell_prefix: shellPrefix });
	} catch (error) {
		if (error instanceof SyntaxError) throw new Refusal(400, "malformed_json", "the body is not JSON", { at: placeOf(text) });
		if (error instanceof BadLine) throw new Refusal(400, "schema_invalid", error.message, { at: { field: error.field ?? "" } });
		throw error;
	}
}
