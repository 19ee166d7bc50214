// One experiment: how far it is, what it has found so far, and what can be done with it.
import { curvePlot, heatMap, pairMatrix } from './figures.js';
import { bar, workers } from './list.js';
import { chip, count, done, el, fmt, pm, put, rate, text, time } from './dom.js';
import { get, state } from './server.js';

const PACE = 700;

const sweepRow = () => {
  const name = el('span', { class: 'name' }), line = el('i'), track = el('span', { class: 'track' }, line), many = el('span', { class: 'many' }), more = el('span', { class: 'more' });
  const e = el('li', {}, name, track, many, more);
  return { e, set: (s, working) => {
    const over = s.total > 0 && s.done >= s.total;
    e.className = over ? 'over' : working ? 'now' : '';
    text(name, s.name);
    line.style.width = (s.total ? 100 * s.done / s.total : 0) + '%';
    text(many, over ? count(s.total) : `${count(s.done)} of ${count(s.total)}`);
    text(more, over ? '\u2713' : s.rounds > 1 && s.done ? `round ${s.round + 1} of ${s.rounds}` : '');
  } };
};

/** The head of the page: state, progress, what can be done. */
const progress = actions => {
  const mark = el('span', { class: 'chip' }), share = el('strong', { class: 'share' }), line = bar(), list = el('ul', { class: 'sweeps' }), why = el('p', { class: 'warn' });
  const left = el('dd'), speed = el('dd'), chunks = el('dd'), rows = [];
  const e = el('section', { class: 'card progress', 'aria-label': 'Progress' },
    el('div', { class: 'row' }, share, mark, el('div', { class: 'acts' }, actions)), line.e,
    el('dl', { class: 'numbers' }, el('div', {}, el('dt', {}, 'left'), left), el('div', {}, el('dt', {}, 'speed'), speed), el('div', {}, el('dt', {}, 'chunks'), chunks)), why, list);
  return { e, set: b => {
    chip(mark, b.state); line.set(b);
    text(share, done(b.share));
    const running = b.state === 'running';
    text(left, running ? (b.eta_s != null ? 'about ' + time(b.eta_s) : 'not known yet') : b.state === 'done' ? 'nothing' : '\u2013');
    text(speed, running && b.rate ? rate(b.rate).replace('/s', ' subsets/s') : '\u2013');
    text(chunks, `${count(b.accepted)} of ${count(b.planned)}` + (b.quarantined ? `, ${count(b.quarantined)} set aside` : ''));
    text(why, b.error); why.hidden = !b.error;
    const now = running ? b.sweeps.findIndex(s => s.done < s.total) : -1;
    b.sweeps.forEach((s, i) => {
      if (!rows[i]) { rows[i] = sweepRow(); list.append(rows[i].e); }
      rows[i].set(s, i === now);
    });
  } };
};

/** A table of a few rows whose cells change. */
const table = (caption, heads) => {
  const body = el('tbody'), e = el('table', {}, el('caption', {}, caption), el('thead', {}, el('tr', {}, heads.map((h, i) => el('th', { scope: 'col', class: i ? 'r' : null }, h)))), body);
  return { e, set: rows => {
    rows.forEach((r, i) => {
      if (!body.rows[i]) body.append(el('tr', {}, heads.map((_, k) => el(k ? 'td' : 'th', k ? { class: 'r' } : { scope: 'row' }))));
      r.forEach((c, k) => text(body.rows[i].cells[k], c));
    });
    while (body.rows.length > rows.length) body.lastChild.remove();
    e.hidden = rows.length === 0;
  } };
};

