// What became of every record, and whether the server has its MongoDB and its Redis.

import { json } from './api.js';
import { $, button, count, h, plural, say, short } from './dom.js';
import { go, state } from './state.js';
import { local, zone } from './times.js';

const EVERY = 2000;
const COLUMNS = ['received', 'stored', 'queued', 'quarantined', 'refused'];
const MEANING = {
	received: 'Records that this server was sent since its start',
	stored: 'MongoDB has confirmed them',
	queued: 'Taken, and not stored yet',
	quarantined: 'MongoDB refused them: see the quarantine',
	refused: 'Not taken; their senders were told',
};

const BALANCE = 'received = stored + queued + quarantined + refused';

let since = 0;
let last = null;

/** The newest ledger. */
export const ledger = () => last;

/** Look at the ledger, again and again. */
export async function watchLedger() {
	if (!document.hidden) await look();
	setTimeout(watchLedger, EVERY);
}

export async function look() {
	try {
		last = await json('ledger');
	} catch (error) {
		if (error.status === 401) return;
		since ||= Date.now();
		const silent = `The server does not answer since ${when(since)}. This page tries again.`;
		return notice(error.status ? error.message : silent);
	}
	since = 0;
	show(last);
}

const when = (ms) => `${local(ms).slice(11, 19)} ${zone(ms)}`;

/** Who may see but a part of the records is not told of the balance, MongoDB and Redis: they are of all. */
function show({ total, balanced, store, journal }) {
	const place = $('ledger');
	if (!place.children.length) place.append(...COLUMNS.map(column), h('span', { id: 'balance', title: BALANCE }));
	COLUMNS.forEach((name, index) => {
		const number = place.children[index].lastChild;
		say(number, short(total[name]));
		number.title = count(total[name]);
	});
	say($('balance'), { true: '✓ balanced', false: '⚠ does not balance' }[balanced] ?? '');
	const away = (name, { since }) => `${name} is away since ${when(Date.parse(since))}:`;
	const safe = `${plural(total.queued, 'new record')} ${total.queued === 1 ? 'is' : 'are'} safe in the queue`;
	notice([
		store?.available === false && `${away('MongoDB', store)} what is stored cannot be searched; ${safe}.`,
		journal?.available === false && `${away('Redis', journal)} records that ask for ack=journal are refused meanwhile.`,
	].filter(Boolean).join(' '));
}

function column(name) {
	const attributes = { title: MEANING[name] };
	if (name !== 'quarantined') return h('span', attributes, `${name} `, h('b', {}, '0'));
	const open = () => go({ panel: state().panel === 'quarantine' ? '' : 'quarantine' });
	const opener = button(`${name} `, open, attributes);
	opener.append(h('b', {}, '0'));
	return opener;
}

function notice(text) {
	say($('notice'), text);
	$('notice').hidden = !text;
}
