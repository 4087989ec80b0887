// One line of the river.

import { plain } from './api.js';
import { h } from './dom.js';
import { kindOf, wordOf } from './levels.js';
import { lineOf } from './records.js';
import { clock, full, local } from './times.js';

const MARKS = {
	queued: ['◌', 'queued: taken, and not stored yet'],
	stored: ['✓', 'stored'],
	quarantined: ['⊘', 'in quarantine'],
};
let gaps = 0;

/** A row for a record; `mark` says what is known of its way, if it was seen to arrive. */
export const rowOf = (record, mark = '') => ({ id: record._id, ms: Date.parse(record.timestamp) || 0, record, mark });

/** A row that says that something is not shown. */
export const gapOf = (ms, text) => ({ id: `gap-${++gaps}`, ms, gap: text });

/** An element that can show any row, and shows none yet. Its texts are changed in place: it is laid out, not made, anew. */
export function blank() {
	const time = h('span', { class: 'time', role: 'button', tabindex: '-1', 'aria-expanded': 'false' }, '');
	const others = ['mark', 'level', 'service'].map((name) => h('span', { class: name }, ''));
	const parts = [time, ...others, h('bdi', { class: 'text' }, ''), h('bdi', { class: 'rest' }, '')];
	return Object.assign(h('div', { role: 'listitem' }, ...parts), { parts });
}

/** Have the element of `row` show it; `withDay`: its time needs the day. */
export function fill({ element, gap, ms, record, ...row }, withDay) {
	const [time, , level, service, text, rest] = element.parts;
	const line = gap ? { level: '', service: '', text: gap, rest: '' } : lineOf(record);
	const kind = kindOf(line.level);
	time.hidden = Boolean(gap);
	if (time.title) time.title = service.title = '';
	write(time, `${clock(ms, withDay)} `);
	write(level, gap ? '' : column(wordOf(line.level)));
	write(service, line.service);
	write(text, line.text);
	write(rest, line.rest);
	level.className = `level ${kind}`;
	element.className = `row ${gap ? 'gap' : kind}${line.text ? '' : ' bare'}`;
	mark({ element, ...row });
}

function write({ firstChild }, text) {
	if (firstChild.data !== text) firstChild.data = text;
}

/** A level, as wide as its column. */
const column = (word) => (word.length > 7 ? `${word.slice(0, 6)}… ` : word.padEnd(8));

/** Show the mark of a row that may be on the page. */
export function mark({ element, mark: known, reason }) {
	const place = element?.parts[1];
	const [sign, meaning] = MARKS[known] ?? ['', ''];
	const title = reason ? `${meaning}: ${reason}` : meaning;
	if (!place || place.title === title) return;
	write(place, sign);
	place.role = sign ? 'img' : null;
	place.title = place.ariaLabel = title;
}

/** Have what a line has no room for shown beside the pointer: done for all lines, it would take long. */
export function explain({ element, ms, record }) {
	const [time, , , service] = element.parts;
	if (time.title || !record) return;
	const nanoseconds = record.data?.time_unix_nano;
	time.title = full(ms, nanoseconds && plain(nanoseconds));
	service.title = service.textContent;
}

/** Lines as one pastes them: without what is around them. */
export const lines = (rows) =>
	rows.filter((row) => row.record).map((row) => {
		const { level, service, text, rest } = lineOf(row.record);
		return [local(row.ms), wordOf(level), service, text, rest].filter(Boolean).join('  ');
	}).join('\n');

