// All that the search selects, as a file, with progress.

import { request } from './api.js';
import { bytes, button, count, h, say } from './dom.js';
import { totalOf } from './histogram.js';
import { state } from './state.js';

const FORMATS = {
	ndjson: ['application/x-ndjson', 'NDJSON', 'every field, a JSON object a line'],
	csv: ['text/csv', 'CSV', 'for spreadsheets'],
};

let running = null;

/** Show what can be exported in `place`. */
export function showExport(place) {
	const said = h('p', { role: 'status' });
	const bar = h('progress', { 'aria-label': 'Export', hidden: true });
	const fields = h('input', { id: 'export-fields', placeholder: 'all', spellcheck: 'false', autocomplete: 'off' });
	const cancel = button('Cancel', () => running?.abort(), { hidden: true });
	const begin = (format) => run(format, fields.value.replace(/\s/g, ''), { said, bar, cancel });
	const formats = Object.entries(FORMATS).map(([format, [, name, what]]) =>
		button(name, () => begin(format), { title: what }));
	place.append(
		h('p', {}, 'Every stored record that the search selects, however many.'),
		h('label', { for: 'export-fields' }, 'Fields, with commas between'), fields,
		h('div', { class: 'tools' }, ...formats, cancel),
		bar, said);
}

async function run(format, fields, { said, bar, cancel }) {
	running?.abort();
	const controller = (running = new AbortController());
	bar.hidden = cancel.hidden = false;
	bar.removeAttribute('value');
	try {
		const { q, from, to } = state();
		const [type] = FORMATS[format];
		const params = { q, from, to, fields };
		const response = await request('logs', { params, headers: { Accept: type }, signal: controller.signal });
		const { blob, records } = await received(response.body, type, (records, size) => {
			const total = totalOf({ q, from, to });
			const share = Math.min(1, records / total);
			if (total) bar.value = share;
			const of = total ? ` of ${count(total)} records (${Math.floor(100 * share)} %)` : ' records';
			say(said, `${count(records)}${of}, ${bytes(size)}`);
		});
		save(blob, `logs-${new Date().toISOString().replace(/[:.]/g, '-')}.${format}`);
		say(said, `${count(records)} records, ${bytes(blob.size)}: saved`);
	} catch (error) {
		say(said, error.name === 'AbortError' ? 'Cancelled; nothing was saved' : `${error.message}; nothing was saved`);
	} finally {
		if (running === controller) bar.hidden = cancel.hidden = true;
	}
}

/** The whole body, with how many records it has; `progress` is told of each part. */
async function received(body, type, progress) {
	const csv = type === 'text/csv';
	// The first line of a CSV has the names.
	let [size, lines, quoted] = [0, csv ? -1 : 0, false];
	const counting = new TransformStream({
		transform(part, rest) {
			for (const byte of part) {
				if (byte === 34) quoted = csv && !quoted;
				else if (byte === 10 && !quoted) lines++;
			}
			size += part.length;
			progress(Math.max(0, lines), size);
			rest.enqueue(part);
		},
	});
	const blob = await new Response(body.pipeThrough(counting), { headers: { 'Content-Type': type } }).blob();
	return { blob, records: Math.max(0, lines) };
}

function save(blob, name) {
	const link = h('a', { href: URL.createObjectURL(blob), download: name });
	link.click();
	setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
