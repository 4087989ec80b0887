// One line of the river.

import { plain } from './api.js';
import { button, h } from './dom.js';
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

/** The element of a row; `withDay`: its time needs the day. */
export function elementOf(row, withDay) {
	if (row.gap) return h('div', { class: 'row gap', role: 'listitem' }, h('div', { class: 'line' }, row.gap));
	const { level, service, text, rest } = lineOf(row.record);
	const nanoseconds = row.record.data?.time_unix_nano;
	const time = button(clock(row.ms, withDay), null, {
		class: 'time', tabindex: '-1', 'aria-expanded': 'false', title: full(row.ms, nanoseconds && plain(nanoseconds)),
	});
	const element = h('div', { class: `row ${kindOf(level)}`, role: 'listitem' },
		h('div', { class: 'line' }, time, h('span', { class: 'mark' }), h('span', { class: 'level' }, wordOf(level)),
			h('span', { class: 'service', title: service }, service),
			h('span', { class: text ? 'text' : 'text bare' },
				h('bdi', {}, text), text && rest && '  ', rest && h('bdi', { class: 'rest' }, rest))));
	row.element = element;
	mark(row);
	return element;
}

/** Show the mark of a row that may be on the page. */
export function mark(row) {
	const place = row.element?.querySelector('.mark');
	if (!place) return;
	const [sign, meaning] = MARKS[row.mark] ?? ['', ''];
	place.replaceChildren(h('span', { 'aria-hidden': 'true' }, sign), h('span', { class: 'sr' }, meaning));
	place.title = row.reason ? `${meaning}: ${row.reason}` : meaning;
}

/** Lines as one pastes them: without what is around them. */
export const lines = (rows) =>
	rows.filter((row) => row.record).map((row) => {
		const { level, service, text, rest } = lineOf(row.record);
		return [local(row.ms), wordOf(level), service, text, rest].filter(Boolean).join('  ');
	}).join('\n');

