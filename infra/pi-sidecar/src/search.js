/** `grep` and `find` without ripgrep and fd: Pi would download them, and they would run unmarked. */

import { glob } from "node:fs/promises";
import { basename, dirname, isAbsolute, join } from "node:path";
import { createFindToolDefinition, createGrepToolDefinition } from "@earendil-works/pi-coding-agent";
import { runProgram } from "./shell.js";

const MAX_GREP_BYTES = 1024 * 1024;
const SHOWN_BYTES = 50 * 1024;

/** @param {string} output @param {number} limit */
function cut(output, limit) {
	const lines = output.split("\n");
	let text = lines.slice(0, limit).join("\n");
	const notices = lines.length > limit ? [`${limit} lines limit reached`] : [];
	if (text.length > SHOWN_BYTES) {
		text = text.slice(0, SHOWN_BYTES);
		notices.push("50KB limit reached");
	}
	return notices.length ? `${text}\n\n[${notices.join(". ")}]` : text;
}

/** @param {Record<string, any>} params @param {string} target */
function grepArguments(params, target) {
	const args = ["grep", "-rnI", params.literal ? "-F" : "-E"];
	if (params.ignoreCase) args.push("-i");
	if (params.context > 0) args.push("-C", String(Math.min(50, Math.floor(params.context))));
	if (params.glob) args.push(`--include=${params.glob}`);
	return [...args, "-e", params.pattern, "--", target];
}

/** @param {import("./guard.js").Guard} guard @param {Record<string, string>} env */
export function createGuardedGrep(guard, env) {
	return {
		...createGrepToolDefinition(guard.workdir),
		description: "Search file contents for a POSIX extended regular expression or a literal string. Returns matching lines with file paths and line numbers.",
		promptSnippet: "Search file contents for patterns",
		async execute(_id, params, signal) {
			const target = guard.relative(await guard.inside(params.path ?? "."));
			const options = { cwd: guard.workdir, env, signal, maxBytes: MAX_GREP_BYTES };
			const { code, output, truncated } = await runProgram(grepArguments(params, target), options);
			if (code !== 0 && code !== 1 && !truncated) throw new Error(output.trim() || `grep exited with code ${code}`);
			const text = output.replace(/^\.\//gm, "").trimEnd();
			const limit = Math.max(1, Math.floor(params.limit ?? 100));
			return { content: [{ type: "text", text: text ? cut(text, limit) : "No matches found" }], details: undefined };
		},
	};
}

/** @param {import("./guard.js").Guard} guard */
export function createGuardedFind(guard) {
	return createFindToolDefinition(guard.workdir, {
		operations: {
			exists: (path) => guard.exists(path),
			glob: async (pattern, cwd, { limit }) => {
				if (isAbsolute(pattern) || pattern.split("/").includes("..")) throw new Error("Refused: the pattern leaves the directory");
				const found = [];
				const root = await guard.inside(cwd);
				const exclude = (name) => [".git", "node_modules"].includes(basename(String(name?.name ?? name)));
				for await (const entry of glob(pattern.includes("/") ? pattern : `**/${pattern}`, { cwd: root, exclude })) {
					const path = join(root, entry);
					// The entry itself may be a link that leads out: naming it is fine, following it is not.
					await guard.inside(dirname(path));
					found.push(path);
					if (found.length >= limit) break;
				}
				return found;
			},
		},
	});
}
