// Requests to the server, and what goes wrong with them.

/** An answer that is an error (RFC 9457), or none at all (status 0). */
export class Problem extends Error {
	constructor(status, members = {}) {
		super(members.detail || members.title || `The server answered ${status}`);
		this.status = status;
		this.parameter = members.parameter;
		this.column = members.column;
		this.nearest = members.nearest;
	}
}

let denied = () => {};
/** What is to be done when a token is needed. */
export const whenDenied = (listener) => (denied = listener);

/** The response to a request of this page; raises Problem, or AbortError when `signal` says so. */
export async function request(path, { params = {}, headers = {}, ...more } = {}) {
	const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== '' && value !== undefined));
	const asked = { headers: { 'X-Logsrv-Page': '1', ...headers }, ...more };
	let response;
	try {
		response = await fetch(query.size ? `${path}?${query}` : path, asked);
	} catch (error) {
		if (error.name === 'AbortError') throw error;
		throw new Problem(0, { detail: 'The server does not answer' });
	}
	if (response.ok) return response;
	if (response.status === 401) denied();
	throw new Problem(response.status, await response.json().catch(() => ({})));
}

/** The JSON of an answer; integers that a double cannot hold keep all their digits. */
export async function json(path, options) {
	return parse(await (await request(path, options)).text());
}

/** A page of records: what is there, and the parameters of the next page, if there is one. */
export async function page(path, options) {
	const response = await request(path, options);
	const next = /<[^>]*\?([^>]*)>; *rel="?next/.exec(response.headers.get('Link') ?? '');
	return { records: parse(await response.text()), next: next && Object.fromEntries(new URLSearchParams(next[1])) };
}

const exact = (_, value, { source } = {}) =>
	typeof value === 'number' && source && !Number.isSafeInteger(value) && /^-?\d+$/.test(source) && JSON.rawJSON
		? JSON.rawJSON(source)
		: value;

export const parse = (text) => (/\d{16}/.test(text) ? JSON.parse(text, exact) : JSON.parse(text));

/** A value that is no array and no object, as text. */
export const plain = (value) => (JSON.isRawJSON?.(value) ? value.rawJSON : String(value));
export const isObject = (value) => typeof value === 'object' && value !== null && !JSON.isRawJSON?.(value);
