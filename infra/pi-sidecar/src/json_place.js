/** Where a text stops being JSON: the parser's own message may quote the text, and the text may hold a key. */

const SPACE = /[ \t\n\r]*/y;
const WORD = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;

/** @param {RegExp} pattern a sticky one @returns {number} where it ends, or -1 if it does not stand here */
function after(pattern, text, at) {
	pattern.lastIndex = at;
	return pattern.test(text) ? pattern.lastIndex : -1;
}

/** @returns {{at: number, ok: boolean}} behind the string that begins here, or where it is none */
function string(text, at) {
	if (text[at] !== '"') return { at, ok: false };
	for (at += 1; at < text.length; ) {
		if (text[at] === '"') return { at: at + 1, ok: true };
		if (text[at] < " ") break;
		const end = text[at] === "\\" ? after(ESCAPE, text, at) : at + 1;
		if (end === -1) break;
		at = end;
	}
	return { at, ok: false };
}

/** @param {string} text which JSON.parse has refused @returns {{line: number, column: number}} from 1, in characters */
export function placeOf(text) {
	const at = offsetOf(text);
	const before = text.slice(0, at);
	return { line: before.split("\n").length, column: at - before.lastIndexOf("\n") };
}

/** @param {string} text @returns {number} */
function offsetOf(text) {
	const closers = [];
	let at = 0;
	let wants = "value";
	for (;;) {
		at = after(SPACE, text, at);
		const sign = text[at];
		const closer = closers.at(-1);
		if (wants === "more" && !closer) return at;
		if (sign !== undefined && sign === closer && (wants === "more" || wants === "first")) {
			closers.pop();
			at += 1;
			wants = "more";
		} else if (wants === "more") {
			if (sign !== ",") return at;
			at += 1;
			wants = closer === "}" ? "key" : "value";
		} else if (closer === "}" && wants !== "value") {
			const key = string(text, at);
			if (!key.ok) return key.at;
			at = after(SPACE, text, key.at);
			if (text[at] !== ":") return at;
			at += 1;
			wants = "value";
		} else if (sign === "{" || sign === "[") {
			closers.push(sign === "{" ? "}" : "]");
			at += 1;
			wants = "first";
		} else if (sign === '"') {
			const value = string(text, at);
			if (!value.ok) return value.at;
			at = value.at;
			wants = "more";
		} else {
			const end = after(WORD, text, at);
			if (end === -1) return at;
			at = end;
			wants = "more";
		}
	}
}
