// Elements. Text only ever becomes text: nothing in this page parses HTML.

/** A new element; `on…` are listeners, all else attributes; children are elements or texts. */
export function h(tag, attributes = {}, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (typeof value === 'function') element.addEventListener(name.slice(2), value);
		else if (is(value)) element.setAttribute(name, value === true ? '' : value);
	}
	element.append(...children.flat().filter(is));
	return element;
}

const is = (value) => value !== undefined && value !== null && value !== false;

export const $ = (id) => document.getElementById(id);

/** A button that says what it does. */
export const button = (label, onclick, attributes) => h('button', { type: 'button', onclick, ...attributes }, label);

/** Set a text only where it changes: screen readers are told of changes alone. */
export function say(element, text) {
	if (element.textContent !== text) element.textContent = text;
}

/** Put `text` on the clipboard; without the API, which plain http:// lacks, by a selection. */
export async function copy(text, from) {
	if (navigator.clipboard) await navigator.clipboard.writeText(text);
	else {
		const area = h('textarea', { class: 'sr', 'aria-hidden': 'true' });
		area.value = text;
		document.body.append(area);
		area.select();
		document.execCommand('copy');
		area.remove();
		from?.focus();
	}
	if (from) flash(from, 'Copied');
}

function flash(element, text) {
	element.dataset.label ??= element.textContent;
	element.textContent = text;
	clearTimeout(element.flashing);
	element.flashing = setTimeout(() => say(element, element.dataset.label), 1200);
}

const numbers = new Intl.NumberFormat('en');
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

const sizes = new Intl.NumberFormat('en', { style: 'unit', unit: 'byte', unitDisplay: 'narrow', notation: 'compact' });

export const bytes = (n) => sizes.format(n);
export const count = (n) => numbers.format(n);
export const short = (n) => (n < 100000 ? numbers.format(n) : compact.format(n));
export const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? '' : 's'}`;

