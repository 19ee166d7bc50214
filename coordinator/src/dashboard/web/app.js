// The frame around the pages: routes, the token, colours, keys, and whether the coordinator is heard.
import { $, el, put, say, text } from './dom.js';
import { act, follow, on, Refused, refresh, state, token, whoami } from './server.js';
import { experiment } from './experiment.js';
import { overview } from './list.js';

const main = $('main');
let page = null;

// Routes: #/ lists, #/ID shows one. A run hands its token over behind the id; it is taken out of the address at once.
const route = () => {
  const [path, more] = location.hash.slice(2).split('?');
  const given = new URLSearchParams(more).get('token');
  if (given) { token.set(given); history.replaceState(null, '', '#/' + path); }
  page?.end?.();
  page = null;
  if (state.role && state.role !== 'leading') return waiting();
  const id = /^[0-9a-zA-Z_.-]{1,64}$/.test(path) ? path : '';
  page = id ? experiment(main, id, act_on) : overview(main);
  if (page.title) document.title = page.title + ' \u00b7 Ablate';
  follow(page.id);
  scrollTo(0, 0);
};
addEventListener('hashchange', () => { route(); main.focus({ preventScroll: true }); });

/** What stands here while another coordinator leads. */
const waiting = () => {
  stand_by();
  // Another may take the lead meanwhile.
  page = { heard: what => { if (what === 'role') stand_by(); } };
  follow('');
};
const stand_by = () => {
  document.title = 'Standing by \u00b7 Ablate';
  const by = state.role === 'standby';
  put(main, el('div', { class: 'empty tall' }, el('div', { class: 'moons', 'aria-hidden': 'true' }, el('i'), el('i')),
    el('h1', {}, by ? 'This coordinator stands by' : 'This coordinator is starting'),
    el('p', {}, by && state.leader ? [el('code', {}, state.leader), ' leads. '] : by ? 'Another leads. ' : null, by ? 'Should it fail, this one takes over within seconds, and this page goes on by itself.' : 'It is about to lead, or to stand by.')));
};

// The token.
const dialog = $('token'), word = $('token-word'), wrong = $('token-wrong');
let then = null;
const ask_token = (why, next) => {
  then = next ?? null;
  text(wrong, why ?? '');
  word.value = '';
  $('token-forget').hidden = !token.get();
  if (!dialog.open) dialog.showModal();
  word.focus();
};
$('key').onclick = () => ask_token();
$('token-cancel').onclick = () => dialog.close();
$('token-forget').onclick = () => { token.set(null); dialog.close(); say('The token is forgotten.'); };
$('token-form').addEventListener('submit', async e => {
  e.preventDefault();
  const given = word.value.trim();
  if (!given) return text(wrong, 'Paste a token.');
  try {
    await whoami(given);
    token.set(given);
    dialog.close();
    say('The token is good.');
    const next = then;
    then = null;
    next?.();
  } catch (e) { text(wrong, e.message); }
});
const marks = () => {
  $('key').hidden = !state.token;
  $('key').classList.toggle('on', !!token.get());
  text($('key'), token.get() ? 'Token \u2713' : 'Token');
};

/** Does something to an experiment; asks for a token where that is wanted. */
const act_on = async (action, id) => {
  if (action === 'cancel') {
    const sure = $('sure');
    sure.returnValue = 'no';
    sure.showModal();
    await new Promise(f => sure.addEventListener('close', f, { once: true }));
    if (sure.returnValue !== 'yes') return;
  }
  if (state.token && !token.get()) return ask_token('', () => send(action, id));
  await send(action, id);
};
const PAST = { pause: 'Paused.', resume: 'It goes on.', cancel: 'Cancelled.', retry: 'It is tried again.' };
const send = async (action, id) => {
  try {
    await act(id, action);
    say(PAST[action]);
  } catch (e) {
    if (e instanceof Refused && (e.status === 401 || e.status === 403)) {
      if (e.status === 401) token.set(null);
      return ask_token(e.message, () => send(action, id));
    }
    say(e.message || 'The coordinator doesn\u2019t answer.', 'bad');
  }
};

// Light, dark, or as the system.
const SHADES = ['', 'light', 'dark'], NAMES = ['as the system', 'light', 'dark'], SIGNS = ['\u25d0', '\u2600\ufe0e', '\u263e'];
let shade = Math.max(0, SHADES.indexOf(localStorage.getItem('ablate-colours') ?? ''));
const colour = () => {
  if (SHADES[shade]) document.documentElement.dataset.theme = SHADES[shade]; else delete document.documentElement.dataset.theme;
  text($('theme'), SIGNS[shade]);
  $('theme').setAttribute('aria-label', 'Colours: ' + NAMES[shade]);
  page?.redraw?.();
};
$('theme').onclick = () => { shade = (shade + 1) % 3; localStorage.setItem('ablate-colours', SHADES[shade]); colour(); say('Colours: ' + NAMES[shade]); };
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => page?.redraw?.());

// Keys.
$('help').onclick = () => $('keys').showModal();
$('skip').onclick = () => main.focus();
addEventListener('keydown', e => {
  if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector('dialog[open]') || e.target.closest('input, textarea, select')) return;
  const key = e.key.toLowerCase();
  if (key === 'p') page?.act?.('pause', 'resume');
  else if (key === 'r') page?.act?.('retry');
  else if (key === 'l') location.hash = '#/';
  else if (key === 't' && state.token) { e.preventDefault(); ask_token(); }
  else if (e.key === '?') $('keys').showModal();
});

// Whether it is heard.
const link = () => {
  const e = $('link'), since = state.heard ? new Date(state.heard).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }) : null;
  const [kind, words] = state.link === 'live' ? ['live', 'live'] : state.link === 'asking' ? ['slow', 'every few seconds'] : state.link === 'lost' ? ['lost', since ? `no answer since ${since}` : 'no answer'] : ['', 'connecting'];
  e.className = 'link ' + kind;
  text(e, words);
};

let role = null;
on(what => {
  if (what === 'link') link();
  if (what === 'token' || what === 'role') marks();
  if (what === 'role' && state.role !== role) { const before = role; role = state.role; if (before !== null || role !== 'leading') return route(); }
  page?.heard?.(what);
});
colour(); link();
refresh().catch(() => {}).finally(() => { role = state.role; marks(); route(); });
