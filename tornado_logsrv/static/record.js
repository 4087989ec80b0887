// An opened record: all of its fields, and what can be done with each.

import { plain } from './api.js';
import { button, copy, h } from './dom.js';
import { term, toggled } from './query.js';
import { fieldsOf } from './records.js';
import { go, state, urlOf } from './state.js';
import { full } from './times.js';

const MOST_FIELDS = 400;
const LONGEST = 4000;
/** Texts that are longer are not what one filters by. */
const LONGEST_TERM = 300;

export const filterBy = (name, value) => go({ q: toggled(state().q, term(name, value)), at: '' });
export const exclude = (name, value) => go({ q: toggled(state().q, `NOT ${term(name, value)}`), at: '' });

/** The link to a record among the lines around it. */
const linkTo = (record) => ({ q: '', live: '', at: record.timestamp, open: record._id, panel: '' });

/** What is shown below the line of a record. */
export function detailOf({ record, mark, reason, ms }) {
	const fields = [...fieldsOf(record)];
	const more = fields.length - MOST_FIELDS;
	const shown = fields.slice(0, MOST_FIELDS).map(([name, value, whole]) => field(name, value, whole));
	const { state: _, ...stored } = record;
	return h('div', { class: 'detail' },
		h('div', { class: 'tools' },
			button('Copy line', (event) => copy(textOf(record), event.target)),
			button('Copy JSON', (event) => copy(JSON.stringify(stored, null, 2), event.target)),
			button('Copy link', (event) => copy(new URL(urlOf(linkTo(record)), location), event.target)),
			button('Lines around', () => go(linkTo(record))),
			mark === 'queued' && h('span', { class: 'quiet' }, 'queued, not stored yet'),
			mark === 'quarantined' && h('span', { class: 'quiet' }, `in quarantine: ${reason}`)),
		h('ul', { class: 'pairs', 'aria-label': 'Fields of this record' },
			field('timestamp', full(ms).split('\n').join('  ·  '), true), ...shown,
			more > 0 && h('li', { class: 'quiet' }, `and ${more} more fields, which Copy JSON has`),
			...notes(record), field('_id', record._id)));
}

/** The text of a record, whole; of one that has none, its data. */
function textOf({ message, data }) {
	if (message !== 'Job processed') return String(message);
	return typeof data === 'string' ? data : JSON.stringify(data);
}

const notes = (record) =>
	(record.notes ?? []).map(({ path = '', change = '', original = '' }) =>
		field('note', `${path} ${change}, sent as ${original}`, true));

function field(name, value, whole) {
	const text = plain(value);
	const about = `${name}: ${text.slice(0, 80)}`;
	const can = !whole && text.length <= LONGEST_TERM;
	const pre = h('bdi', { class: 'value' }, text.slice(0, LONGEST));
	const more = text.length > LONGEST && button(`Show all ${text.length} characters`, (event) => {
		pre.textContent = text;
		event.target.remove();
	});
	return h('li', { class: 'pair', tabindex: '-1', 'data-can': can },
		h('bdi', { class: 'name' }, name), h('div', {}, pre, more),
		h('span', { class: 'acts' },
			can && button('Filter', () => filterBy(name, value), { class: 'by', 'aria-label': `Filter by ${about}` }),
			can && button('Exclude', () => exclude(name, value), { class: 'not', 'aria-label': `Exclude ${about}` }),
			button('Copy', (event) => copy(text, event.target), { 'aria-label': `Copy ${about}` })));
}
