#!/usr/bin/env node
/** Hosts Pi for many runs at once: JSON Lines in on stdin, out on stdout, everything else on stderr. */

import { leaveOn } from "./prelude.js";

const { VERSION } = await import("@earendil-works/pi-coding-agent");
const { LineReader, LineWriter } = await import("./lines.js");
const { MAX_LINE_BYTES, readyLine } = await import("./protocol.js");
const { Sidecar } = await import("./sidecar.js");
const { blame } = await import("./spill.js");
const { warmUp } = await import("./warmup.js");

const writer = new LineWriter(process.stdout, MAX_LINE_BYTES, { together: true });
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

leaveOn(leave, blame);
if (!(await warmUp())) console.error("the warm-up run failed");
writer.write(readyLine(VERSION));
process.stdin.on("data", (chunk) => reader.push(chunk));
