// The range of time: quick ones, relative to now, or two ends.

import { $, button, say } from './dom.js';
import { go, state } from './state.js';
import { rangeName, written, zone } from './times.js';

const QUICK = ['now-5m', 'now-15m', 'now-1h', 'now-6h', 'now-24h', 'now-7d', 'now-30d', 'now/d', ''];

const menu = $('ranges');
const [from, to] = [$('from'), $('to')];

/** Show the range of the state. */
export function showRange() {
	say($('range'), rangeName(state().from, state().to));
	for (const each of $('quick').children) each.setAttribute('aria-pressed', each.value === state().from && !state().to);
}

/** Go to a range; at its end, following begins or ends. */
export function range(low, high) {
	menu.hidePopover();
	go({ from: low, to: high, at: '', live: high ? '' : state().live });
}

/** Close the menu; whether it was open. */
export function closeRange() {
	const open = menu.matches(':popover-open');
	menu.hidePopover();
	return open;
}

$('quick').append(...QUICK.map((each) => button(rangeName(each, ''), () => range(each, ''), { value: each })));
menu.addEventListener('beforetoggle', () => {
	from.value = state().from;
	to.value = state().to;
	say($('range-zone'), `Times without a zone are in ${zone()}; now-15m is relative`);
});
$('between').addEventListener('submit', (event) => {
	event.preventDefault();
	range(written(from.value), written(to.value));
});
