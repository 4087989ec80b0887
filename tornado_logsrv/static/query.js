// The text of a query: its terms, and what may be meant by one that finds nothing.

import { plain } from './api.js';

/** `name:value` as a query has it. */
export const term = (name, value) => `${name.replace(/[^\w.@-]/gu, '\\$&').replace(/^-/, '\\-')}:${quoted(value)}`;

function quoted(value) {
	const text = plain(value);
	const bare = typeof value !== 'string' || (/^[\w.@][\w.@-]*$/u.test(text) && !/^(AND|OR|NOT)$/.test(text));
	return bare && !text.startsWith('-') ? text : `"${text.replace(/["\\]/g, '\\$&')}"`;
}

const TOKEN = /"(?:[^"\\]|\\.)*"?|\\.|\s+|[()[\]{}]|[^\s"\\()[\]{}]+/gsu;

/** The terms that all have to hold; null where an OR stands between them. */
function terms(q) {
	const found = [];
	let depth = 0;
	let open = '';
	for (const [token] of q.matchAll(TOKEN)) {
		if (/^[([{]$/.test(token)) depth++;
		if (/^[)\]}]$/.test(token)) depth--;
		if (depth === 0 && /^\s/.test(token)) {
			if (open && !/(:|^NOT)$/.test(open)) {
				found.push(open);
				open = '';
			} else if (open === 'NOT') open += ' ';
		} else open += token;
	}
	if (open.trim()) found.push(open);
	if (found.some((each) => each === 'OR' || each === '||')) return null;
	return found.filter((each) => each !== 'AND' && each !== '&&');
}

const bare = (each) => each.replace(/^(NOT |-|!)/, '');

/** How `one` stands in `q`: 'kept', 'dropped', or nothing. */
export function standing(q, one) {
	const found = (terms(q) ?? []).find((each) => bare(each) === bare(one));
	return found && (found === bare(one) ? 'kept' : 'dropped');
}

/** `q` with the term `one`; without it, where it stood so before. What says the opposite makes room. */
export function toggled(q, one) {
	const all = terms(q);
	if (all === null) return `(${q.trim()}) AND ${one}`;
	const others = all.filter((each) => bare(each) !== bare(one));
	const stood = all.some((each) => bare(each) === bare(one) && (each === bare(one)) === (one === bare(one)));
	return (stood ? others : [...others, one]).join(' AND ');
}

/** The excluded values of a field, as terms. */
export const dropped = (q, name) =>
	(terms(q) ?? []).filter((each) => bare(each) !== each).map(bare).filter((each) => each.startsWith(`${name}:`));

const THEMSELVES = /^(_|data|message$|source$|timestamp$)/;

/** Queries that may be meant by one that finds nothing; `names` are the fields that there are. */
export function meant(q, names) {
	const spelled = q
		.replace(/(^|\s)([\w.]+)\s*==?\s*("[^"]*"|[\w.*-]+)/g, '$1$2:$3')
		.replace(/(^|\s)([\w.]+)\s*([<>]=?)\s*([\d.]+)/g, '$1$2:$3$4')
		.replace(/\s(and|or|not)\s/g, (operator) => operator.toUpperCase());
	const named = q.replace(/(^|[\s(-])([A-Za-z_][\w.]*):/g, (all, mark, name) => {
		const near = names.has(name) || THEMSELVES.test(name) ? '' : nearest(name, names);
		return near ? `${mark}${near}:` : all;
	});
	return [...new Set([spelled, named])].filter((each) => each !== q);
}

function nearest(name, names) {
	const found = [...names.keys()].map((other) => [distance(name.toLowerCase(), other.toLowerCase()), other]);
	const [letters, near] = found.sort(([a], [b]) => a - b)[0] ?? [Infinity];
	return letters <= Math.max(1, name.length / 3) ? near : '';
}

/** How many letters are to be changed to make `b` of `a`. */
function distance(a, b) {
	let row = Array.from({ length: b.length + 1 }, (_, i) => i);
	for (let i = 1; i <= a.length; i++) {
		const next = [i];
		for (let j = 1; j <= b.length; j++) {
			next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] !== b[j - 1]));
		}
		row = next;
	}
	return row[b.length];
}