/** What is known of a task under an ablation. */
const results = (id, group, index) => {
  const parts = [], known = (n, of, what) => `${count(n)} of ${count(of)} ${what}`;
  const e = el('div', { class: 'results' });
  const name = u => group.units[u][0];
  const careful = group.warnings.map(w => el('p', { class: 'warn' }, w));
  if (!group.has[0]) e.append(...careful);
  if (group.has[0]) {
    const map = heatMap(group), note = el('p', { class: 'note' }), top = table('Hurts most', [group.unit[0] === 'kv_group' ? 'KV group' : group.unit[0], '\u0394 \u00b1 SE']);
    e.append(el('section', { class: 'card', 'aria-label': 'Units alone' }, el('h2', {}, 'Each ' + (group.unit[0] === 'kv_group' ? 'KV group' : group.unit[0]) + ', removed alone'), note, careful, el('div', { class: 'two heats' }, map.e, el('div', { class: 'side' }, top.e))));
    parts.push({ path: 'heads', version: 0, redraw: map.redraw, update: v => {
      map.update(v);
      const base = v.baseline == null ? '' : `; ${group.metric} is ${fmt(v.baseline)} with everything in place` + (v.floor == null ? '' : ` and ${fmt(v.floor)} with nothing`);
      text(note, `\u0394: how much worse ${group.metric} gets. ${known(v.known, group.units.length, 'measured')}${v.known ? `, ${count(v.resolved.length)} resolved` : ''}${base}.`);
      const best = [...map.rows.values()].filter(r => r[2] != null).sort((a, b) => b[2] - a[2]).slice(0, 8);
      top.set(best.map(r => [name(r[0]), pm(r[2], r[3])]));
    } });
  }
  if (group.has[1]) {
    const matrix = pairMatrix(group), note = el('p', { class: 'note' });
    // Chosen by sign and size: what they are to each other is told by the report, once all are there to be tested.
    const above = table('Largest positive so far', ['pair', 'interaction \u00b1 SE']), below = table('Largest negative so far', ['pair', 'interaction \u00b1 SE']);
    const untested = el('p', { class: 'note', hidden: true }, 'Not tested yet; the report tests them.');
    const rows = v => v.slice(0, 6).map(p => [`${name(p[0])} + ${name(p[1])}`, pm(p[2], p[3])]);
    e.append(el('section', { class: 'card', 'aria-label': 'Pairs' }, el('h2', {}, 'Every pair, removed together'), note, el('div', { class: 'two' }, matrix.e, el('div', { class: 'side' }, above.e, below.e, untested))));
    parts.push({ path: 'pairs', version: 0, redraw: matrix.redraw, update: v => {
      matrix.update(v);
      const each = v.bins.rows < group.units.length ? ` A cell shows the strongest of some ${Math.round(group.units.length / v.bins.rows) ** 2} pairs of neighbours.` : '';
      text(note, `Interaction: \u0394 of both, less \u0394 of each. ${known(v.known, v.planned, 'pairs')}${v.skipped ? `, ${count(v.skipped)} left out as one of the two isn\u2019t measured` : ''}.${each}`);
      above.set(rows(v.redundant)); below.set(rows(v.overlapping)); untested.hidden = !v.known;
    } });
  }
  if (group.has[2]) {
    const plot = curvePlot(group);
    e.append(el('section', { class: 'card', 'aria-label': 'Pruning curve' }, el('h2', {}, 'What is left as heads go'), plot.e));
    parts.push({ path: 'curve', version: 0, redraw: plot.redraw, update: plot.update });
  }
  let busy = false, alive = true, anew = false;
  /** Fetches what changed, one after another and not too often; all, where nothing is followed (any more). */
  const update = async live => {
    if (busy) anew ||= !live;
    if (busy || !alive) return;
    busy = true;
    let failed = false;
    for (const p of parts) {
      if (!alive || (live && p.version >= live.version)) continue;
      try {
        const { data } = await get(`experiments/${id}/${p.path}?group=${index}&since=${p.version}`);
        if (!alive) break;
        if (!data.same) p.update(data);
        p.version = data.version;
      } catch { failed = true; }
    }
    setTimeout(() => {
      busy = false;
      const now = state.live, more = failed || anew;
      anew = false;
      if (alive && (more || (now && parts.some(p => p.version < now.version)))) update(now);
    }, failed ? 1500 : PACE);
  };
  return { e, update, redraw: () => parts.forEach(p => p.redraw()), end: () => { alive = false; } };
};

/** Errors of chunks that were set aside. */
const aside = id => {
  const list = el('ol', { class: 'logs' }), note = el('p', { class: 'note' }), e = el('section', { class: 'card', 'aria-label': 'Set aside', hidden: true }, el('h2', {}, 'Set aside'), note, list);
  let last = 0;
  return { e, update: async b => {
    if (b.quarantined === last) return;
    last = b.quarantined;
    e.hidden = !last;
    if (!last) return;
    try {
      const { count: n, items } = await get(`experiments/${id}/quarantine`);
      text(note, `${count(n)} chunk${n === 1 ? '' : 's'} failed on several tries. The rest goes on; Retry tries them again.`);
      put(list, items.map(q => el('li', {}, el('b', {}, `${q.kind}${q.round ? ', round ' + (q.round + 1) : ''}, chunk ${q.chunk}`), q.subsets ? el('span', { class: 'note' }, ` subsets ${count(q.subsets[0])} to ${count(q.subsets[1] - 1)}`) : null, el('pre', { tabindex: 0 }, q.error))));
    } catch { last = -1; }
  } };
};

