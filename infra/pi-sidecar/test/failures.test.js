import assert from "node:assert/strict";
import test from "node:test";
import { CallRecord, Failure, providerFailure, retryAfterMs } from "../src/failures.js";

const failure = (record, message = "it failed") => {
	const { code, retriable, retryAfterMs: after } = providerFailure(Object.assign(new CallRecord(), record), message);
	return [code, retriable, after];
};

test("a Retry-After is read in seconds and as a date", () => {
	const now = Date.parse("2026-01-01T00:00:00Z");
	assert.equal(retryAfterMs("1.5", now), 1500);
	assert.equal(retryAfterMs("Thu, 01 Jan 2026 00:00:10 GMT", now), 10_000);
	assert.equal(retryAfterMs("Wed, 31 Dec 2025 00:00:00 GMT", now), 0);
	for (const nothing of [null, "", "soon"]) assert.equal(retryAfterMs(nothing, now), undefined);
});

test("what the wire showed decides, not the provider's prose", () => {
	assert.deepEqual(failure({ status: 401 }), ["provider_auth", false, undefined]);
	assert.deepEqual(failure({ status: 429, retryAfterMs: 5 }), ["rate_limited", true, 5]);
	assert.deepEqual(failure({ status: 429 }, "insufficient_quota"), ["rate_limited", false, undefined]);
	assert.deepEqual(failure({ status: 404 }, "no such model, see error 500"), ["model_unavailable", false, undefined]);
	assert.deepEqual(failure({ status: 529 }), ["provider_error", true, undefined]);
	assert.deepEqual(failure({ status: 400 }, "prompt is too long"), ["provider_error", false, undefined]);
	assert.deepEqual(failure({ networkError: "ECONNREFUSED" }), ["provider_error", true, undefined]);
	assert.deepEqual(failure({ status: 200 }, "terminated"), ["provider_error", true, undefined]);
	assert.deepEqual(failure({}, "No API key for provider: x"), ["provider_auth", false, undefined]);
});

test("an answer that broke off is told as such, not in a library's one word", () => {
	const { message } = providerFailure(Object.assign(new CallRecord(), { status: 200 }), "terminated");
	assert.equal(message, "the provider's answer broke off: terminated");
});

test("a failure leaves as one short line without secrets", () => {
	const line = new Failure("internal", `a\n  sk-1 ${"x".repeat(900)}`).toLine((text) => text.replaceAll("sk-1", "[redacted]"));
	assert.ok(line.detail.startsWith("a [redacted] xxx"));
	assert.equal(line.detail.length, 500);
});
