import { constants } from "node:fs";
import { access, lstat, readFile, readdir, realpath, stat, writeFile, mkdir } from "node:fs/promises";
import { dirname, join, relative, resolve, sep } from "node:path";

/** Reading more would only be cut to 50 KB for the model, after a whole copy in the memory that all runs share. */
const MAX_READ_BYTES = 32 * 1024 * 1024;

/**
 * Keeps Pi's file tools inside the working directory.
 *
 * They run inside Node, outside any sandbox of the shell: without this, `read /etc/hostname` works. Every operation
 * resolves symbolic links first and refuses what lies outside. Only the shell tool can make such links, and it can
 * read outside by itself, so there is nothing to gain from swapping one between the check and the use.
 */
export class Guard {
	/** @param {string} workdir a real path */
	constructor(workdir) {
		this.workdir = workdir;
	}

	/** @param {string} path @returns {Promise<string>} the real path, of the nearest existing ancestor if it is new */
	async inside(path) {
		const wanted = resolve(this.workdir, path);
		const real = await this.#real(wanted);
		if (real !== this.workdir && !real.startsWith(this.workdir + sep)) {
			throw new Error(`Refused: ${path} is outside the working directory`);
		}
		return real;
	}

	/** @param {string} path @returns {Promise<string>} */
	async #real(path) {
		try {
			return await realpath(path);
		} catch (error) {
			if (error.code !== "ENOENT" && error.code !== "ENOTDIR") throw error;
		}
		// A dangling link has no real path, yet writing to it creates its target wherever that is.
		const link = await lstat(path).catch(() => undefined);
		if (link?.isSymbolicLink()) throw new Error(`Refused: ${path} is a dangling link`);
		return join(await this.#real(dirname(path)), path.slice(dirname(path).length).replace(/^[\\/]+/, ""));
	}

	/** A leading `~` is the working directory, as it is for the shell. @param {unknown} path */
	expand(path) {
		return typeof path === "string" ? path.replace(/^@?~(?=\/|$)/, this.workdir) : path;
	}

	/** @param {string} path */
	relative(path) {
		return relative(this.workdir, path) || ".";
	}

	async readFile(path) {
		const real = await this.inside(path);
		const info = await stat(real);
		// A FIFO would occupy one of the four file threads that all runs share, for ever.
		if (!info.isFile()) throw new Error(`Not a regular file: ${path}`);
		if (info.size > MAX_READ_BYTES) throw new Error(`File of ${info.size} bytes is larger than ${MAX_READ_BYTES}`);
		return readFile(real);
	}

	async writeFile(path, content) {
		const real = await this.inside(path);
		const info = await stat(real).catch(() => undefined);
		if (info && !info.isFile()) throw new Error(`Not a regular file: ${path}`);
		await writeFile(real, content, "utf-8");
	}

	async access(path, mode = constants.R_OK) {
		await access(await this.inside(path), mode);
	}

	async mkdir(path) {
		await mkdir(await this.inside(path), { recursive: true });
	}

	async exists(path) {
		return this.inside(path).then((real) => access(real)).then(() => true, () => false);
	}

	async stat(path) {
		return stat(await this.inside(path));
	}

	async readdir(path) {
		return readdir(await this.inside(path));
	}
}