export const experiment = (main, id, does) => {
  const button = (name, action, key) => el('button', { type: 'button', class: 'act', 'data-act': action, 'aria-keyshortcuts': key, onclick: () => does(action, full) }, name);
  const acts = { pause: button('Pause', 'pause', 'P'), resume: button('Resume', 'resume', 'P'), retry: button('Retry', 'retry', 'R'), cancel: button('Cancel', 'cancel') };
  const report = el('a', { class: 'act', target: '_blank', rel: 'noopener' }, 'Open the report');
  const head = el('h1', {}, '\u2026'), lede = el('p', { class: 'lede' }), top = progress([...Object.values(acts), report]), tabs = el('div', { class: 'tabs', role: 'tablist', 'aria-label': 'Task and method', hidden: true });
  const body = el('div', { id: 'shown' }), reading = el('p', { class: 'reading', hidden: true }), crowd = workers(), logs = aside(id), where = el('p', { class: 'note where' });
  put(main, el('a', { class: 'back', href: '#/' }, '\u2190 All experiments'), head, lede, top.e, reading, tabs, body, logs.e, crowd.e, where);
  let full = id, shown = null, gone = false, wait = 0, loading = false;
  const brief = () => state.experiments.get(full) ?? [...state.experiments.values()].find(b => b.id.startsWith(id));
  const set = b => {
    if (!b || gone) return;
    full = b.id;
    text(head, b.name); document.title = `${done(b.share)} ${b.name} \u00b7 Ablate`;
    top.set(b); logs.update(b);
    const on = { pause: b.state === 'running', resume: b.state === 'paused', cancel: ['running', 'paused'].includes(b.state), retry: ['failed', 'cancelled'].includes(b.state) || (b.state === 'done' && b.accepted < b.planned) || (b.state === 'running' && (b.quarantined > 0 || !!b.error)) };
    const lost = document.activeElement?.dataset?.act;
    for (const [k, e] of Object.entries(acts)) e.hidden = !on[k];
    // Whoever paused by the button finds the focus on Resume.
    if (lost && acts[lost]?.hidden) (acts[{ pause: 'resume', resume: 'pause' }[lost]] ?? acts.retry)?.focus();
    report.hidden = !b.report; report.href = `/experiments/${b.id}/report.html`;
    text(where, b.output ? `Tables: ${b.output}` : '');
  };
  const live = () => {
    const l = state.live;
    if (shown) shown.update(l);
    const behind = l && !l.error && l.of > l.read + 16;
    reading.hidden = !(behind || l?.error);
    text(reading, l?.error ? 'Results can\u2019t be followed: ' + l.error : behind ? `Reading what is stored: ${count(l.read)} of ${count(l.of)} chunks` : '');
  };
  const load = async () => {
    if (loading) return;
    loading = true;
    try {
      const x = await get('experiments/' + id);
      if (gone) return;
      state.experiments.set(x.brief.id, x.brief);
      set(x.brief);
      text(lede, [x.model.title, `${count(x.model.heads)} heads`, x.model.dtype, x.tasks.map(t => `${t.name} (${count(t.examples)} examples)`).join(', '), x.brief.id.slice(0, 8)].join('  \u00b7  '));
      const show = i => {
        if (shown) shown.end();
        [...tabs.children].forEach((t, k) => { t.setAttribute('aria-selected', k === i); t.tabIndex = k === i ? 0 : -1; });
        if (x.groups.length > 1) { body.setAttribute('role', 'tabpanel'); body.setAttribute('aria-labelledby', 'tab-' + i); }
        shown = results(x.brief.id, x.groups[i], i);
        put(body, shown.e);
        shown.update(state.live);
      };
      tabs.hidden = x.groups.length < 2;
      put(tabs, x.groups.map((g, i) => el('button', { type: 'button', role: 'tab', id: 'tab-' + i, 'aria-controls': 'shown', onclick: () => show(i) }, `${g.task} \u00b7 ${g.method}${g.unit[0] === 'head' ? '' : ', ' + g.unit[1]}`)));
      tabs.onkeydown = ev => {
        const all = [...tabs.children], i = all.indexOf(document.activeElement), next = { ArrowRight: i + 1, ArrowLeft: i - 1 }[ev.key];
        if (next != null && all[next]) { ev.preventDefault(); all[next].focus(); show(next); }
      };
      if (x.groups.length) show(0);
    } catch (e) {
      if (gone) return;
      if (e.status === 404) { text(head, 'No such experiment'); text(lede, e.message); for (const a of [top.e, crowd.e]) a.hidden = true; } else wait = setTimeout(load, 1500);
    } finally { loading = false; }
  };
  set(brief());
  load(); crowd.update();
  return { title: '', id, key: () => full, act: (...names) => acts[names.find(n => acts[n] && !acts[n].hidden)]?.click(), redraw: () => shown?.redraw(), end: () => { gone = true; clearTimeout(wait); shown?.end(); },
    heard: what => {
      if (what === 'experiments') { set(brief()); live(); }
      if (what === 'workers') crowd.update();
      if (what === 'live') live();
      if (what === 'role') { crowd.update(); if (!shown) { clearTimeout(wait); load(); } }
    } };
};
