#!/usr/bin/env node
/** Hosts Pi for many runs at once: JSON Lines in on stdin, out on stdout, everything else on stderr. */

import { Console } from "node:console";

// Before anything else is loaded: one stray console.log would break the pipe's lines.
globalThis.console = new Console(process.stderr, process.stderr);
process.env.PI_OFFLINE = "1";
process.env.PI_TELEMETRY = "0";

const { VERSION } = await import("@earendil-works/pi-coding-agent");
const { LineReader, LineWriter } = await import("./lines.js");
const { MAX_LINE_BYTES, PROTOCOL } = await import("./protocol.js");
const { Sidecar } = await import("./sidecar.js");
const { blame } = await import("./spill.js");
const { warmUp } = await import("./warmup.js");

const writer = new LineWriter(process.stdout, MAX_LINE_BYTES);
const sidecar = new Sidecar(writer);
const reader = new LineReader({
	maxBytes: MAX_LINE_BYTES,
	onLine: (line) => sidecar.take(line),
	onTooLong: (bytes) => sidecar.complain(`a line of ${bytes} bytes is longer than ${MAX_LINE_BYTES}`),
});

let leaving = false;
/** Aborts what runs, lets the last lines out, and goes. @param {number} code */
async function leave(code) {
	if (leaving) return;
	leaving = true;
	await sidecar.close();
	process.stdout.end(() => process.exit(code));
	// The other side may have stopped reading for good.
	setTimeout(() => process.exit(code), 500).unref();
}

process.stdout.on("error", () => leave(0));
process.on("SIGTERM", () => leave(0));
process.on("SIGINT", () => leave(0));
// Past a limit on file sizes: the write fails as well, and says which.
process.on("SIGXFSZ", () => {});
// A bug of ours or of a library's: nothing that runs here can be trusted any more. A full disk is neither.
process.on("uncaughtException", (error) => {
	console.error(error);
	if (!blame(error)) leave(70);
});

if (!(await warmUp())) console.error("the warm-up run failed");
writer.write({ type: "ready", protocol: PROTOCOL, pi: VERSION, node: process.versions.node, max_line_bytes: MAX_LINE_BYTES, pid: process.pid });
process.stdin.on("data", (chunk) => reader.push(chunk));
process.stdin.on("end", () => leave(0));
process.stdin.on("error", () => leave(0));
