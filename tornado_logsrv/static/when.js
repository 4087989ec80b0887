// The range of time: quick ones, relative to now, or two ends.

import { $, button, h, say } from './dom.js';
import { go, state } from './state.js';
import { rangeName, written, zone } from './times.js';

const QUICK = ['now-5m', 'now-15m', 'now-1h', 'now-6h', 'now-24h', 'now-7d', 'now-30d', 'now/d', ''];

const opener = $('range');
const menu = $('ranges');
const [from, to] = [$('from'), $('to')];

/** Show the range of the state. */
export function showRange() {
	say(opener, rangeName(state().from, state().to));
	for (const each of $('quick').children) each.setAttribute('aria-pressed', String(each.value === state().from && !state().to));
}

/** Go to a range; at its end, following begins or ends. */
export function range(low, high) {
	toggle(false);
	go({ from: low, to: high, at: '', live: high ? '' : state().live });
}

function toggle(open = menu.hidden) {
	menu.hidden = !open;
	opener.setAttribute('aria-expanded', String(open));
	if (!open) return;
	from.value = state().from;
	to.value = state().to;
	say($('range-zone'), `Times without a zone are in ${zone()}; now-15m is relative`);
}

/** Close the menu; whether it was open. */
export function closeRange() {
	if (menu.hidden) return false;
	toggle(false);
	opener.focus();
	return true;
}

$('quick').append(...QUICK.map((each) => button(rangeName(each, ''), () => range(each, ''), { value: each })));
opener.addEventListener('click', () => toggle());
$('between').addEventListener('submit', (event) => {
	event.preventDefault();
	range(written(from.value), written(to.value));
});
document.addEventListener('pointerdown', (event) => {
	if (!menu.hidden && !menu.contains(event.target) && event.target !== opener) toggle(false);
});
