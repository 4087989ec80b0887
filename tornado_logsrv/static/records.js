// What of a record is read first: its level, who wrote it, its text, and the rest.

import { isObject, plain } from './api.js';

const TEXTS = ['message', 'msg', 'log', 'event', 'error'];
const SERVICES = [
	['service'], ['service.name'], ['service', 'name'], ['service_name'], ['app'], ['application'],
	['resource', 'attributes', 'service.name'],
	['labels', 'service_name'], ['labels', 'service'], ['labels', 'app'], ['labels', 'job'],
	['kubernetes', 'container_name'], ['container_name'], ['logger'], ['logger_name'], ['program'], ['sourcetype'],
	['host'], ['hostname'],
];
const THEMSELVES = new Set(['_id', 'message', 'timestamp', 'source', 'data']);
/** What stands elsewhere in the line, or as well. */
const NO_REST = [
	'level', 'level_number', 'severity_text', '@timestamp', 'time_unix_nano', 'observed_time_unix_nano', '_index',
];
const ANSI = /\x1b\[[0-9;]*[A-Za-z]/g;
const LONGEST = 600;

/** What a row shows of a record. */
export function lineOf(record) {
	const data = isObject(record.data) ? record.data : {};
	const [text, textKey] = textOf(record, data);
	const service = SERVICES.map((path) => [path, at(data, path)]).find(([, value]) => typeof value === 'string' && value);
	const level = data.level ?? '';
	const skip = new Set([...NO_REST, textKey, service?.[0][0]]);
	return {
		level: isObject(level) ? '' : plain(level),
		service: service?.[1] ?? '',
		text: oneLine(text),
		rest: restOf(record.data, skip),
	};
}

function textOf(record, data) {
	// The fixed text of records that came without one.
	if (record.message !== 'Job processed' || record.source) return [String(record.message ?? '')];
	if (typeof record.data === 'string') return [record.data];
	const key = TEXTS.find((name) => typeof data[name] === 'string');
	return key ? [data[key], key] : [''];
}

const at = (value, path) => path.reduce((inner, key) => (isObject(inner) ? inner[key] : undefined), value);

function restOf(data, skip) {
	if (!isObject(data)) return data === undefined || typeof data === 'string' ? '' : plain(data);
	const found = [];
	let length = 0;
	for (const [name, value] of fieldsOf({ data })) {
		if (skip.has(name.replace(/^data\./, '').split('.')[0])) continue;
		const pair = `${name}=${oneLine(plain(value))}`;
		found.push(pair);
		length += pair.length;
		if (length > LONGEST) break;
	}
	return found.join('  ').slice(0, LONGEST);
}

const oneLine = (text) =>
	text.slice(0, 2 * LONGEST).replace(ANSI, '').replace(/\s*[\r\n]+/g, ' ↵ ').slice(0, LONGEST);

/** Every field of a record, by the name that a query has for it, with its value; of an array, each element. */
export function* fieldsOf(record) {
	for (const name of ['message', 'source']) if (record[name] !== undefined) yield [name, record[name]];
	const { data } = record;
	if (!isObject(data) || Array.isArray(data)) {
		if (data !== undefined) yield* inside('data', data, 0);
		return;
	}
	for (const [key, value] of Object.entries(data)) {
		yield* inside(THEMSELVES.has(key) || key.startsWith('data.') ? `data.${key}` : key, value, 1);
	}
}

function* inside(name, value, depth) {
	if (!isObject(value)) yield [name, value];
	else if (depth >= 6 || !Object.keys(value).length) yield [name, JSON.stringify(value), true];
	else if (Array.isArray(value)) for (const each of value) yield* inside(name, each, depth + 1);
	else for (const [key, each] of Object.entries(value)) yield* inside(`${name}.${key}`, each, depth + 1);
}
