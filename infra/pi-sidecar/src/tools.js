import { constants } from "node:fs";
import {
	createBashToolDefinition,
	createEditToolDefinition,
	createLsToolDefinition,
	createReadToolDefinition,
	createWriteToolDefinition,
	detectSupportedImageMimeTypeFromFile,
} from "@earendil-works/pi-coding-agent";
import { Failure } from "./failures.js";
import { Guard } from "./guard.js";
import { createGuardedFind, createGuardedGrep } from "./search.js";
import { quote, scrubbedEnvironment } from "./shell.js";
import { Spill } from "./spill.js";

/** @param {any} run @param {Record<string, string>} env */
function createShell(run, env) {
	const prefix = run.shell_prefix ?? [];
	const tool = createBashToolDefinition(run.workdir, {
		exposeSessionEnvironment: false,
		spawnHook: (context) => ({
			...context,
			env,
			command: prefix.length ? `exec ${prefix.map(quote).join(" ")} bash -c ${quote(context.command)}` : context.command,
		}),
	});
	return {
		...tool,
		async execute(id, params, signal, onUpdate, context) {
			const spill = new Spill(run.workdir);
			try {
				const result = await spill.watch((either, update) => tool.execute(id, params, either, update, context), signal, onUpdate);
				const content = await Promise.all(
					result.content.map(async (block) => (block.type === "text" ? { ...block, text: await spill.bring(block.text) } : block)),
				);
				return { ...result, content, details: undefined };
			} catch (error) {
				throw new Error(await spill.bring(String(error?.message ?? error)));
			} finally {
				await spill.discard();
			}
		},
	};
}

/** @param {Guard} guard */
function createFileTools(guard) {
	const { workdir } = guard;
	const readFile = (path) => guard.readFile(path);
	const writeFile = (path, content) => guard.writeFile(path, content);
	return {
		read: createReadToolDefinition(workdir, {
			operations: {
				readFile,
				access: (path) => guard.access(path),
				detectImageMimeType: async (path) => {
					await guard.readFile(path);
					return detectSupportedImageMimeTypeFromFile(path);
				},
			},
		}),
		write: createWriteToolDefinition(workdir, { operations: { writeFile, mkdir: (path) => guard.mkdir(path) } }),
		edit: createEditToolDefinition(workdir, {
			operations: { readFile, writeFile, access: (path) => guard.access(path, constants.R_OK | constants.W_OK) },
		}),
		ls: createLsToolDefinition(workdir, {
			operations: { exists: (path) => guard.exists(path), stat: (path) => guard.stat(path), readdir: (path) => guard.readdir(path) },
		}),
	};
}

/** `~` is the working directory for the file tools as it is for the shell. */
function withHome(tool, guard) {
	return {
		...tool,
		execute: (id, params, signal, onUpdate, context) =>
			tool.execute(id, "path" in params ? { ...params, path: guard.expand(params.path) } : params, signal, onUpdate, context),
	};
}

/** A tool that Python answers. @param {any} definition @param {(call: object, signal?: AbortSignal) => Promise<any>} ask */
function createPythonTool(definition, ask) {
	return {
		name: definition.name,
		label: definition.name,
		description: definition.description ?? definition.name,
		promptSnippet: definition.description ?? definition.name,
		parameters: definition.parameters,
		async execute(id, params, signal) {
			const answer = await ask({ tool_call_id: id, tool_name: definition.name, arguments: params }, signal);
			if (answer.is_error) throw new Error(answer.content);
			return { content: [{ type: "text", text: answer.content }], details: undefined };
		},
	};
}

/**
 * Python is asked first, and answers in the tool's place or lets it run. Name, description and schema stay the tool's: the
 * model must not see the difference. @param {any} tool @param {(call: object, signal?: AbortSignal) => Promise<any>} ask
 */
function askFirst(tool, ask) {
	return {
		...tool,
		async execute(id, params, signal, onUpdate, context) {
			const answer = await ask({ tool_call_id: id, tool_name: tool.name, arguments: params }, signal);
			if (answer.run_tool) return tool.execute(id, params, signal, onUpdate, context);
			if (answer.is_error) throw new Error(answer.content);
			return { content: [{ type: "text", text: answer.content }], details: undefined };
		},
	};
}

/** A tool that only its answers are known of: no other has its name here. @param {string} name */
const refusing = (name) => ({
	name,
	label: name,
	description: name,
	promptSnippet: name,
	parameters: { type: "object", additionalProperties: true },
	execute: async () => {
		throw new Error(`pi has no tool named ${name}`);
	},
});

/**
 * The tools of one run, each kept inside its working directory.
 * @param {any} run the `run` line, its workdir a real path
 * @param {(call: object, signal?: AbortSignal) => Promise<any>} ask answers a call in Python
 * @returns {any[]} tool definitions, exactly those that are allowed
 * @throws {Failure} for a tool that does not exist
 */
export function createTools(run, ask) {
	if (run.tools.length === 0 && !run.python_tools?.length) return [];
	const guard = new Guard(run.workdir);
	const env = scrubbedEnvironment(run);
	const known = {
		...createFileTools(guard),
		grep: createGuardedGrep(guard, env),
		find: createGuardedFind(guard),
	};
	const offered = { bash: createShell(run, env) };
	for (const [name, tool] of Object.entries(known)) offered[name] = withHome(tool, guard);
	for (const tool of run.python_tools ?? []) offered[tool.name] = createPythonTool(tool, ask);
	const allowed = [...new Set([...run.tools, ...(run.python_tools ?? []).map((tool) => tool.name)])];
	const own = new Set((run.python_tools ?? []).map((tool) => tool.name));
	return allowed.map((name) => {
		if (run.ask_first && !own.has(name)) return askFirst(Object.hasOwn(offered, name) ? offered[name] : refusing(name), ask);
		if (!Object.hasOwn(offered, name)) throw new Failure("tool_not_allowed", `pi has no tool named ${name}`);
		return offered[name];
	});
}
