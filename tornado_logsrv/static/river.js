// The lines that are read: many rows, of which only those in sight are on the page.

import { $, button, count, say } from './dom.js';
import { detailOf } from './record.js';
import { blank, explain, fill, lines, mark } from './row.js';
import { go, state } from './state.js';
import { dayOf } from './times.js';

/** Rows above and below the sight that are there already. */
const OVER = 12;
/** So long nothing moves until rows out of sight are made ready, in ms. */
const REST = 150;
/** Rows before the end at which older ones are asked for. */
const AHEAD = 200;
const MOST_ROWS = 20_000;

const scroller = $('rows');
const list = $('list');
const foot = $('foot');

let rows = [];
let ids = new Map();
let current = null;
let opened = null;
let openHeight = 0;
let rowHeight = 20;
let withDay = false;
let frame = 0;
let rest = 0;
let older = null;

const sizes = new ResizeObserver(([entry]) => {
	openHeight = entry.target.offsetHeight;
	later();
});

// Where rows are

const timeOf = (row) => row.element.parts[0];
const indexOf = (row) => (row ? rows.indexOf(row) : -1);

function placeOf(index, openIndex) {
	return index * rowHeight + (openIndex >= 0 && index > openIndex ? openHeight : 0);
}

function indexAt(y, openIndex) {
	const end = (openIndex + 1) * rowHeight;
	if (openIndex < 0 || y < end) return Math.floor(y / rowHeight);
	return y < end + openHeight ? openIndex : Math.floor((y - openHeight) / rowHeight);
}

// Showing them

function later() {
	frame ||= requestAnimationFrame(draw);
}

function draw() {
	frame = 0;
	clearTimeout(rest);
	// All is read before anything is written: else the page would be laid out twice.
	const { scrollTop, clientHeight } = scroller;
	const openIndex = indexOf(opened);
	const at = (y) => Math.max(0, Math.min(rows.length - 1, indexAt(y, openIndex)));
	let [first, last] = [at(scrollTop), at(scrollTop + clientHeight)];
	// Where all is new in every frame, what is out of sight would be for nothing: it comes when there is rest.
	const fast = 2 * rows.slice(first, last + 1).filter((row) => row.element).length < last - first;
	if (fast) rest = setTimeout(draw, REST);
	else [first, last] = [Math.max(0, first - OVER), Math.min(rows.length - 1, last + OVER)];
	// What has the focus, is open, or is where marking text began, stays on the page.
	const held = [openIndex, indexOf(current), indexOf(markedFrom())].filter((index) => index >= 0);
	const wanted = new Set(held);
	for (let index = first; index <= last && rows.length; index++) wanted.add(index);
	list.style.height = `${placeOf(rows.length, openIndex)}px`;
	put([...wanted].sort((a, b) => a - b), fast ? held : [...wanted], openIndex);
	if (rows.length) $('empty').hidden = true;
	if (older && last > rows.length - AHEAD) loadOlder();
}

function markedFrom() {
	const { anchorNode, isCollapsed } = getSelection();
	return isCollapsed ? null : anchorNode.parentElement?.closest('.row')?.row;
}

/**
 * Have the elements of the `wanted` rows on the page, and no others; those of the rows to `keep` stay. Any other takes
 * another row, where it stands if it can: to lay out new texts is a third of the work of a new element, or of a move.
 */
function put(wanted, keep, openIndex) {
	const kept = new Set(keep.map((index) => rows[index].element));
	const focused = document.activeElement?.closest('.row');
	// Else it would be on another line all at once.
	if (focused && !kept.has(focused)) document.activeElement.blur();
	const spare = new Set();
	for (const element of list.children) if (!kept.has(element)) spare.add(leave(element));
	let next = list.firstChild;
	let end = 0;
	for (const index of wanted) {
		const row = rows[index];
		if (!row.element) {
			const element = spare.has(next) ? next : (spare.values().next().value ?? blank());
			spare.delete(element);
			if (element !== next) list.insertBefore(element, next);
			take(element, row);
		}
		const { element } = row;
		next = element.nextSibling;
		// Rows stand one below the other; where some are not on the page there is a gap.
		element.style.marginTop = `${placeOf(index, openIndex) - end}px`;
		element.ariaPosInSet = index + 1;
		element.ariaSetSize = older ? -1 : rows.length;
		end = placeOf(index + 1, openIndex);
	}
	for (const element of spare) element.remove();
}

