// How bad a record is: what its sender wrote, and which of six kinds that is.

const KINDS = {
	fatal: ['fatal', 'critical', 'crit', 'emergency', 'emerg', 'alert', 'panic', '60'],
	error: ['error', 'err', 'severe', '50'],
	warn: ['warn', 'warning', '40'],
	info: ['info', 'information', 'informational', 'notice', '30'],
	debug: ['debug', 'fine', 'verbose', '20'],
	trace: ['trace', 'finest', 'silly', '10'],
};
const kinds = new Map(Object.entries(KINDS).flatMap(([kind, names]) => names.map((name) => [name, kind])));

export const ORDER = [...Object.keys(KINDS), 'none'];

/** fatal, error, warn, info, debug, trace, or none for what is none of these. */
export const kindOf = (level) => kinds.get(String(level).toLowerCase()) ?? 'none';

/** The level as a word: the sender's own, but for numbers. */
export const wordOf = (level) => (/^[1-6]0$/.test(level) ? kindOf(level) : String(level));
