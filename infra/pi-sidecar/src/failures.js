/** What went wrong, in the words of the project's table of error codes. */

/** A failure of a run, with one of our codes. */
export class Failure extends Error {
	/** @param {string} code @param {string} detail @param {{retriable?: boolean, retryAfterMs?: number, status?: number}=} more */
	constructor(code, detail, more = {}) {
		super(detail);
		this.code = code;
		this.retriable = more.retriable ?? false;
		this.retryAfterMs = more.retryAfterMs;
		this.status = more.status;
	}

	/** @param {(text: string) => string} redact */
	toLine(redact) {
		return {
			code: this.code,
			detail: redact(this.message).replace(/\s+/g, " ").slice(0, 500),
			retriable: this.retriable,
			...(this.retryAfterMs === undefined ? {} : { retry_after_ms: this.retryAfterMs }),
			...(this.status === undefined ? {} : { status: this.status }),
		};
	}
}

const CONTEXT = /too long|too many tokens|context[ _]?(length|window)|maximum context|exceeds the (available )?context|request_too_large/i;
const QUOTA = /insufficient[_ ]quota|billing|out of budget|quota exceeded|usage limit reached/i;
const CUT = /^(terminated|premature close|other side closed|socket hang up)$/i;
const NETWORK = /ECONNREFUSED|ECONNRESET|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EPIPE|EHOSTUNREACH|ENETUNREACH|UND_ERR|CERT/;

/** @param {string | null | undefined} value seconds or an HTTP date @param {number} now @returns {number | undefined} */
export function retryAfterMs(value, now) {
	if (!value) return undefined;
	const seconds = Number(value);
	if (Number.isFinite(seconds)) return Math.max(0, Math.round(seconds * 1000));
	const date = Date.parse(value);
	return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** What one model call was seen to do on the wire; Pi only keeps a sentence, too little to tell retriable from fatal. */
export class CallRecord {
	constructor() {
		/** @type {number | undefined} */
		this.status = undefined;
		/** @type {number | undefined} */
		this.retryAfterMs = undefined;
		/** @type {string | undefined} */
		this.networkError = undefined;
	}
}

/**
 * @param {CallRecord} call the last model call of the run
 * @param {string} message Pi's sentence
 * @returns {Failure}
 */
export function providerFailure(call, message) {
	const { status } = call;
	const more = { status, retryAfterMs: call.retryAfterMs };
	if (call.networkError || (status === undefined && NETWORK.test(message))) {
		return new Failure("provider_error", `cannot reach the provider: ${call.networkError ?? message}`, { retriable: true });
	}
	if (status === 401 || status === 403) return new Failure("provider_auth", message, more);
	if (status === 404) return new Failure("model_unavailable", message, more);
	if (status === 429) return new Failure("rate_limited", message, { ...more, retriable: !QUOTA.test(message) });
	if (status !== undefined && status >= 400) {
		const context = status < 500 && CONTEXT.test(message);
		const detail = context ? `the conversation does not fit the model: ${message}` : message;
		return new Failure("provider_error", detail, { ...more, retriable: status >= 500 || status === 408 || status === 409 });
	}
	if (/no api key/i.test(message)) return new Failure("provider_auth", message);
	// The answer had begun (status 200) or never came: a stream that was cut, or an error sent inside it.
	if (CUT.test(message)) return new Failure("provider_error", `the provider's answer broke off: ${message}`, { retriable: true });
	return new Failure("provider_error", message, { retriable: !CONTEXT.test(message) });
}
