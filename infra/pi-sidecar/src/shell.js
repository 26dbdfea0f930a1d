import { spawn } from "node:child_process";

/** One line, one argument for a POSIX shell. @param {string} text */
export const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/**
 * All that a process of a run gets to see of our environment. `AGENTSTREAM_RUN` marks it, so that a child which called
 * `setsid` is found and swept even when the sidecar was killed.
 * @param {{workdir: string, mark: string}} run @param {NodeJS.ProcessEnv} env
 * @returns {Record<string, string>}
 */
export function scrubbedEnvironment({ workdir, mark }, env = process.env) {
	return {
		PATH: env.PATH ?? "/usr/local/bin:/usr/bin:/bin",
		LANG: env.LANG ?? "C.UTF-8",
		HOME: workdir,
		TMPDIR: workdir,
		AGENTSTREAM_RUN: mark,
	};
}

/**
 * Runs a program in its own process group; aborting kills the group.
 * @param {string[]} argv
 * @param {{cwd: string, env: Record<string, string>, signal?: AbortSignal, maxBytes: number}} options
 * @returns {Promise<{code: number | null, output: string, truncated: boolean}>}
 */
export function runProgram(argv, { cwd, env, signal, maxBytes }) {
	return new Promise((resolve, reject) => {
		const child = spawn(argv[0], argv.slice(1), { cwd, env, detached: true, stdio: ["ignore", "pipe", "pipe"] });
		const chunks = [];
		let bytes = 0;
		let truncated = false;
		const kill = () => {
			try {
				if (child.pid) process.kill(-child.pid, "SIGKILL");
			} catch {
				// The group is gone already.
			}
		};
		signal?.addEventListener("abort", kill, { once: true });
		const take = (chunk) => {
			bytes += chunk.length;
			if (bytes <= maxBytes) chunks.push(chunk);
			else {
				truncated = true;
				kill();
			}
		};
		child.stdout.on("data", take);
		child.stderr.on("data", take);
		child.on("error", reject);
		child.on("close", (code) => {
			signal?.removeEventListener("abort", kill);
			if (signal?.aborted) reject(new Error("Operation aborted"));
			else resolve({ code, output: Buffer.concat(chunks).toString("utf8"), truncated });
		});
	});
}
