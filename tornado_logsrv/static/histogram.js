// How many records, by time and level; drag over it to choose a range.

import { json } from './api.js';
import { $, button, count, h, plural, say, short } from './dom.js';
import { kindOf, ORDER, wordOf } from './levels.js';
import { dropped, standing, term, toggled } from './query.js';
import { go, state } from './state.js';
import { brief, local } from './times.js';
import { range } from './when.js';

const HEIGHT = 56;
const SVG = 'http://www.w3.org/2000/svg';

const chart = $('chart');
const plot = $('plot');
const picked = $('picked');
const readout = $('readout');
let shown = null;
let at = -1;
let anchor = -1;

/** The counts by level, the worst first. */
const levelsOf = (levels) => Object.entries(levels).sort(([a], [b]) => badness(a) - badness(b));
const badness = (level) => ORDER.indexOf(kindOf(level));

/** Count what is asked for, and show it, or why it is not counted. */
export async function count_(asked, signal) {
	try {
		shown = { ...(await counts(asked, signal)), asked };
	} catch (error) {
		uncounted(error.name === 'AbortError' ? '' : `Not counted: ${error.message}`);
		throw error;
	}
	draw();
}

/** Nothing is known of how many, which `text` says. */
export function uncounted(text) {
	shown = null;
	for (const place of [plot, readout, $('legend'), $('axis-from'), $('axis-to')]) place.replaceChildren();
	say($('total'), text);
}

async function counts(asked, signal) {
	let { from } = asked;
	if (!from) {
		const params = { to: asked.to, order: 'asc', limit: 1, fields: 'timestamp' };
		const [oldest] = await json('logs', { params, signal });
		from = oldest?.timestamp ?? '';
	}
	return json('logs/histogram', { params: { ...asked, from }, signal });
}

/** What is shown, or nothing. */
export const counted = () => shown;

/** How many records a search selects; 0 while nobody knows. */
export const totalOf = ({ q, from, to }) => {
	const { asked, total } = shown ?? {};
	return asked?.q === q && asked.from === from && asked.to === to ? total : 0;
};

export function draw() {
	if (!shown) return;
	const { buckets, levels, total, interval } = shown;
	const span = end() - begin();
	say($('total'), plural(total, 'record'));
	say($('axis-from'), brief(begin(), span));
	say($('axis-to'), brief(end(), span));
	plot.setAttribute('viewBox', `0 0 ${buckets.length} ${HEIGHT}`);
	const most = Math.max(1, ...buckets.map((bucket) => bucket.total));
	const paths = new Map(ORDER.map((kind) => [kind, '']));
	buckets.forEach((bucket, index) => {
		let y = HEIGHT;
		for (const [level, n] of levelsOf(bucket.levels)) {
			// However few, they are to be seen.
			const tall = Math.max(2, (n / most) * (HEIGHT - 4));
			y -= tall;
			paths.set(kindOf(level), `${paths.get(kindOf(level))}M${index + 0.06} ${y.toFixed(1)}h.88v${tall.toFixed(1)}h-.88z`);
		}
	});
	plot.replaceChildren(...[...paths].filter(([, d]) => d).map(([kind, d]) => {
		const path = document.createElementNS(SVG, 'path');
		path.setAttribute('class', kind);
		path.setAttribute('d', d);
		return path;
	}));
	chart.setAttribute('aria-valuemax', buckets.length - 1);
	legend(levels);
	read(-1);
	const said = `${plural(total, 'record')} in bars of ${interval}; arrow keys go from bar to bar`;
	chart.setAttribute('aria-valuetext', said);
}

const begin = () => Date.parse(shown.from);
const end = () => Date.parse(shown.to);
const startOf = (index) => Date.parse(shown.buckets[index].time);

