import { createHash, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { APART_AT_ONCE, ApartRun, Room } from "./apart.js";
import { LineWriter } from "./lines.js";
import { MAX_LINE_BYTES, readyLine } from "./protocol.js";
import { Refusal, parseMessage, readBody } from "./refusal.js";
import { ResponseStream } from "./response.js";

const BEAT_MS = 5_000;
const SAYS_IT_WAITS_MS = 500;
const CANCEL_MS = 3_000;
const KEEP_ALIVE_MS = 75_000;

const METHODS = { "/health": ["GET", "HEAD"], "/run": ["POST"] };

const digest = (text) => createHash("sha256").update(text).digest();

/**
 * @typedef {object} HostedRun a run between its first and its last line
 * @property {() => void} cancel
 * @property {(answer: any) => void} answer
 * @property {Promise<void>} gone when nothing of it is left
 */

/** The same runs as over the pipe, each as the answer to a request: `POST /run` and `GET /health`. */
export class HttpFront {
	/** @param {{sidecar: import("./sidecar.js").Sidecar, places: import("./places.js").Places, pi: string, token?: string | null, shellPrefix?: string[]}} options */
	constructor({ sidecar, places, pi, token, shellPrefix = [] }) {
		this.sidecar = sidecar;
		this.places = places;
		this.pi = pi;
		this.token = token ? digest(`Bearer ${token}`) : undefined;
		this.shellPrefix = shellPrefix;
		this.closing = false;
		/** @type {Map<string, HostedRun>} */
		this.runs = new Map();
		this.apart = new Room(APART_AT_ONCE);
		this.server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS, headersTimeout: 15_000, requestTimeout: 60_000 }, (request, response) => void this.#answer(request, response));
	}

	/** @param {{host: string, port: number}} where @returns {Promise<number>} the port */
	listen({ host, port }) {
		return new Promise((resolve, reject) => {
			this.server.once("error", reject);
			this.server.listen(port, host, () => resolve(/** @type {any} */ (this.server.address()).port));
		});
	}

	/** Takes nothing new, lets runs come to their end for a while, then cancels them. @param {number} graceMs */
	async close(graceMs) {
		this.closing = true;
		this.server.close();
		this.server.closeIdleConnections();
		await this.#ended(graceMs);
		for (const run of this.runs.values()) run.cancel();
		await this.#ended(CANCEL_MS);
		this.server.closeAllConnections();
	}

	/** @param {number} ms */
	async #ended(ms) {
		const late = new Promise((resolve) => setTimeout(resolve, ms).unref());
		await Promise.race([late, Promise.allSettled([...this.runs.values()].map((run) => run.gone))]);
	}

	/** @param {import("node:http").IncomingMessage} request @param {import("node:http").ServerResponse} response */
	async #answer(request, response) {
		try {
			await this.#route(request, response);
		} catch (error) {
			if (!(error instanceof Refusal) && !response.destroyed) console.error(error);
			// Begun, it can only be cut: whole, it would read as a run that came to its end.
			if (response.headersSent || response.destroyed) return void response.destroy();
			const refusal = error instanceof Refusal ? error : new Refusal(500, "internal", "the sidecar failed; its log says more");
			this.#send(response, refusal.status, refusal.toBody(), refusal.headers);
		}
	}

	async #route(request, response) {
		const path = request.url.split("?")[0];
		this.#refuseBrowsers(request);
		if (path === "/health" && request.headers.authorization === undefined && METHODS[path].includes(request.method)) return this.#health(response, this.token === undefined);
		this.#authorize(request);
		const methods = Object.hasOwn(METHODS, path) ? METHODS[path] : undefined;
		if (!methods) throw new Refusal(404, "not_found", "only GET /health and POST /run are here");
		if (!methods.includes(request.method)) throw new Refusal(405, "method_not_allowed", `only ${methods.join(" and ")} here`, { headers: { allow: methods.join(", ") } });
		if (path === "/health") return this.#health(response, true);
		const message = parseMessage(await readBody(request, MAX_LINE_BYTES), this.shellPrefix);
		return message.type === "run" ? this.#run(message, response) : this.#control(message, response);
	}

	/** A page in a browser on this machine can reach loopback, too, and would need no token. */
	#refuseBrowsers({ headers }) {
		if (headers.origin !== undefined || headers["sec-fetch-site"] !== undefined) throw new Refusal(403, "forbidden", "browsers are not answered");
	}

	#authorize({ headers }) {
		if (this.token === undefined || timingSafeEqual(digest(headers.authorization ?? ""), this.token)) return;
		throw new Refusal(401, "unauthorized", "a bearer token is needed", { headers: { "www-authenticate": "Bearer" } });
	}

	#health(response, known) {
		const more = known ? { ...readyLine(this.pi), runs: this.runs.size } : {};
		this.#send(response, this.closing ? 503 : 200, { ...more, ok: !this.closing, reason: this.closing ? "it is stopping" : null });
	}

	async #control(message, response) {
		const run = this.runs.get(message.run);
		if (message.type === "ping") return this.#send(response, 200, { type: "pong", id: message.id });
		if (message.type === "tool_result") {
			if (!run) throw new Refusal(404, "no_such_run", "no such run is under way here");
			run.answer(message);
		}
		if (message.type === "cancel" && run) {
			run.cancel();
			await run.gone.catch(() => {});
		}
		response.writeHead(204).end();
	}

	async #run(message, response) {
		if (this.closing) throw new Refusal(503, "harness_unavailable", "the Pi sidecar shuts down", { headers: { connection: "close" } });
		if (this.runs.has(message.run)) throw new Refusal(409, "schema_invalid", "a run of this name is under way", { at: { field: "run" } });
		const run = new Visit(message, response, this);
		this.runs.set(message.run, run);
		response.on("close", () => response.writableEnded || run.cancel());
		try {
			await run.gone;
		} finally {
			this.runs.delete(message.run);
		}
	}

	/** @param {import("node:http").ServerResponse} response */
	#send(response, status, body, headers = {}) {
		const text = `${JSON.stringify(body)}\n`;
		response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text), "cache-control": "no-store", ...headers });
		response.end(response.req.method === "HEAD" ? undefined : text);
	}
}

