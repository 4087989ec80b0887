// Times as people read and write them. The zone is the reader's, or UTC.

import { state } from './state.js';

const two = (n) => String(n).padStart(2, '0');
const three = (n) => String(n).padStart(3, '0');

/** The parts of a moment in the zone that is shown. */
function parts(ms) {
	const date = new Date(ms);
	const utc = state().utc;
	const of = (name) => date[`get${utc ? 'UTC' : ''}${name}`]();
	return {
		day: `${of('FullYear')}-${two(of('Month') + 1)}-${two(of('Date'))}`,
		time: `${two(of('Hours'))}:${two(of('Minutes'))}`,
		seconds: `:${two(of('Seconds'))}`,
		fraction: `.${three(of('Milliseconds'))}`,
	};
}

/** 12:03:04.117, with the month and day before it where that is not plain. */
export function clock(ms, withDay) {
	const { day, time, seconds, fraction } = parts(ms);
	return (withDay ? `${day.slice(5)} ` : '') + time + seconds + fraction;
}

export const dayOf = (ms) => parts(ms).day;

/** A moment, no finer than it needs to be for a span of `spanMs`. */
export function brief(ms, spanMs) {
	const { day, time, seconds, fraction } = parts(ms);
	if (spanMs > 40 * 86_400_000) return day;
	if (spanMs > 36 * 3_600_000) return `${day.slice(5)} ${time}`;
	return time + (spanMs < 600_000 ? seconds : '') + (spanMs < 5000 ? fraction : '');
}

/** All that is known of a moment, in both zones. */
export function full(ms, nanoseconds) {
	const utc = new Date(ms).toISOString();
	const finer = nanoseconds ? `\n${nanoseconds} ns since 1970` : '';
	return `${local(ms)} ${zone(ms)}\n${utc}${finer}`;
}

/** 2026-11-25 12:03:04.117 in the zone that is shown. */
export function local(ms) {
	const { day, time, seconds, fraction } = parts(ms);
	return `${day} ${time}${seconds}${fraction}`;
}

/** What the zone is called that is shown. */
export function zone(ms = Date.now()) {
	if (state().utc) return 'UTC';
	const minutes = -new Date(ms).getTimezoneOffset();
	if (!minutes) return 'UTC';
	const offset = `${Math.floor(Math.abs(minutes) / 60)}${minutes % 60 ? `:${two(Math.abs(minutes) % 60)}` : ''}`;
	return `UTC${minutes < 0 ? '−' : '+'}${offset}`;
}

/** The name of the reader's own zone. */
export const zoneName = Intl.DateTimeFormat().resolvedOptions().timeZone || 'local time';

/** What somebody wrote, as the server takes it: a time without a zone is one in the zone that is shown. */
export function written(text) {
	const found = /^(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d)(:\d\d(?:\.\d+)?)?)?$/.exec(text.trim());
	if (!found) return text.trim();
	const moment = new Date(`${found[1]}T${found[2] ?? '00:00'}${found[3] ?? ''}${state().utc ? 'Z' : ''}`);
	return Number.isNaN(moment.getTime()) ? text.trim() : moment.toISOString();
}

const UNITS = { s: 'second', m: 'minute', h: 'hour', d: 'day', w: 'week', M: 'month', y: 'year' };

/** What a range is called: "Last 15 minutes", or its two ends. */
export function rangeName(from, to) {
	if (!from && !to) return 'All time';
	const last = !to && /^now-(\d+)([smhdwMy])$/.exec(from);
	if (last) return `Last ${last[1] === '1' ? '' : `${last[1]} `}${UNITS[last[2]]}${last[1] === '1' ? '' : 's'}`;
	if (from === 'now/d' && !to) return 'Today';
	const [low, high] = [from, to].map((text) => (text ? Date.parse(text) : NaN));
	const today = dayOf(Date.now());
	const name = (text, ms, other) =>
		Number.isNaN(ms) ? text : local(ms).replace(/\.000$/, '').replace(/:00$/, '').replace(`${other} `, '');
	if (!from) return `Until ${name(to, high, today)}`;
	const first = name(from, low, today);
	return to ? `${first} – ${name(to, high, Number.isNaN(low) ? today : dayOf(low))}` : `Since ${first}`;
}

/** "3 days", for how long something was or will be. */
export function lasting(ms) {
	const seconds = Math.abs(ms) / 1000;
	const [size, unit] = [[31_557_600, 'year'], [2_629_800, 'month'], [86400, 'day'], [3600, 'hour'], [60, 'minute'], [1, 'second']].find(
		([size]) => seconds >= size,
	) ?? [1, 'second'];
	const n = Math.round(seconds / size);
	return `${n} ${unit}${n === 1 ? '' : 's'}`;
}
