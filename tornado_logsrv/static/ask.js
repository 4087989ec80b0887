// The search bar: the query, what it may become, and where it is wrong.

import { $, button, count, h } from './dom.js';
import { known } from './fields.js';
import { term } from './query.js';
import { go, state } from './state.js';

const input = $('q');
const under = $('under');
const wrong = $('wrong');

const EXAMPLES = [
	['timeout', 'a word, in the text of a record'],
	['"connection refused"', 'these words in this order'],
	['level:error', 'the field is this, from end to end'],
	['status:>=500', 'numbers; also [100 TO 200]'],
	['path:*.png', 'wildcards; also /regular.?expression/'],
	['_exists_:trace_id', 'has the field'],
	['(a OR b) AND NOT c', 'any of it together'],
];

export const syntax = () =>
	EXAMPLES.map(([text, meaning]) => h('tr', {}, h('td', {}, button(text, () => offer(text))), h('td', {}, meaning)));

function offer(text) {
	input.value = `${input.value.trim()} ${text}`.trim();
	input.focus();
	mirror();
}

const ask = (q) => go({ q: q.trim(), at: '' });

export function showQuery() {
	if (input.value !== state().q) input.value = state().q;
	wrong.hidden = true;
	input.removeAttribute('aria-invalid');
	mirror();
}

/** Say what is wrong, underline it, and offer the nearest that is right. */
export function showWrong({ message, column, nearest }) {
	const better = nearest ? ['. Try ', button(nearest, () => ask(nearest))] : [];
	wrong.replaceChildren(message.replace(/^q: c/, 'C'), ...better);
	wrong.hidden = false;
	input.setAttribute('aria-invalid', 'true');
	mirror(column);
}

/** Put below the input what it shows, with the word at `column` marked; columns count characters from 1. */
function mirror(column) {
	const characters = [...input.value];
	const before = characters.slice(0, Math.min(column, characters.length) - 1).join('');
	const word = /^(\w+|.)/su.exec(input.value.slice(before.length))?.[0];
	under.replaceChildren(...(column && word ? [before, h('mark', {}, word)] : []));
	under.scrollLeft = input.scrollLeft;
}

/** Offer the names of fields and, behind one, its values; to who has asked for nothing yet, the syntax. */
function complete() {
	const [word, signs, name, begun] = /([-!(]*)(?:([^\s:()"]+):)?"?([^\s:()"]*)$/.exec(input.value);
	const before = input.value.slice(0, input.value.length - word.length) + signs;
	const values = known.get(name)?.values ?? [];
	let found = [];
	if (name) found = values.map(({ value, count: n }) => [term(name, value), n]);
	else if (begun) found = [...known.values()].map((field) => [`${field.name}:`, field.count]);
	else if (!input.value) found = EXAMPLES;
	$('completions').replaceChildren(...found.map(([text, note]) =>
		h('option', { value: before + text }, typeof note === 'number' ? count(note) : note)));
}

input.addEventListener('input', () => {
	mirror();
	complete();
});
input.addEventListener('focus', complete);
input.addEventListener('scroll', () => (under.scrollLeft = input.scrollLeft));
$('ask').addEventListener('submit', (event) => {
	event.preventDefault();
	ask(input.value);
});
