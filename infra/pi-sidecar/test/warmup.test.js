import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import test from "node:test";
import { fileURLToPath } from "node:url";

const MAIN = fileURLToPath(new URL("../src/main.js", import.meta.url));

test("a sidecar gets ready where no temporary directory can be made", async () => {
	const env = { ...process.env, TMPDIR: join(tmpdir(), "is-not-there") };
	const child = spawn(process.execPath, [MAIN], { env, stdio: ["pipe", "pipe", "ignore"] });
	const ended = new Promise((resolve) => child.on("exit", resolve));
	for await (const line of createInterface(child.stdout)) {
		assert.equal(JSON.parse(line).type, "ready");
		child.stdin.end();
	}
	assert.equal(await ended, 0);
});
