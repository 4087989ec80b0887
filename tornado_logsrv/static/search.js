// One search: the newest lines it selects, or those around a time.

import { page } from './api.js';
import { rowOf } from './row.js';

const FIRST = 200;
const MORE = 1000;
const AROUND = 50;

/** What the state asks for. */
export const askedBy = ({ q, from, to }) => ({ q, from, to });

/** The first lines of a search, and what gives those behind them. */
export async function newest(asked, signal) {
	return rowsOf(await page('logs', { params: { ...asked, limit: FIRST }, signal }), signal);
}

/** The lines around the time `at`, whatever they are. */
export async function around(at, signal) {
	const [later, earlier] = await Promise.all([
		page('logs', { params: { from: at, order: 'asc', limit: AROUND }, signal }),
		page('logs', { params: { to: at, limit: FIRST }, signal }),
	]);
	const { rows, next } = rowsOf(earlier, signal);
	return { rows: [...later.records.reverse().map((record) => rowOf(record)), ...rows], next };
}

function rowsOf({ records, next }, signal) {
	const more = next && (async () => rowsOf(await page('logs', { params: { ...next, limit: MORE }, signal }), signal));
	return { rows: records.map((record) => rowOf(record)), next: more };
}
