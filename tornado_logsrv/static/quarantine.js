// What MongoDB has refused, or is no record: why, what was sent, and another try.

import { page, request } from './api.js';
import { $, button, h, say } from './dom.js';
import { full, local } from './times.js';

const NOTHING = `Nothing is in quarantine. Records that MongoDB refuses, and lines that are no JSON, would be here with
	the reason.`;

/** Show the quarantine in `place`. */
export async function showQuarantine(place, next = {}) {
	const { records, next: more } = await page('quarantine', { params: { limit: 50, ...next } });
	if (!records.length && !place.children.length) place.append(h('p', { class: 'quiet' }, NOTHING));
	place.append(...records.map(item));
	if (more) place.append(button('Older ones', async (event) => {
		await showQuarantine(place, more);
		event.target.remove();
	}));
}

function item(entry) {
	const { _id, time, source, code, reason, form, original } = entry;
	const text = form === 'bson' ? JSON.stringify(original.data, null, 2) : original;
	const said = h('p', { role: 'status' });
	const bson = form === 'bson';
	const area = h('textarea', {
		rows: Math.min(12, text.split('\n').length + 1), spellcheck: 'false', hidden: bson,
		'aria-label': 'Data to store in place of what was sent',
	}, text);
	const sent = h('pre', { tabindex: '0', hidden: !bson, 'aria-label': 'What was sent' }, text);
	const path = `quarantine/${_id}`;
	const act = async (call, done) => {
		say(said, '');
		try {
			await call();
			box.replaceChildren(h('p', {}, done));
		} catch (error) {
			say(said, error.message);
		}
	};
	const replay = () => act(() => request(`${path}/replay`, {
		method: 'POST', body: area.hidden ? '' : area.value, headers: { 'Content-Type': 'application/json' },
	}), '✓ Stored');
	const correct = button('Correct…', () => {
		[area.hidden, sent.hidden] = [false, true];
		correct.remove();
		area.focus();
	});
	const forget = button('Delete', () => {
		if (forget.textContent === 'Delete') say(forget, 'Delete for ever');
		else act(() => request(path, { method: 'DELETE' }), 'Deleted');
	});
	const box = h('article', {}, h('p', {}, h('b', {}, reason), ` `, h('span', { class: 'quiet' }, `code ${code}`)),
		h('p', { class: 'quiet', title: full(Date.parse(time)) }, `${local(Date.parse(time))} · ${source}`),
		sent, area, h('div', { class: 'tools' }, button('Replay', replay), bson && correct, forget), said);
	return box;
}
