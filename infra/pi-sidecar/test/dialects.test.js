import assert from "node:assert/strict";
import test from "node:test";
import { openSidecar } from "./endpoint.js";

const BODY = JSON.stringify({ type: "error", error: { type: "some_error", message: "no, sk-secret-key" } });

for (const api of ["anthropic-messages", "openai-responses", "openai-completions", "mistral-conversations", "google-generative-ai"]) {
	for (const [status, code, retriable] of [
		[401, "provider_auth", false],
		[404, "model_unavailable", false],
		[429, "rate_limited", true],
		[500, "provider_error", true],
	]) {
		test(`${api}: ${status} is ${code}, called once, and nothing of the key is told`, async (context) => {
			const headers = { "content-type": "application/json", "retry-after": "7" };
			const { endpoint, line, take, done } = await openSidecar(context, [{ status, headers, body: BODY }]);
			take(line({ endpoint: { api_key: "sk-secret-key", base_url: endpoint.url, api }, traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01` }));
			const { error } = await done();
			assert.deepEqual([error.code, error.retriable], [code, retriable], JSON.stringify(error));
			assert.ok(!JSON.stringify(error).includes("sk-secret-key"));
			assert.equal(endpoint.requests.length, 1);
			assert.match(endpoint.requests[0].headers.traceparent, /^00-a{32}-[0-9a-f]{16}-01$/);
			assert.equal(error.retry_after_ms, 7000);
		});
	}
}

test("a dialect that pi does not speak is refused", async (context) => {
	const { endpoint, line, take, done } = await openSidecar(context, [{ status: 500 }]);
	take(line({ endpoint: { api_key: "sk-secret-key", base_url: endpoint.url, api: "telepathy" } }));
	assert.equal((await done()).error.code, "unsupported");
});
