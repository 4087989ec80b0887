// All that the search selects, as a file, with progress.

import { request } from './api.js';
import { bytes, button, count, h, say } from './dom.js';
import { counted } from './histogram.js';
import { state } from './state.js';

/** Pieces are put together to blobs of this size, which the browser may keep on disk. */
const PIECE = 8 << 20;
const FORMATS = { ndjson: ['application/x-ndjson', 'NDJSON', 'every field, a JSON object a line'], csv: ['text/csv', 'CSV', 'for spreadsheets'] };

let running = null;

/** Show what can be exported in `place`. */
export function showExport(place) {
	const said = h('p', { role: 'status' });
	const bar = h('progress', { 'aria-label': 'Export', hidden: true });
	const fields = h('input', { id: 'export-fields', placeholder: 'all', spellcheck: 'false', autocomplete: 'off' });
	const cancel = button('Cancel', () => running?.abort(), { hidden: true });
	const begin = (format) => run(format, fields.value.replace(/\s/g, ''), { said, bar, cancel });
	place.append(
		h('p', {}, 'Every stored record that the search selects, however many.'),
		h('label', { for: 'export-fields' }, 'Fields, with commas between'), fields,
		h('div', { class: 'tools' }, ...Object.entries(FORMATS).map(([format, [, name, what]]) => button(name, () => begin(format), { title: what })), cancel),
		bar, said);
}

async function run(format, fields, { said, bar, cancel }) {
	running?.abort();
	const controller = (running = new AbortController());
	const total = counted()?.total ?? 0;
	bar.hidden = cancel.hidden = false;
	bar.max = Math.max(1, total);
	bar.removeAttribute('value');
	try {
		const { q, from, to } = state();
		const [type] = FORMATS[format];
		const response = await request('logs', { params: { q, from, to, fields }, headers: { Accept: type }, signal: controller.signal });
		if (!response.headers.get('Content-Type')?.startsWith(type)) throw new Error('This server does not export');
		const { blob, records } = await received(response.body, type, (records, size) => {
			bar.value = Math.min(records, bar.max);
			say(said, `${count(records)} of ${count(Math.max(total, records))} records, ${bytes(size)}`);
		});
		save(blob, `logs-${new Date().toISOString().replace(/[:.]/g, '-')}.${format}`);
		say(said, `${count(records)} records, ${bytes(blob.size)}: saved`);
	} catch (error) {
		say(said, error.name === 'AbortError' ? 'Cancelled; nothing was saved' : `${error.message}; nothing was saved`);
	} finally {
		if (running === controller) bar.hidden = cancel.hidden = true;
	}
}

async function received(body, type, progress) {
	const blobs = [];
	let pieces = [];
	let [size, piece, records] = [0, 0, type === 'text/csv' ? -1 : 0];
	let quoted = false;
	const reader = body.getReader();
	for (let read; !(read = await reader.read()).done; ) {
		for (const byte of read.value) {
			if (byte === 34) quoted = !quoted && type === 'text/csv';
			else if (byte === 10 && !quoted) records++;
		}
		pieces.push(read.value);
		size += read.value.length;
		piece += read.value.length;
		if (piece > PIECE) {
			blobs.push(new Blob(pieces));
			[pieces, piece] = [[], 0];
		}
		progress(Math.max(0, records), size);
	}
	return { blob: new Blob([...blobs, ...pieces], { type }), records: Math.max(0, records) };
}

function save(blob, name) {
	const link = h('a', { href: URL.createObjectURL(blob), download: name });
	link.click();
	setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
