import { AsyncLocalStorage } from "node:async_hooks";
import { createHash } from "node:crypto";
import { getApiProvider, getModel } from "@earendil-works/pi-ai/compat";
import { CallRecord, Failure, retryAfterMs } from "./failures.js";

/** An endpoint we know nothing about: roomy enough not to cut anything by itself. */
const UNKNOWN_MODEL = { reasoning: false, input: ["text", "image"], contextWindow: 200_000, maxTokens: 16_384 };
const NO_PRICES = { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 };

/** USD per million tokens, or undefined. @param {any} endpoint */
function pricesOf(endpoint) {
	const input = Number.parseFloat(endpoint.input_price ?? "");
	const output = Number.parseFloat(endpoint.output_price ?? "");
	// Cached tokens cost less at most providers: with only two prices known, the estimate errs upwards.
	return Number.isFinite(input) && Number.isFinite(output) ? { input, output, cacheRead: input, cacheWrite: input } : undefined;
}

/**
 * Finds the model in Pi's catalogue, or makes one for an endpoint from the worker's settings.
 * @param {{provider: string, id: string}} wanted
 * @param {Record<string, any>} endpoint
 * @returns {{model: any, priceSource: string | undefined}}
 * @throws {Failure}
 */
export function resolveModel({ provider, id }, endpoint) {
	const known = getModel(/** @type {any} */ (provider), /** @type {any} */ (id));
	if (!known && !endpoint.base_url) {
		throw new Failure("model_unavailable", `pi does not know ${provider}/${id}, and the worker has no endpoint for it`);
	}
	if (!endpoint.api_key && !endpoint.base_url) {
		throw new Failure("provider_auth", `the worker has no credentials for ${provider}`);
	}
	const prices = pricesOf(endpoint);
	const catalogPrices = endpoint.base_url || !known || Object.values(known.cost ?? {}).every((price) => !price) ? undefined : known.cost;
	const model = {
		...UNKNOWN_MODEL,
		name: id,
		...known,
		id,
		provider,
		api: endpoint.api ?? known?.api ?? "openai-completions",
		baseUrl: endpoint.base_url ?? known?.baseUrl,
		cost: prices ?? catalogPrices ?? NO_PRICES,
	};
	if (!getApiProvider(model.api)) throw new Failure("unsupported", `pi does not speak ${model.api}`);
	return { model, priceSource: prices ? "settings" : catalogPrices ? "pi" : undefined };
}

/**
 * The id of the worker's span for the n-th model call of an attempt: derived there as here, `consumers/tracing/ids.py`,
 * so that what the provider traces hangs below it. Both sides are held to `test/span-ids.json`.
 * @param {string} attemptId @param {number} number from 1
 */
export function chatSpanId(attemptId, number) {
	const id = createHash("sha256").update(`${attemptId}/chat/${number}`).digest().subarray(0, 8);
	return id.some((byte) => byte) ? id.toString("hex") : "0000000000000001";
}

/** The same trace, another span. @param {string | null | undefined} traceparent @param {string} spanId */
function traceparentOf(traceparent, spanId) {
	const [version, traceId, , flags] = (traceparent ?? "").split("-");
	return flags ? `${version}-${traceId}-${spanId}-${flags}` : undefined;
}

/** @param {any} error the deepest cause names the errno; the outer one only says "fetch failed" */
function networkErrorName(error) {
	const cause = error?.cause;
	return cause?.code ?? cause?.errors?.[0]?.code ?? error?.code ?? "connection failed";
}

/** @type {AsyncLocalStorage<CallRecord>} the model call on whose behalf code runs */
const currentCall = new AsyncLocalStorage();
const plainFetch = globalThis.fetch;

/**
 * Every dialect ends in this fetch, also those whose client takes none of its own (Google's): here a failed call's
 * status, Retry-After and errno are seen, of which Pi keeps a sentence at best.
 * @type {typeof fetch}
 */
globalThis.fetch = async function watchedFetch(input, init) {
	const call = currentCall.getStore();
	if (!call) return plainFetch(input, init);
	try {
		const response = await plainFetch(input, init);
		call.status = response.status;
		call.retryAfterMs = retryAfterMs(response.headers.get("retry-after"), Date.now());
		return response;
	} catch (error) {
		if (!init?.signal?.aborted) call.networkError = networkErrorName(error);
		throw error;
	}
};

/**
 * What an agent calls its model with: own key, own headers, own trace, no retries, and a record of what happened.
 * @param {{run: string, endpoint: Record<string, any>, traceparent?: string | null, tracestate?: string | null, baggage?: string | null}} run
 */
export function createStreamFunction(run) {
	const calls = { last: new CallRecord() };
	let count = 0;
	const stream = (model, context, options) => {
		const call = new CallRecord();
		calls.last = call;
		count += 1;
		const traceparent = traceparentOf(run.traceparent, chatSpanId(run.run, count));
		const callOptions = {
			...options,
			// Some clients refuse to start without a key; an endpoint of the worker's own may need none.
			apiKey: run.endpoint.api_key ?? "none",
			headers: {
				...run.endpoint.headers,
				...(traceparent ? { traceparent } : {}),
				...(traceparent && run.tracestate ? { tracestate: run.tracestate } : {}),
				...(traceparent && run.baggage ? { baggage: run.baggage } : {}),
			},
			maxRetries: 0,
			env: {},
		};
		return currentCall.run(call, () => getApiProvider(model.api).streamSimple(model, context, callOptions));
	};
	return { stream, calls };
}

/** Sums what is known; one call without a known cost makes the run's cost unknown. */
export class Bill {
	/** @param {string | undefined} source */
	constructor(source) {
		this.source = source;
		this.total = 0;
		this.counted = false;
	}

	/** @param {any} usage Pi's */
	add(usage) {
		if (!usage?.totalTokens && !usage?.input && !usage?.output) return;
		this.counted = true;
		this.total += usage.cost?.total ?? 0;
	}

	/** @returns {{amount: string, currency: string, source: string} | undefined} */
	toLine() {
		if (!this.source || !this.counted) return undefined;
		const amount = this.total.toFixed(10).replace(/\.?0+$/, "");
		return { amount, currency: "USD", source: this.source };
	}
}

/** @param {any} usage Pi's, whose `input` leaves cached tokens out @param {any} message */
export function usageOf(usage, message) {
	if (!usage || (!usage.totalTokens && !usage.input && !usage.output && !usage.cacheRead)) return undefined;
	return {
		provider: message.provider,
		model: message.responseModel ?? message.model,
		input_tokens: usage.input + usage.cacheRead + usage.cacheWrite,
		output_tokens: usage.output,
		cached_input_tokens: usage.cacheRead,
		cache_write_tokens: usage.cacheWrite,
		...(usage.reasoning === undefined ? {} : { reasoning_tokens: usage.reasoning }),
	};
}
