// What the coordinator says: requests, and a stream of events that is taken up again when it breaks.
export const state = {
  /** starting, standby, leading */ role: null, leader: null, /** whether acting needs a token */ token: true,
  experiments: new Map(), total: 0, find: '', crowd: null, /** how far the one that is looked at is read */ live: null,
  /** live, asking (without a stream), lost */ link: 'connecting', /** when something was heard last */ heard: null,
};
const listeners = new Set();
export const on = f => { listeners.add(f); return () => listeners.delete(f); };
const tell = what => { for (const f of listeners) f(what); };

const WORD = 'ablate-token';
export const token = {
  get: () => sessionStorage.getItem(WORD),
  set: word => { if (word) sessionStorage.setItem(WORD, word); else sessionStorage.removeItem(WORD); tell('token'); },
};

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}
const ask = async (path, more = {}) => {
  const answer = await fetch('/api/v1/' + path, { ...more, cache: 'no-store', signal: AbortSignal.timeout(20000) });
  const body = await answer.json().catch(() => ({ error: `the coordinator answered ${answer.status}` }));
  if (!answer.ok) throw new Refused(answer.status, body.error);
  return body;
};
export const get = path => ask(path);
const bearer = word => word ? { authorization: 'Bearer ' + word } : {};
export const act = (id, action) => ask(`experiments/${id}/control`, {
  method: 'POST', headers: { 'content-type': 'application/json', ...bearer(token.get()) }, body: JSON.stringify({ action }),
});
export const whoami = word => ask('whoami', { headers: bearer(word) });

const take = items => { for (const b of items) state.experiments.set(b.id, b); };
/** Reads the list anew. */
export const refresh = async () => {
  const about = await get('about');
  Object.assign(state, { role: about.role, leader: about.leader, token: about.token });
  if (about.role === 'leading') {
    const all = await get('experiments?find=' + encodeURIComponent(state.find));
    state.experiments.clear();
    take(all.items);
    state.total = all.count;
    if (!state.crowd) state.crowd = (await get('workers')).all;
  }
  state.heard = Date.now();
  tell('role'); tell('experiments');
};

/** A stream that says nothing for so long is dead: it beats every 15 seconds. */
const SILENCE = 40000;
let source = null, following = '', timer = 0, beat = 0, spoke = 0;
const link = now => { if (state.link !== now) { state.link = now; tell('link'); } };
const heard = () => { state.heard = spoke = Date.now(); link('live'); };

const open = () => {
  close();
  if (document.hidden) return;
  spoke = Date.now();
  source = new EventSource('/api/v1/events' + (following ? '?id=' + following : ''));
  const at = (name, f) => source.addEventListener(name, e => { heard(); f(JSON.parse(e.data)); });
  at('role', r => {
    const before = state.role;
    Object.assign(state, { role: r.role, leader: r.leader ?? null });
    // Versions of a coordinator before this one say nothing.
    if (r.fresh) state.live = null;
    if (before !== r.role || r.role !== 'leading') tell('role');
    if (r.role === 'leading' && r.fresh) refresh().catch(() => {});
  });
  at('experiments', e => { take(e.items); tell('experiments'); });
  at('workers', c => { state.crowd = c; tell('workers'); });
  at('beat', () => {});
  at('live', l => { state.live = l; tell('live'); });
  source.onerror = () => {
    // Until the browser has the stream again, or where too many follow, it asks now and then.
    const gone = source && source.readyState === EventSource.CLOSED;
    link(state.link === 'asking' ? 'asking' : 'lost');
    if (gone) { source = null; timer = setTimeout(poll, 1500); }
  };
};
const close = () => { clearTimeout(timer); if (source) source.close(); source = null; };
const poll = async () => {
  try {
    await refresh();
    link('asking');
    // Nobody says how far it is: all that changed is asked for.
    state.live = null;
    tell('live');
    if (++beat % 5 === 0) return open();
  } catch { link('lost'); }
  timer = setTimeout(poll, 3000);
};
/** Follows all experiments, and what is computed of one of them. */
export const follow = id => { following = id ?? ''; state.live = null; open(); };
setInterval(() => { if (source && Date.now() - spoke > SILENCE) { link('lost'); open(); } }, 5000);
document.addEventListener('visibilitychange', () => document.hidden ? close() : open());
addEventListener('pagehide', close);
