// Which fields the newest records have, and which values most often; a click narrows by one.

import { json, plain } from './api.js';
import { $, button, count, h, say, short } from './dom.js';
import { standing, term } from './query.js';
import { exclude, filterBy } from './record.js';
import { state } from './state.js';

/** Fields that are open until they are closed. */
const FIRST = ['level', 'service', 'source', 'status', 'host', 'app', 'logger'];
const opened = new Map(FIRST.slice(0, 3).map((name) => [name, true]));

/** The fields that were found, by name; those of before stay when nothing is found. */
export let known = new Map();

/** Ask for the fields, and show them. */
export async function loadFields(asked, signal) {
	say($('sample'), '');
	const found = await json('logs/fields', { params: asked, signal });
	learn(found);
	show(found);
}

/** The fields that there are, also when no search has found any. */
export async function someFields(signal) {
	if (!known.size) learn(await json('logs/fields', { signal }));
	return known;
}

function learn({ fields }) {
	if (fields.length) known = new Map(fields.map((field) => [field.name, field]));
}

function show({ fields, sampled, complete }) {
	say($('sample'), complete ? `of all ${count(sampled)}` : `of the newest ${count(sampled)}`);
	const place = (name) => (FIRST.indexOf(name) + 1 || FIRST.length + 1);
	const some = fields.filter(({ name, values }) => values.length && name !== 'message');
	some.sort((a, b) => place(a.name) - place(b.name) || b.count - a.count);
	$('names').replaceChildren(...some.map((field) => of(field, sampled)));
}

function of({ name, values, count: times }, sampled) {
	const list = h('ul');
	const fill = () => list.children.length || list.append(...values.map((each) => value(name, each, sampled)));
	const details = h('details', { open: opened.get(name) ?? false, ontoggle: () => {
		opened.set(name, details.open);
		fill();
	} }, h('summary', {}, h('bdi', {}, name), h('span', { class: 'n' }, short(times))), list);
	if (details.open) fill();
	return details;
}

function value(name, { value: exact, count: n }, sampled) {
	const text = plain(exact);
	const stands = standing(state().q, term(name, exact));
	const about = `${name}: ${text}`;
	const bar = h('span', { class: 'bar' });
	bar.style.width = `${(100 * n) / sampled}%`;
	return h('li', {},
		button(h('bdi', {}, text || '""'), (event) => (event.altKey ? exclude : filterBy)(name, exact), {
			class: 'value', title: `${about}\nClick to filter, Alt-click to exclude`, 'aria-pressed': String(stands === 'kept'),
		}),
		button('−', () => exclude(name, exact), { class: 'not', 'aria-label': `Exclude ${about}`, title: 'Exclude' }),
		h('span', { class: 'n' }, short(n)), bar);
}
