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
	if (found.fields.length) known = new Map(found.fields.map((field) => [field.name, field]));
	show(found);
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
	const details = h('details', { open: opened.get(name) ?? false, ontoggle: () => {
		opened.set(name, details.open);
		if (details.open && !list.children.length) list.append(...values.map((each) => value(name, each, sampled)));
	} }, h('summary', {}, h('bdi', {}, name), h('span', { class: 'n' }, short(times))), list);
	if (details.open) list.append(...values.map((each) => value(name, each, sampled)));
	return details;
}

function value(name, { value: exact, count: n }, sampled) {
	const text = plain(exact);
	const stands = standing(state().q, term(name, exact));
	const bar = h('span', { class: 'bar' });
	bar.style.width = `${(100 * n) / sampled}%`;
	return h('li', {},
		button(h('bdi', {}, text || '""'), (event) => (event.altKey ? exclude : filterBy)(name, exact), {
			class: 'value', title: `${name}: ${text}\nClick to filter, Alt-click to exclude`, 'aria-pressed': String(stands === 'kept'),
		}),
		h('span', { class: 'n' }, short(n)),
		button('−', () => exclude(name, exact), { class: 'not', 'aria-label': `Exclude ${name}: ${text}`, title: 'Exclude' }), bar);
}
