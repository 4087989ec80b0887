// What arrives, as it arrives: on top for who is there, else waiting until asked for.

import { Problem, parse, request } from './api.js';
import { showWrong } from './ask.js';
import { $, count, say } from './dom.js';
import * as river from './river.js';
import { gapOf, rowOf } from './row.js';

/** Lines that wait for the reader, or for the page to be in sight, at the most. */
const MOST_WAITING = 5000;
const LONGEST_PAUSE = 10_000;
/** What arrives is shown so often at the most, in ms: each time every line moves, and is laid out anew. */
const BEAT = 100;

const pill = $('new');
const lamp = $('live');

let source = null;
let query = '';
let lastId = '';
let pause = 1000;
let timer = 0;
let beat = 0;
let frame = 0;
let shown = 0;
let arrived = [];
let waiting = [];
let waitingCount = 0;
let settled = [];
let unsettled = new Map();
let passed = 0;

/** Follow `q` from now on; `ready` is called once nothing that arrives is missed. */
export function start(q, ready) {
	stop();
	query = q;
	// What was stored in these seconds may not have been seen by the search that follows.
	connect({ from: 'now-10s' }, ready);
}

export function stop() {
	source?.close();
	source = null;
	clearTimeout(timer);
	clearTimeout(beat);
	cancelAnimationFrame(frame);
	beat = frame = 0;
	[arrived, waiting, settled, unsettled, lastId, passed, waitingCount] = [[], [], [], new Map(), '', 0, 0];
	lamp.dataset.state = '';
	showWaiting();
}

function connect(params, ready) {
	const asked = new URLSearchParams({ ...(query && { q: query }), ...params });
	const here = (source = new EventSource(`logs/tail?${asked}`));
	const on = (name, act) =>
		here.addEventListener(name, (event) => {
			if (here !== source) return;
			lastId = event.lastEventId || lastId;
			act(parse(event.data));
			soon();
		});
	on('record', (record) => take(rowOf(record, record.state === 'queued' ? 'queued' : '')));
	on('stored', ({ ids }) => settled.push(...ids.map((id) => [id, 'stored'])));
	on('quarantined', ({ id, reason }) => settled.push([id, 'quarantined', reason]));
	on('missed', ({ missed }) => take(missedRow(missed)));
	const is = (state) => {
		lamp.dataset.state = state;
		ready?.();
		ready = null;
	};
	here.onopen = () => {
		pause = 1000;
		is('on');
	};
	here.onerror = () => {
		if (here !== source) return;
		is('lost');
		// Else the browser comes back by itself, with the id of the last event.
		if (here.readyState === EventSource.CLOSED) later();
	};
}

function later() {
	pause = Math.min(LONGEST_PAUSE, pause * 2);
	timer = setTimeout(again, pause);
}

/** Why the stream could not be opened is said to a plain request alone. */
async function again() {
	const params = lastId ? { last_event_id: lastId } : {};
	const controller = new AbortController();
	try {
		await request('logs/tail', { params: { ...params, q: query }, signal: controller.signal });
		connect(params);
	} catch (error) {
		if (!(error instanceof Problem)) return;
		lamp.title = error.message;
		// A place in the stream that is not known any more is no reason to see nothing.
		if (error.parameter === 'last_event_id') lastId = '';
		else if (error.parameter) {
			lamp.dataset.state = 'wrong';
			return showWrong(error);
		}
		later();
	} finally {
		controller.abort();
	}
}

const WHY = 'they came faster than they could be. A search finds them once they are stored.';
/** `n` is null when nobody knows how many. */
const missedRow = (n) => gapOf(Date.now(), `${n === null ? 'Some' : count(n)} lines are not shown here: ${WHY}`);

function take(row) {
	if (row.mark === 'queued') unsettled.set(row.id, row);
	arrived.push(row);
	if (arrived.length <= MOST_WAITING) return;
	// Nobody sees the page: no frame comes.
	passed += arrived.length - MOST_WAITING / 2;
	arrived = arrived.slice(-MOST_WAITING / 2);
}

function soon() {
	if (beat || frame) return;
	beat = setTimeout(() => {
		beat = 0;
		frame = requestAnimationFrame(flush);
	}, shown + BEAT - performance.now());
}

function flush() {
	frame = 0;
	shown = performance.now();
	const fresh = arrived.filter((row) => !river.has(row.id)).reverse();
	arrived = [];
	fresh.sort((a, b) => b.ms - a.ms);
	if (passed) fresh.push(missedRow(passed));
	passed = 0;
	if (fresh.length && river.mayMove() && !waiting.length) river.before(fresh);
	else if (fresh.length) hold(fresh);
	for (const [id, state, reason] of settled) {
		const row = unsettled.get(id);
		if (row) river.settle(row, state, reason);
		unsettled.delete(id);
	}
	settled = [];
}

function hold(fresh) {
	const known = new Set(waiting.map((row) => row.id));
	const added = fresh.filter((row) => !known.has(row.id));
	waitingCount += added.filter((row) => row.record).length;
	waiting = added.concat(waiting);
	if (waiting.length > MOST_WAITING) {
		const left = waiting.splice(MOST_WAITING / 2).filter((row) => row.record).length;
		waiting.push(missedRow(left));
	}
	showWaiting();
}

/** Show what waits, and follow. */
function release() {
	const found = waiting;
	waiting = [];
	waitingCount = 0;
	showWaiting();
	river.before(found);
	river.toTop();
}

function showWaiting() {
	pill.hidden = !waitingCount;
	say(pill, `${count(waitingCount)} new`);
}

pill.addEventListener('click', release);
$('rows').addEventListener('scroll', () => waiting.length && river.mayMove() && release(), { passive: true });
