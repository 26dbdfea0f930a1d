#!/usr/bin/env node
/**
 * The sidecar behind HTTP. `agentstream sidecar` starts it, says on its stdin what to serve and where (no secret in argv
 * or the environment), and answers its questions about places on disk; the end of stdin ends it.
 */

import { leaveOn } from "./prelude.js";

const { isIP } = await import("node:net");
const { VERSION } = await import("@earendil-works/pi-coding-agent");
const { HttpFront } = await import("./http.js");
const { Places } = await import("./places.js");
const { readyLine } = await import("./protocol.js");
const { Sidecar } = await import("./sidecar.js");
const { blame } = await import("./spill.js");
const { warmUp } = await import("./warmup.js");

/** @param {string} host */
const isLoopback = (host) => host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));

const places = new Places({ input: process.stdin, output: process.stdout });
/** @type {import("./http.js").HttpFront | undefined} */
let front;
let graceMs = 0;
let leaving = false;

/** @param {number} code */
async function leave(code) {
	// The second signal does not wait, nor does a bug.
	if (leaving || code !== 0 || !front) process.exit(code);
	leaving = true;
	await front.close(process.stdin.readableEnded ? 0 : graceMs);
	process.exit(code);
}

leaveOn(leave, blame);
const { host, port, token, shell_prefix, grace_ms } = await places.configuration;
graceMs = grace_ms;
if (!isLoopback(host) && !token) throw new Error(`Error: ${host} is no loopback address, and there is no token`);
if (!(await warmUp())) console.error("the warm-up run failed");
front = new HttpFront({ sidecar: new Sidecar(), places, pi: VERSION, token, shellPrefix: shell_prefix });
places.say({ ...readyLine(VERSION), port: await front.listen({ host, port }) });
