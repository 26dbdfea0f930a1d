import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdir, mkdtemp, readdir, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { Lines, call, openEndpoint, openSidecar, say } from "./endpoint.js";

const MAIN = fileURLToPath(new URL("../src/main.js", import.meta.url));
const CHATTY = call("bash", { command: "seq 1 1000000" });
const MEANWHILE = call("bash", { command: "while [ ! -e go ]; do sleep 0.05; done; seq 1 5000 | tail -1" });

/** A full disk, as far as this machine lets us have one. @param {string} place an empty directory @returns {string[]} what to start the sidecar with */
const SHORTAGES = {
	"a file may not grow": () => ["bash", "-c", 'ulimit -f 1000; exec "$@"', "-"],
	"the disk is full": (place) => {
		execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", place], { stdio: "ignore" });
		return ["env"];
	},
};

/** The sidecar as a process of its own: it decides about uncaught errors. */
async function openProcess(context, makeShortage) {
	const home = await realpath(await mkdtemp(join(tmpdir(), "spill-test-")));
	const place = join(home, "temporary");
	await mkdir(place);
	const prefix = makeShortage(place);
	context.after(() => {
		if (prefix[0] === "env") execFileSync("umount", ["-l", place]);
		return rm(home, { recursive: true, force: true });
	});
	const child = spawn(prefix[0], [...prefix.slice(1), process.execPath, MAIN], { env: { ...process.env, TMPDIR: place }, stdio: ["pipe", "pipe", "ignore"] });
	const ended = new Promise((resolve) => child.on("exit", resolve));
	context.after(() => {
		child.stdin.end();
		return ended;
	});
	const lines = new Lines();
	createInterface(child.stdout).on("line", (text) => lines.write(text));
	child.on("exit", (code) => lines.write(JSON.stringify({ type: "done", run: "all", exit: code })));
	await lines.until((line) => line.type === "ready");
	const run = async (name, script) => {
		const endpoint = await openEndpoint(script);
		context.after(() => endpoint.close());
		const workdir = join(home, name);
		await mkdir(workdir);
		child.stdin.write(`${JSON.stringify({
			type: "run",
			run: name,
			mark: `test/${name}`,
			workdir,
			model: { provider: "offline", id: "demo" },
			endpoint: { api_key: "sk-secret-key", base_url: endpoint.url },
			messages: [{ role: "user", parts: [{ type: "text", content: "hi" }] }],
			tools: ["bash"],
			max_turns: 5,
		})}\n`);
		return workdir;
	};
	const done = (name) => lines.until((line) => line.type === "done" && (line.run === name || line.run === "all"));
	const result = (name) => lines.all.find((line) => line.run === name && line.event?.type === "tool.ended")?.event;
	return { place, lines, run, done, result };
}

for (const [shortage, makeShortage] of Object.entries(SHORTAGES)) {
	test(`${shortage}: the one call that wrote fails, and nobody else notices`, async (context) => {
		let sidecar;
		try {
			sidecar = await openProcess(context, makeShortage);
		} catch (error) {
			if (!String(error).includes("mount")) throw error;
			return context.skip("only root may mount a small disk");
		}
		const { place, run, done, result, lines } = sidecar;
		const other = await run("other", [MEANWHILE, say("ok")]);
		await lines.until((line) => line.run === "other" && line.event?.type === "tool.started");
		await run("chatty", [CHATTY, say("ok")]);
		assert.equal((await done("chatty")).status, "completed");
		assert.equal(result("chatty").is_error, true);
		assert.match(result("chatty").content, /^no space left in the worker's temporary directory/);
		assert.deepEqual(await readdir(place), []);
		await writeFile(join(other, "go"), "");
		assert.equal((await done("other")).status, "completed");
		assert.deepEqual([result("other").is_error, result("other").content.trim()], [false, "5000"]);
	});
}

test("a file that a command only names as its full output is neither copied nor removed", async (context) => {
	const elsewhere = await mkdtemp(join(tmpdir(), "spill-test-"));
	context.after(() => rm(elsewhere, { recursive: true, force: true }));
	const secret = join(elsewhere, "secret");
	await writeFile(secret, "not yours");
	const { line, take, done, workdir } = await openSidecar(context, [call("bash", { command: `echo '[Full output: ${secret}]'; seq 1 5000` }), call("bash", { command: `echo '[Full output: ${secret}]'; false` }), say("ok")]);
	take(line({ tools: ["bash"] }));
	assert.equal((await done()).status, "completed");
	assert.deepEqual(await readdir(elsewhere), ["secret"]);
	assert.deepEqual((await readdir(workdir)).map((name) => name.replace(/-.*/, "")), ["pi"]);
});
