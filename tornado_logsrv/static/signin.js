// Who is signed in, where the server asks for a token.

import { json, request } from './api.js';
import { $, say } from './dom.js';

const form = $('sign-in');

/** Ask for a token. */
export function askForToken() {
	if (!form.hidden) return;
	form.hidden = false;
	$('token').focus();
}

/** Show who is signed in; `again` is called once somebody is. */
export async function watchSession(again) {
	form.addEventListener('submit', async (event) => {
		event.preventDefault();
		try {
			const body = JSON.stringify({ token: $('token').value.trim() });
			await request('sign-in', { method: 'POST', body, headers: { 'Content-Type': 'application/json' } });
			$('token').value = '';
			form.hidden = true;
			say($('sign-in-wrong'), '');
			await who();
			again();
		} catch (error) {
			say($('sign-in-wrong'), error.message);
			$('token').select();
		}
	});
	$('who').addEventListener('click', async () => {
		await request('sign-out', { method: 'POST' });
		location.reload();
	});
	await who();
}

async function who() {
	const { needed, name, scopes } = await json('sign-in').catch(() => ({}));
	$('who').hidden = !needed || !name;
	say($('who'), `Sign out ${name}`);
	$('who').title = `The token ${name} may ${scopes?.join(', ')}`;
	if (needed && !name) askForToken();
}
