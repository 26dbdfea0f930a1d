/** What every process of the sidecar does before anything of Pi's is loaded. Imported first, for its effects. */

import { Console } from "node:console";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

// One stray console.log would break the pipe's lines.
globalThis.console = new Console(process.stderr, process.stderr);
process.env.PI_OFFLINE = "1";
process.env.PI_TELEMETRY = "0";
// Pi looks for it on the disk each time it writes a system prompt: 3 % of a trivial run.
process.env.PI_PACKAGE_DIR = dirname(dirname(fileURLToPath(import.meta.resolve("@earendil-works/pi-coding-agent"))));
// Past a limit on file sizes: the write fails as well, and says which.
process.on("SIGXFSZ", () => {});

/**
 * Goes when asked to, and when a bug is met: nothing that runs here can be trusted any more. A full disk is neither.
 * @param {(code: number) => void} leave @param {(error: unknown) => boolean} blame
 */
export function leaveOn(leave, blame) {
	process.stdout.on("error", () => leave(0));
	process.on("SIGTERM", () => leave(0));
	process.on("SIGINT", () => leave(0));
	process.on("uncaughtException", (error) => {
		console.error(error);
		if (!blame(error)) leave(70);
	});
	process.stdin.on("end", () => leave(0));
	process.stdin.on("error", () => leave(0));
}
