// The state of the page is its URL, and nothing else.

const DEFAULTS = {
	q: '', // what to look for
	from: 'now-1h', // empty: since ever
	to: '', // empty: until now
	live: '', // 1: follow what arrives
	at: '', // show the lines around this time
	open: '', // the _id of the opened record
	panel: '', // what is beside the river: quarantine, export, help, fields
	utc: '', // 1: times in UTC
	keys: '', // off: single keys do nothing
};

const listeners = [];
let now = read();

function read() {
	const given = new URLSearchParams(location.search);
	return Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, given.get(name) ?? value]));
}

/** The state; not to be changed. */
export const state = () => now;

/** The URL of the state with `changes`; what is as by default is not in it. */
export function urlOf(changes = {}) {
	const kept = Object.entries({ ...now, ...changes }).filter(([name, value]) => value !== DEFAULTS[name]);
	const query = new URLSearchParams(kept).toString();
	return location.pathname + (query && `?${query}`);
}

/** Change the state. A step that one wants to go back from is in the history, others (`quietly`) are not. */
export function go(changes, quietly = false) {
	const url = urlOf(changes);
	if (url === location.pathname + location.search) return;
	if (quietly) history.replaceState(history.state, '', url);
	else history.pushState('here', '', url);
	tell();
}

/** Go back; who came by a link, and would leave the page, changes the state by `instead`. */
export const back = (instead) => (history.state ? history.back() : go(instead));

/** Call `listener(state, changed)` whenever something changed; `changed(...names)` says whether one of these did. */
export function follow(listener) {
	listeners.push(listener);
}

function tell() {
	const before = now;
	now = read();
	const changed = (...names) => names.some((name) => now[name] !== before[name]);
	for (const listener of listeners) listener(now, changed);
}

addEventListener('popstate', tell);
