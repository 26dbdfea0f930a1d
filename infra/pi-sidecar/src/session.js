import { join } from "node:path";
import { toToolDeclaration } from "@earendil-works/pi-ai";
import { ModelRuntime, SessionManager, SettingsManager, createAgentSession, createExtensionRuntime } from "@earendil-works/pi-coding-agent";

/** Pi's own retries, compaction, cache warming, telemetry and look at the disk: all off. Retries are the worker's. */
const SETTINGS = {
	compaction: { enabled: false },
	retry: { enabled: false, maxRetries: 0, provider: { maxRetries: 0 } },
	cacheWarming: "off",
	enableInstallTelemetry: false,
	httpIdleTimeoutMs: 0,
};

const NO_CREDENTIALS = {
	read: async () => undefined,
	list: async () => [],
	modify: async () => undefined,
	delete: async () => undefined,
};

/** @type {Promise<ModelRuntime> | undefined} shared by all runs: it is only there because a session wants one */
let modelRuntime;

/** Nothing on disk reaches a run: no AGENTS.md, no skills, no extensions, no prompts, only what the request brought. */
function createResourceLoader({ agentsMd, agentsPath, system }) {
	const runtime = createExtensionRuntime();
	return {
		getExtensions: () => ({ extensions: [], errors: [], runtime }),
		getSkills: () => ({ skills: [], diagnostics: [] }),
		getPrompts: () => ({ prompts: [], diagnostics: [] }),
		getThemes: () => ({ themes: [], diagnostics: [] }),
		getAgentsFiles: () => ({ agentsFiles: agentsMd ? [{ path: agentsPath, content: agentsMd }] : [] }),
		getSystemPrompt: () => undefined,
		getSystemPromptSource: () => undefined,
		getAppendSystemPrompt: () => system,
		getAppendSystemPromptSources: () => [],
		extendResources: () => {},
		reload: async () => {},
	};
}

/** Where Pi's own documentation lies on this machine: no use to an agent kept in its directory, and it names our paths. */
const PI_DOCS = /<docs>\nPi documentation[\s\S]*?\n<\/docs>\n*/;

/**
 * An in-memory session of Pi's, made of what the request brought and nothing else.
 * @param {{run: any, model: any, stream: any, tools: any[], system: string[], history: any[]}} options
 */
export async function createSession({ run, model, stream, tools, system, history }) {
	modelRuntime ??= ModelRuntime.create({
		modelsPath: null,
		allowModelNetwork: false,
		refreshOnCreate: false,
		credentials: /** @type {any} */ (NO_CREDENTIALS),
	});
	const { workdir } = run;
	const sessionManager = SessionManager.inMemory(workdir);
	for (const message of history) sessionManager.appendMessage(message);
	const { session } = await createAgentSession({
		cwd: workdir,
		agentDir: join(workdir, ".nowhere"),
		modelRuntime: await modelRuntime,
		model,
		thinkingLevel: run.thinking ?? "off",
		tools: tools.map((tool) => tool.name),
		customTools: tools,
		resourceLoader: /** @type {any} */ (createResourceLoader({ agentsMd: run.agents_md, agentsPath: join(workdir, "AGENTS.md"), system })),
		sessionManager,
		settingsManager: SettingsManager.inMemory(/** @type {any} */ (SETTINGS)),
	});
	const { agent } = session;
	agent.streamFunction = stream;
	// The system prompt goes first, whole, on every call: a continued session would send none, and one that is
	// prompted would put it behind its history.
	const transform = agent.transformContext;
	agent.transformContext = async (messages, signal) => {
		const transformed = (await transform?.(messages, signal)) ?? messages;
		const declarations = agent.state.tools.map(toToolDeclaration);
		const head = { role: "system", content: session.systemPrompt.replace(PI_DOCS, ""), toolsAdded: declarations, timestamp: 0 };
		return [head, ...transformed.filter((message) => message.role !== "system")];
	};
	return session;
}

/** Ends the run after `maxTurns` model calls, exactly. Pi itself has no such limit. @returns {{exceeded: boolean}} */
export function limitTurns(agent, maxTurns) {
	const state = { exceeded: false, turns: 0 };
	const finishTurn = agent.finishTurn;
	agent.finishTurn = async (turn, signal) => {
		const decision = await finishTurn?.(turn, signal);
		state.turns += 1;
		if (state.turns < maxTurns || turn.toolResults.length === 0) return decision;
		state.exceeded = true;
		return { action: "end" };
	};
	return state;
}