/** One run as the answer to one request, from its place on disk to the end of the answer, when nothing of it is left. */
class Visit {
	/** @param {any} message a `run` line @param {import("node:http").ServerResponse} response @param {HttpFront} front */
	constructor(message, response, front) {
		this.message = message;
		this.response = response;
		this.front = front;
		this.cancelled = false;
		/** @type {import("./run.js").Run | ApartRun | undefined} */
		this.run = undefined;
		this.gone = this.#perform();
	}

	cancel() {
		this.cancelled = true;
		this.run?.cancel();
	}

	/** @param {any} answer a `tool_result` line */
	answer(answer) {
		this.run?.answer(answer);
	}

	async #perform() {
		const { places, pi } = this.front;
		const place = await places.open(this.message.run, { tools: this.message.tools.length > 0 }).catch((error) => {
			console.error(error);
			throw new Refusal(503, "harness_unavailable", "no working directory can be made", { headers: { "retry-after": "1" } });
		});
		const line = { ...this.message, ...place, shell_prefix: this.message.shell_prefix.map((word) => word.replaceAll("{workdir}", place.workdir)) };
		this.response.writeHead(200, { "content-type": "application/x-ndjson", "cache-control": "no-store", "x-accel-buffering": "no" });
		const stream = new ResponseStream(this.response, { beatMs: BEAT_MS });
		stream.say(readyLine(pi));
		try {
			if (line.apart) await this.#performApart(line, stream);
			else await this.#performShared(line, stream);
		} finally {
			const mayHaveLeft = line.tools.length > 0 && (this.cancelled || this.run?.usedTools === true);
			await places.close(place, { sweep: mayHaveLeft });
			stream.end();
		}
	}

	async #performShared(line, stream) {
		const begun = this.front.sidecar.begin(line, new LineWriter(/** @type {any} */ (stream), MAX_LINE_BYTES));
		if (!begun) return;
		this.run = begun.run;
		stream.onTaken = (n) => begun.run.outbox.ack(n);
		if (this.cancelled) begun.run.cancel();
		await begun.ended;
	}

	async #performApart(line, stream) {
		const place = this.front.apart.enter();
		const run = new ApartRun(line, stream);
		this.run = run;
		const gaveUp = new Promise((resolve) => (run.onCancel = () => resolve(undefined)));
		if (this.cancelled) run.cancel();
		const waiting = setInterval(() => stream.say({ type: "waiting", run: line.run }), SAYS_IT_WAITS_MS);
		try {
			await Promise.race([place.entered, gaveUp]);
			clearInterval(waiting);
			await run.perform();
		} finally {
			clearInterval(waiting);
			place.leave();
		}
	}
}
