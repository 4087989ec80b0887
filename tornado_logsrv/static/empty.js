// Why there are no lines, and what to do.

import { Problem, page } from './api.js';
import { button, copy, h } from './dom.js';
import { someFields } from './fields.js';
import { meant } from './query.js';
import { go } from './state.js';
import { fromNow, local, rangeName, zone } from './times.js';
import { range } from './when.js';

const HALF_HOUR = 1_800_000;

/** Have `explain` say why a search for `asked` found nothing: at once, and again when the nearest record is found. */
export async function whyEmpty({ q, from, to }, signal, explain) {
	const one = async (params) => (await page('logs', { params: { limit: 1, ...params }, signal })).records[0];
	if (!(await one({}))) return explain(nothingYet());
	explain(nothing(q, from, to));
	try {
		const others = q ? meant(q, await someFields(signal)) : [];
		explain(nothing(q, from, to, others));
		const nearest = (from && (await one({ q, to: from }))) || (to && (await one({ q, from: to, order: 'asc' })));
		explain(nothing(q, from, to, others, nearest || null));
	} catch (error) {
		// As when it takes too long: then that nothing matches is all that is known.
		if (!(error instanceof Problem)) throw error;
	}
}

function nothingYet() {
	const record = '{"level":"info","message":"hello"}';
	const line = `curl -H 'Content-Type: application/json' -d '${record}' ${new URL('add-job', location)}`;
	return [
		h('h2', {}, 'Nothing is stored yet'),
		h('p', {}, 'Send a record; within five seconds it is stored, and with Live it is seen at once:'),
		h('pre', { tabindex: '0' }, line), button('Copy', (event) => copy(line, event.target)),
	];
}

/** `nearest` is the nearest record that matches; null when there is none. */
function nothing(q, from, to, others = [], nearest) {
	const found = [
		h('h2', {}, q ? 'No record matches' : 'No records in this time'),
		h('p', {}, rangeName(from, to), q && ` · ${q}`),
	];
	if (nearest) {
		const ms = Date.parse(nearest.timestamp);
		const side = from && ms < Date.now() && !(to && ms >= Date.parse(to)) ? 'before' : 'after';
		found.push(h('p', {}, `The nearest ${side} is of ${local(ms)} ${zone(ms)}, ${fromNow(ms)}. `,
			button('Go there', () => range(new Date(ms - HALF_HOUR).toISOString(), new Date(ms + HALF_HOUR).toISOString()))));
	} else if (q && nearest === null) found.push(h('p', {}, 'Nor does any other stored record.'));
	const choices = others.map((each) => button(each, () => go({ q: each })));
	if (choices.length) found.push(h('p', {}, 'Did you mean ', ...choices));
	return found;
}
