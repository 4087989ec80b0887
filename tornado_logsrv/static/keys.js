// The keyboard.

import { $, h } from './dom.js';
import * as river from './river.js';
import { back, go, state } from './state.js';
import { closeRange } from './when.js';

const KEYS = {
	'/': ['ask', () => $('q').select()],
	j: ['down', () => step(1)],
	k: ['up', () => step(-1)],
	Enter: ['open or close the line', () => river.toggle()],
	f: ['filter by the field; on a line: choose one', () => pick('.by')],
	x: ['exclude the field', () => pick('.not')],
	l: ['live', () => $('live').click()],
	Esc: ['leave', leave],
	Home: ['to the newest', () => river.jump(0)],
	End: ['to the oldest that is here', () => river.jump(Infinity)],
	'?': ['this help', () => go({ panel: state().panel === 'help' ? '' : 'help' })],
};
const ALIASES = { ArrowDown: 'j', ArrowUp: 'k', Escape: 'Esc', ' ': 'Enter' };

/** The keys, for the help. */
export const keyTable = () =>
	Object.entries(KEYS).map(([key, [meaning]]) => h('tr', {}, h('td', {}, h('kbd', {}, key)), h('td', {}, meaning)));

const field = () => document.activeElement.closest?.('.pair');

function step(by) {
	const pairs = [...document.querySelectorAll('.open .pair')];
	const at = pairs.indexOf(field());
	if (at < 0) river.move(by);
	else pairs[Math.max(0, Math.min(pairs.length - 1, at + by))].focus();
}

/** Do to the field in focus what its button does; without one, go to the fields of the line. */
function pick(action) {
	if (field()) return field().querySelector(action)?.click();
	if (!river.isOpen()) river.toggle();
	document.querySelector('.open .pair[data-can]')?.focus();
}

function leave() {
	if (closeRange()) return;
	if (field()) river.focusCurrent();
	else if (state().panel) go({ panel: '' });
	else if (state().open) go({ open: '' }, true);
	else if (state().at) back({ at: '' });
	else document.activeElement.blur();
}

addEventListener('keydown', (event) => {
	if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
	const key = ALIASES[event.key] ?? event.key;
	if (event.target.closest('input, textarea, select')) {
		if (key !== 'Esc') return;
		// Else the browser would empty a search bar.
		event.preventDefault();
		event.target.blur();
		closeRange();
		return;
	}
	const single = event.key.length === 1 && event.key !== ' ';
	if (!KEYS[key] || (single && state().keys === 'off')) return;
	// What has the focus knows its own Enter; the space key is for a line alone.
	if (key === 'Enter' && event.target.matches(event.key === ' ' ? ':not(.time)' : 'button, a, summary, [role=slider]')) return;
	// So does what scrolls.
	if (/^(Arrow|Home|End)/.test(event.key) && event.target !== document.body && !event.target.closest('#rows')) return;
	event.preventDefault();
	KEYS[key][1]();
});