function take(element, row) {
	row.element = element;
	element.row = row;
	fill(row, withDay);
	if (row === current) showCurrent(row, true);
	if (row === opened) attach(row);
}

function leave(element) {
	const { row } = element;
	if (row === opened) detach(row);
	if (row === current) showCurrent(row, false);
	row.element = undefined;
	return element;
}

/** Show anew what is on the page. At once: between two frames there would be none. */
function redraw() {
	for (const element of list.children) take(leave(element), element.row);
	draw();
}

function resized() {
	rowHeight = parseFloat(getComputedStyle(scroller).getPropertyValue('--row')) || 20;
	draw();
}

/** Whether any time needs its day; the width of the column hangs on it. */
function seeDays() {
	const today = dayOf(Date.now());
	const needed = rows.length > 0 && [rows[0], rows.at(-1)].some((row) => dayOf(row.ms) !== today);
	if (needed === withDay) return;
	withDay = needed;
	$('river').classList.toggle('days', needed);
	redraw();
}

// What there is

/**
 * Show these rows and no others but what has arrived since `began`, when they were asked for; `next` gives older ones,
 * or nothing when there are none.
 */
export function show(found, next, began = Infinity) {
	for (const element of list.children) leave(element);
	ids = new Map(found.map((row) => [row.id, row]));
	const arrived = rows.filter((row) => row.arrived >= began && !ids.has(row.id));
	for (const row of arrived) ids.set(row.id, row);
	rows = arrived.concat(found);
	older = next;
	current = opened = null;
	openHeight = 0;
	scroller.scrollTop = 0;
	seeDays();
	draw();
	openByState();
	footer();
}

/** Put rows that are newer than all others on top, and go there. */
export function before(found) {
	const fresh = found.filter((row) => !ids.has(row.id));
	if (!fresh.length) return;
	for (const row of fresh) {
		row.arrived = performance.now();
		ids.set(row.id, row);
	}
	rows = fresh.concat(rows);
	if (rows.length > MOST_ROWS) cut();
	seeDays();
	if (scroller.scrollTop) scroller.scrollTop = 0;
	draw();
}

function cut() {
	for (const row of rows.splice(MOST_ROWS / 2)) ids.delete(row.id);
	older = null;
	footer();
}

function after(found) {
	const fresh = found.filter((row) => !ids.has(row.id));
	for (const row of fresh) ids.set(row.id, row);
	rows = rows.concat(fresh);
	seeDays();
}

let loading = false;
async function loadOlder() {
	if (loading || rows.length >= MOST_ROWS) return;
	loading = true;
	const ask = older;
	const slow = setTimeout(() => say(foot, 'Older lines are on their way…'), 200);
	try {
		const found = await ask();
		if (older === ask) {
			after(found.rows);
			older = found.next;
			footer();
		}
	} catch (error) {
		if (error.name !== 'AbortError' && older === ask) failed(error);
	} finally {
		clearTimeout(slow);
		loading = false;
		later();
	}
}

function failed(error) {
	const ask = older;
	older = null;
	foot.replaceChildren(`${error.message}. `, button('Try again', () => {
		older = ask;
		footer();
		later();
	}));
}

function footer() {
	if (older && rows.length >= MOST_ROWS) {
		const to = new Date(rows.at(-1).ms + 1).toISOString();
		const on = button('Go on from the last', () => go({ to, live: '' }));
		foot.replaceChildren(`${count(MOST_ROWS)} lines are here. `, on);
	} else if (older || !rows.length) say(foot, '');
	else say(foot, state().live ? 'Older lines are found by a search' : 'No older lines');
}

/** What becomes of a record that was seen to arrive. */
export function settle(row, state, reason) {
	row.mark = state;
	row.reason = reason;
	mark(row);
}

export const has = (id) => ids.has(id);
export const isEmpty = () => rows.length === 0;

