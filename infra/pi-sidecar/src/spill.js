import { AsyncLocalStorage } from "node:async_hooks";
import { once } from "node:events";
import fs from "node:fs";
import { copyFile, rm } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { basename, join } from "node:path";

const NO_ROOM = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);
const NO_FILES = new Set(["EMFILE", "ENFILE"]);

/** @param {any} error */
const isShortage = (error) => typeof error?.syscall === "string" && (NO_ROOM.has(error.code) || NO_FILES.has(error.code));

/** What a model and a user are told: not where the worker keeps its files. @param {any} error @returns {any} */
function told(error) {
	if (!isShortage(error)) return error;
	return new Error(NO_ROOM.has(error.code) ? `no space left in the worker's temporary directory (${error.code})` : `the worker has too many files open (${error.code})`);
}

/** The shell call in whose name something happens. */
const current = new AsyncLocalStorage();
/** @type {Set<Spill>} */
const underway = new Set();

const plainCreateWriteStream = fs.createWriteStream;

/**
 * Pi tells the path of a call's file only now and then, and on a full disk often too late: the file stayed, and so did
 * the full disk. The one stream that is made in a call's name is that file.
 */
fs.createWriteStream = function watchedCreateWriteStream(path, options) {
	const stream = plainCreateWriteStream(path, options);
	current.getStore()?.own(stream);
	return stream;
};
syncBuiltinESMExports();

/**
 * The file in the system's temporary directory to which Pi streams the long output of one shell call.
 *
 * Pi listens to no error of that stream: on a full disk one chatty command ended the process that all runs share. Now
 * `uncaughtException` hands such an error to `blame`, and the one call fails. Pi would wait for the broken stream for ever.
 */
export class Spill {
	/** @param {string} workdir of the run, a real path */
	constructor(workdir) {
		this.workdir = workdir;
		/** @type {string | undefined} from Pi itself: a path in the output may be anybody's, and `bring` removes it */
		this.path = undefined;
		/** @type {fs.WriteStream | undefined} */
		this.stream = undefined;
		this.fail = (_error) => {};
	}

	/**
	 * Performs the call; when its file cannot be written, kills its processes, removes the file and throws.
	 * @template T
	 * @param {(signal: AbortSignal, onUpdate: (update: any) => void) => Promise<T>} perform
	 * @param {AbortSignal=} signal @param {((update: any) => void)=} onUpdate
	 * @returns {Promise<T>}
	 */
	async watch(perform, signal, onUpdate) {
		const own = new AbortController();
		const failed = new Promise((_, reject) => {
			this.fail = reject;
		});
		const update = (partial) => {
			this.path = partial.details?.fullOutputPath ?? this.path;
			if (underway.has(this)) onUpdate?.(partial);
		};
		underway.add(this);
		try {
			const ended = current.run(this, () => perform(signal ? AbortSignal.any([signal, own.signal]) : own.signal, update));
			return await Promise.race([ended, failed]);
		} catch (error) {
			if (isShortage(error)) {
				underway.delete(this);
				own.abort();
				// What fills the disk is this file, more often than not.
				await this.discard();
			}
			throw told(error);
		} finally {
			underway.delete(this);
		}
	}

	/** @param {fs.WriteStream} stream which writes the file */
	own(stream) {
		this.stream = stream;
		this.path = String(stream.path);
	}

	/** Removes the file, wherever the call stands. Closed first: one that is still being opened would come back. */
	async discard() {
		const { stream, path } = this;
		if (stream && !stream.closed) {
			const closed = once(stream, "close").catch(() => {});
			stream.destroy();
			await closed;
		}
		if (path) await rm(path, { force: true });
	}

	/** Moves the file to where the run can read it. @param {string} text names it @returns {Promise<string>} names the new one */
	async bring(text) {
		const { path } = this;
		if (!path || !text.includes(path) || path.startsWith(this.workdir)) return text;
		const own = join(this.workdir, basename(path));
		try {
			await copyFile(path, own);
		} catch (error) {
			await rm(own, { force: true });
			throw told(error);
		} finally {
			await rm(path, { force: true });
		}
		return text.replace(path, own);
	}
}

/**
 * @param {unknown} error an uncaught one
 * @returns {boolean} whether it was the file of a shell call, which has failed now, so that the process may go on
 */
export function blame(error) {
	if (!isShortage(error)) return false;
	const call = current.getStore();
	const blamed = call ? [call] : [...underway];
	for (const one of blamed) one.fail(error);
	return blamed.length > 0;
}
