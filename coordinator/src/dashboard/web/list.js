// The overview: all experiments, and the workers.
import { chip, count, done, el, put, rate, text, time } from './dom.js';
import { get, refresh, state } from './server.js';

/** A bar with a part for each sweep, as long as its share of the subsets, filled as far as it is done. */
export const bar = () => {
  const e = el('div', { class: 'bar-of', role: 'progressbar', 'aria-valuemin': 0, 'aria-valuemax': 100 });
  return { e, set: b => {
    const percent = Math.floor(b.share * 100);
    e.setAttribute('aria-label', 'Progress of ' + b.name);
    e.setAttribute('aria-valuenow', percent);
    e.setAttribute('aria-valuetext', done(b.share) + ', ' + b.state);
    e.className = 'bar-of ' + b.state;
    if (!e.firstChild) e.append(el('i'));
    e.firstChild.style.width = b.share * 100 + '%';
  } };
};

export const facts = b => {
  const running = b.state === 'running';
  return [
    running && b.rate ? rate(b.rate).replace('/s', ' subsets/s') : null,
    running && b.eta_s != null ? time(b.eta_s) + ' left' : null,
    b.quarantined ? count(b.quarantined) + ' set aside' : null,
  ].filter(Boolean).join('  \u00b7  ');
};

const card = () => {
  const name = el('h3'), mark = el('span', { class: 'chip' }), line = bar(), share = el('b'), more = el('span'), why = el('p', { class: 'why' });
  const e = el('a', { class: 'card one' }, el('div', { class: 'row' }, name, mark), line.e, el('p', { class: 'facts' }, share, more), why);
  return { e, set: b => {
    e.href = '#/' + b.id.slice(0, 16);
    text(name, b.name); chip(mark, b.state); line.set(b);
    text(share, done(b.share)); text(more, facts(b));
    text(why, b.error); why.hidden = !b.error;
  } };
};

/** Workers, with those that vanished lately. */
export const workers = () => {
  const head = el('p', { class: 'note' }), body = el('div', { class: 'workers', role: 'list' });
  const e = el('section', { class: 'card', 'aria-label': 'Workers' }, el('h2', {}, 'Workers'), head, body), rows = new Map();
  let busy = false, again = false;
  const row = () => {
    const sign = el('span', { class: 'sign', 'aria-hidden': 'true' }), name = el('b'), is = el('span', { class: 'is' }), device = el('span', { class: 'device' });
    const cells = ['chunks', 'speed', 'waits', 'errors'].map(k => [el('dt', {}, k), el('dd')]);
    const r = el('div', { class: 'worker', role: 'listitem' }, el('div', { class: 'who' }, sign, el('div', {}, name, is, device)), el('dl', {}, cells.map(c => el('div', {}, c))));
    return { r, set: w => {
      const gone = w.gone_s != null, idle = !gone && !w.leased;
      r.className = 'worker ' + (gone ? 'gone' : idle ? 'idle' : 'busy');
      text(sign, gone ? '\u2715' : idle ? '\u25cb' : '\u25cf');
      text(name, w.name);
      text(is, gone ? `vanished ${time(w.gone_s)} ago` : idle ? 'waits for work' : `works on ${count(w.leased)} chunk${w.leased === 1 ? '' : 's'}`);
      const classes = new Map();
      for (const [d, c] of w.lanes) { const k = c.split(';')[0] || d; classes.set(k, [...(classes.get(k) ?? []), d]); }
      text(device, [...classes].map(([c, ds]) => ds.length > 1 ? `${ds.length} \u00d7 ${c}` : `${c} (${ds[0]})`).join(', '));
      const values = [count(w.accepted), gone || w.rate == null ? '\u2013' : rate(w.rate), w.idle == null ? '\u2013' : (w.idle * 100).toFixed(w.idle < .1 ? 1 : 0) + '\u202f%', count(w.failures)];
      cells.forEach((c, i) => text(c[1], values[i]));
      cells[3][1].className = w.failures ? 'bad' : '';
    } };
  };
  const update = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const { all, items, gone } = await get('workers');
      text(head, all.connected || gone.length ? `${count(all.connected)} connected, ${count(all.lanes)} lane${all.lanes === 1 ? '' : 's'}` + (all.idle == null ? '' : `; they waited for ${(all.idle * 100).toFixed(1)}\u202f% of their time`) + (gone.length ? `; ${count(gone.length)} vanished lately` : '') : 'None is connected. Start one with ');
      if (!all.connected && !gone.length) head.append(el('code', {}, 'ablate-worker --coordinator URL'));
      const keep = new Set();
      [...items, ...gone].forEach((w, i) => {
        keep.add(w.id);
        if (!rows.has(w.id)) rows.set(w.id, row());
        const { r, set } = rows.get(w.id);
        set(w);
        if (body.children[i] !== r) body.insertBefore(r, body.children[i] ?? null);
      });
      for (const [id, { r }] of rows) if (!keep.has(id)) { r.remove(); rows.delete(id); }
    } catch { /* what is shown stays until it answers again */ }
    await new Promise(f => setTimeout(f, 900));
    busy = false;
    if (again && e.isConnected) { again = false; update(); }
  };
  return { e, update };
};

export const overview = main => {
  const cards = new Map(), grid = el('div', { class: 'all' }), head = el('p', { class: 'lede' }), crowd = workers();
  const find = el('input', { type: 'search', placeholder: 'Find by name or id', 'aria-label': 'Find an experiment' });
  find.value = state.find;
  let wait = 0;
  find.addEventListener('input', () => { clearTimeout(wait); wait = setTimeout(() => { state.find = find.value.trim(); refresh().catch(() => {}); }, 200); });
  const none = el('div', { class: 'empty' }, el('h2', {}, 'No experiment yet'), el('p', {}, 'Hand one in: ', el('code', {}, 'ablate submit sweep.toml')));
  const missed = el('p', { class: 'empty', role: 'status' }, 'Nothing has that name.');
  put(main, el('div', { class: 'head' }, el('div', {}, el('h1', {}, 'Experiments'), head), find), grid, none, missed, crowd.e);
  const rank = b => ['running', 'paused', 'failed'].indexOf(b.state) + 1 || 9;
  const update = () => {
    const wanted = state.find.toLowerCase();
    const all = [...state.experiments.values()].filter(b => !wanted || b.name.toLowerCase().includes(wanted) || b.id.startsWith(wanted))
      .sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name) || a.id.localeCompare(b.id));
    const total = Math.max(state.total, all.length), working = all.filter(b => b.state === 'running').length;
    text(head, total ? `${count(total)} in all, ${count(working)} at work` + (total > all.length ? `; ${count(all.length)} shown` : '') : '');
    find.hidden = total < 7 && !state.find;
    none.hidden = all.length > 0 || !!state.find;
    missed.hidden = all.length > 0 || !state.find;
    const keep = new Set();
    all.slice(0, 200).forEach((b, i) => {
      keep.add(b.id);
      if (!cards.has(b.id)) cards.set(b.id, card());
      const { e, set } = cards.get(b.id);
      set(b);
      if (grid.children[i] !== e) grid.insertBefore(e, grid.children[i] ?? null);
    });
    for (const [id, { e }] of cards) if (!keep.has(id)) { e.remove(); cards.delete(id); }
  };
  update();
  crowd.update();
  return { title: 'Experiments', redraw: () => {}, heard: what => { if (what === 'experiments') update(); if (what === 'workers' || what === 'role') crowd.update(); } };
};
