// The page: what is done when its state, the URL, changes.

import { Problem, whenDenied } from './api.js';
import { showQuery, showWrong, syntax } from './ask.js';
import { $, button, copy, h, say } from './dom.js';
import { whyEmpty } from './empty.js';
import { showExport } from './export.js';
import { loadFields } from './fields.js';
import { count_, counted, draw, uncounted } from './histogram.js';
import { keyTable } from './keys.js';
import { watchLedger } from './ledger.js';
import { showQuarantine } from './quarantine.js';
import * as river from './river.js';
import { around, askedBy, newest } from './search.js';
import { askForToken, watchSession } from './signin.js';
import { back, follow, go, state, urlOf } from './state.js';
import * as tail from './tail.js';
import { full, zone, zoneName } from './times.js';
import { showRange } from './when.js';

/** Nobody is told of what is done sooner. */
const SOON = 200;
/** A live histogram is counted again so often, and rests ten times as long as that took. */
const RECOUNT = 5000;

let running = null;
let recount = 0;

// Searching

async function search() {
	running?.abort();
	const controller = (running = new AbortController());
	const { signal } = controller;
	const asked = askedBy(state());
	const began = performance.now();
	let what = 'Searching';
	const clock = setInterval(() => progress(performance.now() - began, controller, what), SOON);
	clearTimeout(recount);
	$('empty').hidden = true;
	$('river').setAttribute('aria-busy', 'true');
	showQuery();
	try {
		const { rows, next } = state().at ? await around(state().at, signal) : await newest(asked, signal);
		river.show(rows, next, began);
		what = 'Counting';
		const explain = (why) => river.isEmpty() && empty(why);
		await Promise.all([
			river.isEmpty() && whyEmpty(asked, signal, explain),
			count_(asked, signal).catch(beside),
			loadFields(asked, signal).catch(beside),
		]);
		countAgain(asked, signal, performance.now() - began);
	} catch (error) {
		if (signal === running?.signal) failed(error, performance.now() - began);
	} finally {
		clearInterval(clock);
		if (running === controller) {
			progress(0);
			$('river').setAttribute('aria-busy', 'false');
		}
	}
}

/** What fails beside the lines leaves them as they are. */
function beside(error) {
	if (!(error instanceof Problem)) throw error;
}

function progress(ms, controller, what) {
	const slow = ms > SOON;
	$('busy').hidden = !slow;
	document.body.classList.toggle('busy', slow && what === 'Searching');
	if (!slow) return;
	say($('busy').firstChild, `${what}, ${seconds(ms)} `);
	$('cancel').onclick = () => controller.abort();
}

function failed(error, ms) {
	const again = button('Search again', begin);
	if (error.status === 401) return;
	if (error.parameter) return showWrong(error);
	if (error.name === 'AbortError') {
		if (river.isEmpty()) empty([h('p', {}, `Cancelled after ${seconds(ms)}. `, again)]);
		return;
	}
	const advice = error.status === 504
		? 'Narrow the time, or ask for a field that has an index. '
		: 'What is new is safe in the queue. ';
	uncounted('');
	empty([h('h2', {}, error.message), h('p', {}, advice, again)]);
}

const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;

function empty(children) {
	river.show([], null);
	$('empty').replaceChildren(...children);
	$('empty').hidden = false;
}

function countAgain(asked, signal, took) {
	if (!state().live) return;
	recount = setTimeout(async () => {
		const began = performance.now();
		if (!document.hidden) await count_(asked, signal).catch(() => {});
		if (!signal.aborted) countAgain(asked, signal, performance.now() - began);
	}, Math.max(RECOUNT, 10 * took));
}

/** Search, and follow from there if that is wanted. */
function begin() {
	tail.stop();
	if (state().live && !state().at) tail.start(state().q, search);
	else search();
}

// What is beside the river

const NAMES = `Names are keys of data; message, timestamp, source and _id mean themselves. Words match in any case.
	AND, OR and NOT are in capitals.`;

function showHelp(place) {
	const off = state().keys === 'off';
	place.append(
		h('h3', {}, 'Keys'), h('table', {}, ...keyTable()),
		button(`Single keys are ${off ? 'off' : 'on'}`, () => go({ keys: off ? '' : 'off' }, true)),
		h('h3', {}, 'Search'), h('table', {}, ...syntax()), h('p', { class: 'quiet' }, NAMES));
}

const PANELS = {
	help: ['Help', showHelp],
	quarantine: ['Quarantine', showQuarantine],
	export: ['Export', showExport],
};

const openers = document.querySelectorAll('nav [value]');

function showPanel() {
	const [title, fill] = PANELS[state().panel] ?? [];
	$('panel').hidden = !title;
	document.body.dataset.panel = state().panel;
	for (const each of openers) each.setAttribute('aria-expanded', each.value === state().panel);
	if (!title) return;
	say($('panel-title'), title);
	$('panel-body').replaceChildren();
	Promise.try(fill, $('panel-body')).catch((error) => $('panel-body').append(h('p', {}, error.message)));
}

function showTimes() {
	say($('zone'), zone());
	$('zone').title = `Times are in ${state().utc ? 'UTC' : zoneName}. Click for ${state().utc ? zoneName : 'UTC'}.`;
	showRange();
	river.retime();
	draw();
}

function showLive() {
	$('live').setAttribute('aria-pressed', String(Boolean(state().live)));
	const { at } = state();
	$('around').hidden = !at;
	if (at) say($('around-at'), `The lines around ${full(Date.parse(at)).split('\n')[0]}`);
}

// The state, and what changes it

follow((now, changed) => {
	showLive();
	if (changed('q', 'from', 'to', 'at')) {
		showRange();
		begin();
	} else {
		if (changed('live')) begin();
		if (changed('open')) river.openByState();
	}
	if (changed('utc')) showTimes();
	if (changed('panel', 'keys')) showPanel();
});

$('live').onclick = () => {
	const live = state().live ? '' : '1';
	go({ live, ...(live && { at: '', to: '', from: state().to ? 'now-1h' : state().from }) });
};
$('zone').onclick = () => go({ utc: state().utc ? '' : '1' }, true);
for (const each of openers) each.onclick = () => go({ panel: state().panel === each.value ? '' : each.value });
$('panel-close').onclick = () => go({ panel: '' });
$('around-back').onclick = () => back({ at: '', open: '' });
$('link').onclick = (event) => {
	const { from, to } = counted() ?? {};
	const fixed = event.shiftKey && from ? { from, to, live: '' } : {};
	copy(new URL(urlOf(fixed), location), $('link'));
};

whenDenied(askForToken);
showTimes();
showLive();
showPanel();
begin();
watchLedger();
watchSession(begin);