/** Whether lines may move: the reader is at the top, has nothing open, and marks no text. */
export const mayMove = () =>
	scroller.scrollTop < rowHeight && !opened && getSelection().isCollapsed && (!current || current === rows[0]);

export function toTop() {
	scroller.scrollTop = 0;
	makeCurrent(null);
	draw();
}

/** The times do not look as they did. */
export function retime() {
	seeDays();
	redraw();
}

// Moving, opening

function makeCurrent(row) {
	showCurrent(current, false);
	current = row;
	showCurrent(current, true);
}

function showCurrent(row, is) {
	if (!row?.element) return;
	row.element.classList.toggle('current', is);
	timeOf(row).tabIndex = is ? 0 : -1;
}

/** Go `steps` down, or up; nothing was current: to the first in sight. */
export function move(steps) {
	if (!rows.length) return;
	const at = indexOf(current);
	const inSight = indexAt(scroller.scrollTop + rowHeight - 1, indexOf(opened));
	jump(at < 0 ? inSight : Math.min(rows.length - 1, Math.max(0, at + steps)));
}

/** Make a row current; Infinity is the last one. */
export function jump(index) {
	const at = Math.max(0, Math.min(rows.length - 1, index));
	makeCurrent(rows[at]);
	reveal(at);
	draw();
	focusCurrent();
}

/** Give the current row the focus. */
export function focusCurrent() {
	explain(current);
	timeOf(current).focus({ preventScroll: true });
}

function reveal(index) {
	const openIndex = indexOf(opened);
	const top = placeOf(index, openIndex);
	const height = scroller.clientHeight;
	if (top < scroller.scrollTop) scroller.scrollTop = top;
	else if (top + rowHeight > scroller.scrollTop + height) scroller.scrollTop = top + rowHeight - height;
}

/** Open the current row, or close it. */
export function toggle(row = current) {
	if (!row?.record) return;
	makeCurrent(row);
	go({ open: state().open === row.id ? '' : row.id }, true);
}

export const isOpen = () => opened !== null;

/** Open what the state says is open. */
export function openByState() {
	const row = ids.get(state().open) ?? null;
	if (row === opened) return;
	if (opened) detach(opened);
	opened = row;
	openHeight = 0;
	if (!row) return later();
	makeCurrent(row);
	if (row.element) attach(row);
	const index = indexOf(row);
	if (state().at) scroller.scrollTop = placeOf(index, -1) - scroller.clientHeight / 3;
	else reveal(index);
	draw();
}

function attach(row) {
	row.element.classList.add('open');
	timeOf(row).setAttribute('aria-expanded', 'true');
	const detail = detailOf(row);
	row.element.append(detail);
	openHeight = detail.offsetHeight || openHeight;
	sizes.disconnect();
	sizes.observe(detail);
	requestAnimationFrame(() => {
		openHeight = detail.offsetHeight;
		const top = placeOf(indexOf(row), -1) - scroller.scrollTop;
		const below = top + rowHeight + openHeight - scroller.clientHeight;
		if (below > 0) scroller.scrollTop += Math.min(below, Math.max(0, top));
		draw();
	});
}

function detach(row) {
	sizes.disconnect();
	if (!row.element) return;
	row.element.classList.remove('open');
	timeOf(row).setAttribute('aria-expanded', 'false');
	row.element.lastChild.remove();
}

list.addEventListener('click', (event) => {
	const element = event.target.closest('.row');
	if (!element || event.target.closest('.detail') || !getSelection().isCollapsed) return;
	toggle(element.row);
});

list.addEventListener('pointermove', ({ target }) => {
	const element = target.closest('.row');
	if (element) explain(element.row);
}, { passive: true });

// Several marked lines are copied as lines; what is marked within one is as it stands.
list.addEventListener('copy', (event) => {
	const selection = getSelection();
	const marked = [...list.children].filter((element) => selection.containsNode(element, true));
	if (marked.length < 2) return;
	// Also those between that are out of sight.
	event.clipboardData.setData('text/plain', lines(rows.slice(indexOf(marked[0].row), indexOf(marked.at(-1).row) + 1)));
	event.preventDefault();
});

scroller.addEventListener('scroll', later, { passive: true });
new ResizeObserver(resized).observe(scroller);
