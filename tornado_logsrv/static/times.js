// Times as people read and write them. The zone is the reader's, or UTC.

import { state } from './state.js';

const DAY = 86_400_000;

/** Milliseconds from the zone that is shown to UTC. */
const offset = (ms) => (state().utc ? 0 : new Date(ms).getTimezoneOffset() * 60_000);

/** 2026-11-25 12:03:04.117 in the zone that is shown. */
export const local = (ms) => new Date(ms - offset(ms)).toISOString().replace('T', ' ').slice(0, -1);

export const dayOf = (ms) => local(ms).slice(0, 10);

/** 12:03:04.117, with the month and day before it where that is not plain. */
export const clock = (ms, withDay) => local(ms).slice(withDay ? 5 : 11);

/** A moment, no finer than it needs to be for a span of `spanMs`. */
export function brief(ms, spanMs) {
	if (spanMs > 40 * DAY) return dayOf(ms);
	if (spanMs > 1.5 * DAY) return local(ms).slice(5, 16);
	return local(ms).slice(11, spanMs > 600_000 ? 16 : spanMs > 5000 ? 19 : 23);
}

/** All that is known of a moment, in both zones. */
export function full(ms, nanoseconds) {
	const finer = nanoseconds ? `\n${nanoseconds} ns since 1970` : '';
	return `${local(ms)} ${zone(ms)}\n${new Date(ms).toISOString()}${finer}`;
}

/** What the zone is called that is shown: UTC+1, or UTC+5:30. */
export function zone(ms = Date.now()) {
	const minutes = Math.abs(offset(ms)) / 60_000;
	if (!minutes) return 'UTC';
	return `UTC${offset(ms) > 0 ? '−' : '+'}${Math.floor(minutes / 60)}${minutes % 60 ? `:${minutes % 60}` : ''}`;
}

/** The name of the reader's own zone. */
export const zoneName = Intl.DateTimeFormat().resolvedOptions().timeZone || 'local time';

/** What somebody wrote, as the server takes it: a time without a zone is one in the zone that is shown. */
export function written(text) {
	const found = /^(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d(?::\d\d(?:\.\d+)?)?))?$/.exec(text.trim());
	const moment = found && new Date(`${found[1]}T${found[2] ?? '00:00'}${state().utc ? 'Z' : ''}`);
	return moment && !Number.isNaN(Number(moment)) ? moment.toISOString() : text.trim();
}

const UNITS = { s: 'second', m: 'minute', h: 'hour', d: 'day', w: 'week', M: 'month', y: 'year' };

/** What a range is called: "Last 15 minutes", or its two ends. */
export function rangeName(from, to) {
	if (!from && !to) return 'All time';
	if (from === 'now/d' && !to) return 'Today';
	const [, n, unit] = (!to && /^now-(\d+)([smhdwMy])$/.exec(from)) || [];
	if (unit) return n === '1' ? `Last ${UNITS[unit]}` : `Last ${n} ${UNITS[unit]}s`;
	const name = (text, day) => {
		const ms = Date.parse(text);
		return Number.isNaN(ms) ? text : local(ms).replace(/(:00)?\.000$/, '').replace(`${day} `, '');
	};
	const today = dayOf(Date.now());
	if (!from) return `Until ${name(to, today)}`;
	if (!to) return `Since ${name(from, today)}`;
	return `${name(from, today)} – ${name(to, Number.isNaN(Date.parse(from)) ? today : dayOf(Date.parse(from)))}`;
}

const SECONDS = { year: 31_557_600, month: 2_629_800, day: 86_400, hour: 3600, minute: 60, second: 1 };
const relative = new Intl.RelativeTimeFormat('en');

/** "3 days ago", or "in 3 days". */
export function fromNow(ms) {
	const seconds = (ms - Date.now()) / 1000;
	const [unit, size] = Object.entries(SECONDS).find(([, size]) => Math.abs(seconds) >= size) ?? ['second', 1];
	return relative.format(Math.round(seconds / size), unit);
}