function legend(levels) {
	const { q } = state();
	const toggle = (label, one, more) => button(label, () => go({ q: toggled(q, one), at: '' }), more);
	const shown = levelsOf(levels).map(([level, n]) => {
		const name = level ? wordOf(level) : 'no level';
		const own = level ? term('level', level) : 'NOT _exists_:level';
		const other = level ? `NOT ${own}` : '_exists_:level';
		return h('li', {},
			toggle([h('span', { class: `swatch ${kindOf(level)}` }), ` ${level ? name : 'none'} `, h('b', {}, short(n))], own, {
				'aria-pressed': String(standing(q, own) === 'kept'), title: `Only ${name}`,
				'aria-label': `Only ${level ? name : 'none'}: ${n}`,
			}),
			toggle('−', other, { class: 'not', 'aria-label': `Not ${name}`, title: `Not ${name}` }));
	});
	const here = new Set(Object.keys(levels).map((level) => term('level', level)));
	const gone = dropped(q, 'level').filter((one) => !here.has(one)).map((one) => {
		const again = { title: 'Show them again', 'aria-label': `Show ${one} again` };
		return h('li', {}, toggle(h('s', {}, one.slice('level:'.length)), `NOT ${one}`, again));
	});
	$('legend').replaceChildren(...shown, ...gone);
}

function read(index) {
	at = index;
	if (index < 0) return say(readout, `${shown.interval} a bar`);
	const bucket = shown.buckets[index];
	const of = levelsOf(bucket.levels).map(([level, n]) => `${count(n)} ${level ? wordOf(level) : 'without level'}`);
	const text = `${local(startOf(index)).slice(0, shown.interval_ms < 1000 ? 23 : 19)}  ${of.join(', ') || 'none'}`;
	say(readout, text);
	chart.setAttribute('aria-valuenow', index);
	chart.setAttribute('aria-valuetext', text);
}

const share = (event) => {
	const box = chart.getBoundingClientRect();
	return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
};
const bucketAt = (event) => Math.min(shown.buckets.length - 1, Math.floor(share(event) * shown.buckets.length));

function pick(one, other) {
	const [low, high] = [Math.min(one, other), Math.max(one, other)];
	const n = shown.buckets.length;
	picked.hidden = false;
	picked.style.left = `${(100 * low) / n}%`;
	picked.style.width = `${(100 * (high - low + 1)) / n}%`;
}

/** The range of some buckets. */
function zoom(one, other) {
	picked.hidden = true;
	const low = startOf(Math.min(one, other));
	const high = startOf(Math.max(one, other)) + shown.interval_ms;
	range(new Date(low).toISOString(), new Date(high).toISOString());
}

chart.addEventListener('pointerdown', (event) => {
	if (!shown || event.button) return;
	anchor = bucketAt(event);
	chart.setPointerCapture(event.pointerId);
	pick(anchor, anchor);
});
chart.addEventListener('pointermove', (event) => {
	if (!shown) return;
	read(bucketAt(event));
	if (anchor >= 0) pick(anchor, at);
});
chart.addEventListener('pointerup', (event) => {
	if (anchor < 0) return;
	const from = anchor;
	anchor = -1;
	zoom(from, bucketAt(event));
});
function leave() {
	anchor = -1;
	picked.hidden = true;
	if (shown) read(-1);
}
chart.addEventListener('pointercancel', leave);
chart.addEventListener('pointerleave', () => anchor < 0 && leave());
chart.addEventListener('blur', leave);
chart.addEventListener('keydown', (event) => {
	const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
	if (!shown || event.ctrlKey || event.metaKey || event.altKey) return;
	if (step) {
		const next = Math.max(0, Math.min(shown.buckets.length - 1, at < 0 ? shown.buckets.length - 1 : at + step));
		anchor = event.shiftKey ? (anchor < 0 ? Math.max(0, at) : anchor) : -1;
		read(next);
		pick(anchor < 0 ? next : anchor, next);
	} else if (event.key === 'Enter' && at >= 0) zoom(anchor < 0 ? at : anchor, at);
	else if (event.key === 'Escape' && at >= 0) leave();
	else return;
	event.preventDefault();
	event.stopPropagation();
});
