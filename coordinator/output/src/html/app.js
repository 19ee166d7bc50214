'use strict';
(() => {
const D = JSON.parse(document.getElementById('data').textContent);
const app = document.getElementById('app'), tip = document.getElementById('tip');
const NS = 'http://www.w3.org/2000/svg';
// Text always goes in as text nodes: nothing of the data is ever parsed as HTML.
const put = (e, kids) => { for (const k of kids.flat()) if (k != null) e.append(k); return e; };
const el = (tag, attrs = {}, ...kids) => { const e = document.createElement(tag);
  for (const k in attrs) e.setAttribute(k, attrs[k]); return put(e, kids); };
const sv = (tag, attrs = {}, ...kids) => { const e = document.createElementNS(NS, tag);
  for (const k in attrs) e.setAttribute(k, attrs[k]); return put(e, kids); };
const fmt = v => { if (v == null) return 'n/a'; const a = Math.abs(v); if (a === 0) return '0';
  return (a >= 1e-3 && a < 1e5 ? (a >= 1000 ? v.toFixed(0) : v.toPrecision(3)) : v.toExponential(1)).replace('-', '\u2212'); };
const sgn = v => (v > 0 ? '+' : '') + fmt(v);
const pct = v => v == null ? 'n/a' : (100 * v).toFixed(1).replace('-', '\u2212') + ' %';
const name = (g, i) => g.units[i][0];
const one = g => ({ head: 'head', kv_group: 'KV group', layer: 'layer', set: 'set' })[g.unit], many = g => one(g) + 's';
// Streams of a group's units: [stream, layers, rows of a layer, unit at layer/row]; none where units are sets.
const grids = g => { const all = new Map();
  g.units.forEach(([, s, l, r], i) => { if (s == null) return; if (!all.has(s)) all.set(s, [s, 0, 0, new Map()]);
    const v = all.get(s); v[1] = Math.max(v[1], l + 1); v[2] = Math.max(v[2], r + 1); v[3].set(l + '/' + r, i); });
  return [...all.values()]; };
const css = v => getComputedStyle(document.documentElement).getPropertyValue(v).trim();
const rgb = h => [1, 3, 5].map(i => parseInt(h.slice(i, i + 2), 16));
const scale = most => { const [m, u, d] = [css('--mid'), css('--up'), css('--down')].map(rgb);
  return v => { if (v == null) return null; const t = Math.sqrt(Math.min(1, Math.abs(v) / most)), c = v > 0 ? u : d;
    return m.map((x, i) => Math.round(x + (c[i] - x) * t)); }; };
const colour = c => c ? `rgb(${c})` : 'transparent';
const ramp = (s, most, low, high) => { const stops = [];
  for (let i = -10; i <= 10; i++) stops.push(colour(s(most * i / 10)));
  return el('span', {}, el('div', { class: 'ramp' }, el('div', { style: `background:linear-gradient(90deg,${stops})` }),
    el('span', {}, sgn(-most)), el('span', {}, '0'), el('span', {}, sgn(most))), el('div', {}, low + ' \u2190 \u2192 ' + high)); };
const show = (ev, text) => { tip.textContent = text; tip.hidden = false; const r = tip.getBoundingClientRect();
  const at = ev.target.getBoundingClientRect(), x = ev.clientX ?? at.right, y = ev.clientY ?? at.top;
  tip.style.left = Math.max(6, Math.min(x + 14, innerWidth - r.width - 8)) + 'px';
  tip.style.top = Math.max(6, y + 18 + r.height > innerHeight ? y - r.height - 12 : y + 18) + 'px'; };
const hide = () => { tip.hidden = true; };
const hover = (e, text) => { e.addEventListener('mousemove', v => show(v, text())); e.addEventListener('mouseleave', hide);
  e.addEventListener('focus', v => show(v, text())); e.addEventListener('blur', hide); return e; };
const redraw = []; // Figures whose colours are computed follow the theme.
const live = make => { let e = make(); redraw.push(() => { const n = make(); e.replaceWith(n); e = n; }); return e; };
const table = (heads, rows) => el('table', {}, el('thead', {}, el('tr', {}, heads.map(h => el('th', h[1] ? { class: 'r' } : {}, h[0])))),
  el('tbody', {}, rows.map(r => el('tr', {}, r.map((c, i) => el('td', heads[i][1] ? { class: 'r' } : {}, c))))));
const ci = (v, lo, hi) => [sgn(v), ' ', el('small', {}, '[' + sgn(lo) + ', ' + sgn(hi) + ']')];

function headMap(g) {
  const by = new Map(g.heads.map(h => [h[0], h]));
  const most = Math.max(...g.heads.map(h => Math.abs(h[2] ?? 0)), 1e-300), s = scale(most), box = el('div');
  const all = grids(g);
  for (const [stream, layers, heads, at] of all) {
    const c = Math.max(17, Math.min(40, Math.floor(900 / Math.max(layers, heads)))), left = 46, top = 12, W = left + layers * c + 8, H = top + heads * c + 44;
    const svg = sv('svg', { width: W, height: H, viewBox: `0 0 ${W} ${H}`, role: 'group', 'aria-label': `Delta of every ${one(g)} of stream ${stream}` });
    const each = n => Math.ceil(n / 26);
    for (let l = 0; l < layers; l += each(layers)) svg.append(sv('text', { x: left + (l + .5) * c, y: top + heads * c + 18, 'text-anchor': 'middle' }, '' + l));
    if (heads > 1) for (let h = 0; h < heads; h += each(heads)) svg.append(sv('text', { x: left - 8, y: top + (h + .5) * c + 4, 'text-anchor': 'end' }, '' + h));
    svg.append(sv('text', { x: left + layers * c / 2, y: H - 4, 'text-anchor': 'middle', class: 'name' }, 'layer'));
    if (heads > 1) svg.append(sv('text', { transform: `translate(12 ${top + heads * c / 2}) rotate(-90)`, 'text-anchor': 'middle', class: 'name' }, one(g)));
    for (let l = 0; l < layers; l++) for (let h = 0; h < heads; h++) {
      const i = at.get(l + '/' + h); if (i == null) continue;
      const r = by.get(i), x = left + l * c, y = top + h * c;
      const rect = sv('rect', { class: 'cell', x, y, width: c, height: c, rx: 3, fill: colour(r && s(r[2])), tabindex: 0 });
      hover(rect, () => r ? `${name(g, i)}\n\u0394 ${sgn(r[2])}   [${sgn(r[3])}, ${sgn(r[4])}]\nq = ${fmt(r[5])}\n${g.metric} without it: ${fmt(r[1])}` : name(g, i) + '\nnot measured');
      svg.append(rect);
      if (r && r[5] != null && r[5] <= .05) { const t = Math.sqrt(Math.abs(r[2]) / most);
        svg.append(sv('circle', { cx: x + c / 2, cy: y + c / 2, r: 2, fill: t > .55 ? css('--card') : css('--ink'), 'pointer-events': 'none' })); }
    }
    if (all.length > 1) box.append(el('h3', {}, stream));
    box.append(el('div', { class: 'wide' }, svg));
  }
  box.append(el('div', { class: 'legend' }, ramp(s, most, 'removing helps', 'removing hurts'), el('span', {}, '\u25CF q \u2264 0.05'), el('span', {}, 'colour by square root')));
  return box;
}

function pairMatrix(g) {
  const n = g.units.length, P = g.pairs, m = P.length / 5, index = new Map();
  const abs = []; for (let k = 0; k < m; k++) { index.set(P[5 * k] * n + P[5 * k + 1], k); if (P[5 * k + 2] != null) abs.push(Math.abs(P[5 * k + 2])); }
  abs.sort((a, b) => a - b); const most = Math.max(abs[Math.floor((abs.length - 1) * .999)] || 0, 1e-300), s = scale(most);
  const size = 620, pad = 44, px = Math.max(1, Math.ceil(1240 / n)), img = document.createElement('canvas'); img.width = img.height = n;
  const c2 = img.getContext('2d'), data = c2.createImageData(n, n), mid = rgb(css('--card'));
  for (let i = 0; i < n * n; i++) data.data.set([...mid, 255], 4 * i);
  for (let k = 0; k < m; k++) { const a = P[5 * k], b = P[5 * k + 1], c = s(P[5 * k + 2]); if (!c) continue;
    // Above the diagonal every pair, below it only those that are resolved.
    data.data.set([...c, 255], 4 * (a * n + b));
    data.data.set([...(P[5 * k + 4] != null && P[5 * k + 4] <= .05 ? c : s(0)), 255], 4 * (b * n + a)); }
  c2.putImageData(data, 0, 0);
  const cv = el('canvas', { width: n * px, height: n * px, style: `width:100%;height:100%`, 'aria-label': 'Interaction of every pair of ' + many(g), role: 'img' });
  const ctx = cv.getContext('2d'); ctx.imageSmoothingEnabled = false; ctx.drawImage(img, 0, 0, n * px, n * px);
  ctx.strokeStyle = css('--line'); ctx.lineWidth = 1.5; const ticks = []; // Units of one layer stand side by side; a set stands alone.
  g.units.forEach(([, s, l], i) => { const t = ticks[ticks.length - 1], label = s == null ? i + 1 : l, of = s ?? i;
    if (t && t[3] === of && t[2] === label) t[1]++; else ticks.push([i, 1, label, of]); });
  for (const [base] of ticks) { ctx.beginPath(); ctx.moveTo(base * px, 0); ctx.lineTo(base * px, n * px); ctx.moveTo(0, base * px); ctx.lineTo(n * px, base * px); ctx.stroke(); }
  const at = ev => { const r = cv.getBoundingClientRect(), j = Math.floor((ev.clientX - r.left) / r.width * n), i = Math.floor((ev.clientY - r.top) / r.height * n);
    if (i < 0 || j < 0 || i >= n || j >= n) return hide(); const a = Math.min(i, j), b = Math.max(i, j), k = index.get(a * n + b);
    if (a === b) return show(ev, name(g, a)); if (k == null) return show(ev, `${name(g, a)} + ${name(g, b)}\nnot embedded`);
    const v = P[5 * k + 2], h = P[5 * k + 3], q = P[5 * k + 4], rel = q != null && q <= .05 ? (v > 0 ? 'redundant' : 'overlapping') : 'unresolved';
    show(ev, `${name(g, a)} + ${name(g, b)}\ninteraction ${sgn(v)} \u00B1 ${fmt(h)}\nq = ${fmt(q)}: ${rel}`); };
  cv.addEventListener('mousemove', at); cv.addEventListener('mouseleave', hide);
  const W = size + pad, svg = sv('svg', { viewBox: `0 0 ${W} ${W}`, style: 'position:absolute;inset:0;width:100%;height:100%;pointer-events:none' });
  const every = Math.ceil(ticks.length / 16);
  ticks.forEach(([b, h, l], k) => { if (k % every) return; const p = pad + (b + h / 2) / n * size;
    svg.append(sv('text', { x: pad - 7, y: p + 4, 'text-anchor': 'end' }, '' + l), sv('text', { x: p, y: pad - 8, 'text-anchor': 'middle' }, '' + l)); });
  svg.append(sv('text', { x: pad + size / 2, y: 12, 'text-anchor': 'middle', class: 'name' }, g.unit === 'set' ? 'number of one set' : g.unit === 'layer' ? 'one layer' : 'layer of one ' + one(g)),
    sv('text', { transform: `translate(11 ${pad + size / 2}) rotate(-90)`, 'text-anchor': 'middle', class: 'name' }, g.unit === 'set' ? 'number of the other' : g.unit === 'layer' ? 'the other layer' : 'layer of the other'),
    sv('rect', { x: pad, y: pad, width: size, height: size, fill: 'none', stroke: css('--line') }));
  return el('div', {}, el('div', { style: `position:relative;max-width:${W}px;aspect-ratio:1` },
    el('div', { style: `position:absolute;left:${100 * pad / W}%;top:${100 * pad / W}%;width:${100 * size / W}%;height:${100 * size / W}%` }, cv), svg),
    el('div', { class: 'legend' }, ramp(s, most, 'overlapping', 'redundant'), el('span', {}, 'colour by square root')));
}

function curvePlot(g, f) {
  const N = D.heads, ret = !f.flagged, at = p => ret ? p[2] : p[1], W = 940, H = 420, L = 62, R = 118, T = 16, B = 50;
  const pts = f.curves.map(c => ({ order: c.order, p: c.points.filter(p => at(p) != null) })), ys = pts.flatMap(c => c.p.map(at));
  let lo = Math.min(...ys, ret ? 0 : Infinity), hi = Math.max(...ys, ret ? 1 : -Infinity);
  if (!(hi > lo)) { lo -= .5; hi += .5; }
  const raw = (hi - lo) / 5, mag = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 2.5, 5, 10].map(k => k * mag).find(k => k >= raw);
  lo = Math.floor(lo / step) * step; hi = Math.ceil(hi / step - 1e-9) * step;
  const last = Math.max(...pts.flatMap(c => c.p.map(p => p[0])), 1), xm = Math.min(1, Math.ceil(last / N * 10) / 10);
  const x = r => L + r / N / xm * (W - L - R), y = v => T + (hi - v) / (hi - lo) * (H - T - B);
  const svg = sv('svg', { width: W, height: H, viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': 'Pruning curves' });
  for (let v = lo; v <= hi + step / 2; v += step) svg.append(sv('line', { x1: L, x2: W - R, y1: y(v), y2: y(v), stroke: css('--grid') }),
    sv('text', { x: L - 9, y: y(v) + 4, 'text-anchor': 'end' }, ret ? Math.round(v * 100) + ' %' : fmt(Math.abs(v) < step / 1e6 ? 0 : v)));
  for (let k = 0; k <= xm + 1e-9; k += .1) svg.append(sv('text', { x: x(k * N), y: H - B + 20, 'text-anchor': 'middle' }, Math.round(k * 100) + ' %'));
  if (.79 <= last / N + .02) svg.append(sv('line', { x1: x(.79 * N), x2: x(.79 * N), y1: T, y2: H - B, stroke: css('--soft'), 'stroke-dasharray': '3 4' }),
    sv('text', { x: x(.79 * N) - 5, y: T + 11, 'text-anchor': 'end' }, '79 %'));
  svg.append(sv('text', { x: (L + W - R) / 2, y: H - 6, 'text-anchor': 'middle', class: 'name' }, 'share of heads removed'),
    sv('text', { transform: `translate(13 ${(T + H - B) / 2}) rotate(-90)`, 'text-anchor': 'middle', class: 'name' }, ret ? 'retained' : g.metric));
  const line = (p, a) => svg.append(sv('path', { d: p.map((q, i) => (i ? 'L' : 'M') + x(q[0]).toFixed(1) + ' ' + y(at(q)).toFixed(1)).join(''), fill: 'none', 'stroke-linejoin': 'round', ...a }));
  const random = pts.filter(c => c.order.startsWith('random')), named = pts.filter(c => !c.order.startsWith('random')), col = { greedy: css('--up'), importance: css('--down') };
  let mid = [];
  if (random.length) { const by = new Map(); for (const c of random) for (const p of c.p) by.has(p[0]) ? by.get(p[0]).push(at(p)) : by.set(p[0], [at(p)]);
    const xs = [...by.keys()].sort((a, b) => a - b), q = (v, k) => { v.sort((a, b) => a - b); const i = k * (v.length - 1), j = Math.floor(i); return v[j] + (i - j) * ((v[j + 1] ?? v[j]) - v[j]); };
    const band = k => xs.map(r => `${x(r).toFixed(1)} ${y(q(by.get(r), k)).toFixed(1)}`);
    svg.append(sv('path', { d: 'M' + [...band(.05), ...band(.95).reverse()].join('L') + 'Z', fill: css('--band'), 'fill-opacity': .18 }));
    for (const c of random) line(c.p, { stroke: css('--band'), 'stroke-width': .8, 'stroke-opacity': .45 });
    mid = xs.map(r => { const v = q(by.get(r), .5); return [r, v, v]; }); line(mid, { stroke: css('--band'), 'stroke-width': 2, 'stroke-dasharray': '6 4' }); }
  for (const c of named) line(c.p, { stroke: col[c.order] || css('--accent'), 'stroke-width': 2.6 });
  const ends = named.map(c => [c.order, c.p[c.p.length - 1], col[c.order] || css('--accent')]); if (mid.length) ends.push(['random', mid[mid.length - 1], css('--band')]);
  const marks = ends.filter(e => e[1]).map(e => [e[0], y(at(e[1])), e[2], x(e[1][0])]).sort((a, b) => a[1] - b[1]);
  marks.forEach((m, i) => { m[4] = i ? Math.max(m[1], marks[i - 1][4] + 16) : m[1];
    svg.append(sv('circle', { cx: m[3], cy: m[1], r: 3.4, fill: m[2] }), sv('text', { x: m[3] + 10, y: m[4] + 4, style: `fill:${m[2]};font-weight:600;font-size:13px` }, m[0])); });
  const guide = sv('line', { y1: T, y2: H - B, stroke: css('--soft'), visibility: 'hidden' }), pane = sv('rect', { x: L, y: T, width: W - L - R, height: H - T - B, fill: 'transparent' });
  pane.addEventListener('mousemove', ev => { const r = svg.getBoundingClientRect(), k = ((ev.clientX - r.left) / r.width * W - L) / (W - L - R) * xm * N, near = p => p.reduce((a, b) => Math.abs(b[0] - k) < Math.abs(a[0] - k) ? b : a);
    const rows = named.filter(c => c.p.length).map(c => { const p = near(c.p); return [p[0], `${c.order}: ${ret ? pct(p[2]) + ', ' : ''}${g.metric} ${fmt(p[1])}${p[3] ? '\n   removes ' + p[3] : ''}`]; });
    if (mid.length) { const p = near(mid); rows.push([p[0], `random (median of ${random.length}, at ${p[0]}): ${ret ? pct(p[2]) : fmt(p[1])}`]); }
    if (!rows.length) return; guide.setAttribute('x1', x(rows[0][0])); guide.setAttribute('x2', x(rows[0][0])); guide.setAttribute('visibility', 'visible');
    show(ev, `${rows[0][0]} of ${N} heads removed (${pct(rows[0][0] / N)})\n` + rows.map(r => r[1]).join('\n')); });
  pane.addEventListener('mouseleave', () => { hide(); guide.setAttribute('visibility', 'hidden'); }); svg.append(guide, pane);
  return el('div', {}, el('div', { class: 'wide' }, svg), random.length ? el('div', { class: 'legend' }, el('span', {}, `Thin lines: ${random.length} random orders; band: their 5th to 95th percentile; dashed: their median.`)) : null);
}

const stat = (v, label) => el('div', { class: 'stat' }, el('b', {}, v), el('span', {}, label));
const title = g => g.task + (D.groups.filter(o => o.task === g.task).length > 1 ? ' · ' + g.method + (g.unit === 'head' ? '' : ', ' + many(g)) : '');
app.append(el('header', { class: 'top' }, el('p', { class: 'eyebrow' }, 'Ablate report'), el('h1', {}, D.name),
  el('p', { class: 'lede' }, `Which of the ${D.heads} attention heads of ${D.model} do the work, which stand in for each other, and how many can go.`),
  el('nav', { 'aria-label': 'Sections' }, D.groups.map((g, i) => el('a', { href: '#t' + i }, title(g))), el('a', { href: '#provenance' }, 'Provenance'))));
for (const w of D.warnings) app.append(el('p', { class: 'warn' }, w));
D.groups.forEach((g, gi) => {
  const greedy = g.families.flatMap(f => f.facts).find(f => f[0] === 'greedy'), sec = el('section', { class: 'task', id: 't' + gi });
  sec.append(el('p', { class: 'eyebrow' }, `${(g.kind || '').replaceAll('_', ' ')} · ${g.method} ablation${g.unit === 'head' ? '' : ' of ' + many(g)}`), el('h2', {}, title(g)),
    el('ul', { class: 'findings' }, g.findings.map(f => el('li', {}, f))));
  for (const w of g.warnings) sec.append(el('p', { class: 'warn' }, w));
  const sig = g.heads.filter(h => h[5] != null && h[5] <= .05).length;
  sec.append(el('div', { class: 'stats' }, stat(fmt(g.baseline), g.metric + ' with every head'), g.floor != null ? stat(fmt(g.floor), g.metric + ' with none') : null,
    g.heads.length ? stat(`${sig} / ${g.heads.length}`, many(g) + ' with a resolved effect') : null,
    g.pair_counts[0] ? stat('' + g.pair_counts[1], `redundant pairs of ${g.pair_counts[0]}`) : null,
    greedy && greedy[1] != null ? stat(pct(greedy[1]), 'retained with 79 % removed (greedy)') : null, stat('' + g.examples, `examples in ${g.clusters} clusters`)));
  const how = g.bootstrap ? `Intervals: paired bootstrap over ${g.bootstrap}, 1,000 resamples.` : 'Intervals: paired by example, clustered by document.';
  if (g.heads.length) { const top = g.heads.filter(h => h[2] != null).sort((a, b) => b[2] - a[2]).slice(0, g.unit === 'set' ? 1000 : 10);
    const sets = g.unit === 'set', map = sets ? null : live(() => headMap(g)), list = table([[one(g)], ['\u0394 [95 % interval]', 1], ['q', 1]], top.map(h => [name(g, h[0]), ci(h[2], h[3], h[4]), fmt(h[5])]));
    const beside = !sets && grids(g).reduce((n, s) => n + s[1], 0) <= 16; // A narrow map leaves room for the list.
    sec.append(el('div', { class: 'card' }, el('h3', {}, `Every ${one(g)}, removed alone`),
      el('p', { class: 'note' }, `\u0394: how much worse ${g.metric} gets (${g.lower ? 'it rises' : 'it falls'} by this much). ${how}`),
      sets ? el('div', { class: 'wide' }, list) : beside ? el('div', { class: 'two map' }, map, el('div', { class: 'wide' }, el('h3', {}, 'Most important ' + many(g)), list)) : map));
    if (!beside && !sets) sec.append(el('div', { class: 'card' }, el('h3', {}, 'Most important ' + many(g)), el('div', { class: 'wide' }, list))); }
  if (g.pair_counts[0]) sec.append(el('div', { class: 'card' }, el('h3', {}, 'Every pair, removed together'),
    el('p', { class: 'note' }, 'Interaction \u0394(ab) \u2212 \u0394(a) \u2212 \u0394(b). Above the diagonal every pair, below it only those resolved at q \u2264 0.05.' + (g.pairs_cut ? ' Too many pairs for one page: only the strongest resolved ones are shown.' : '')),
    el('div', { class: 'two' }, live(() => pairMatrix(g)), el('div', {}, el('h3', {}, 'Most redundant pairs'),
      g.top_pairs.length ? table([['pair'], ['interaction [95 % interval]', 1], ['', 1]], g.top_pairs.map(p => [name(g, p[0]) + ' + ' + name(g, p[1]), ci(p[2], p[3], p[4]), p[6]])) : el('p', { class: 'note' }, 'No interaction above 0.')))));
  for (const f of g.families) sec.append(el('div', { class: 'card' }, el('h3', {}, 'Pruning curve' + (f.objective && f.objective !== g.task ? ', greedy for ' + f.objective : '')),
    el('p', { class: 'note' }, (f.flagged ? `${g.metric} itself, because removing every head isn't measurably worse than removing none. ` : `Retained = (${g.metric} \u2212 ${fmt(f.floor)}) / (${fmt(f.start)} \u2212 ${fmt(f.floor)}): 100 % is the whole model, 0 % is no head. `) +
      (f.half != null ? 'Measured on the half of the documents that greedy did not select on.' : 'Measured on all examples, the same that greedy selected on.')), live(() => curvePlot(g, f)),
    f.flagged ? null : el('div', { class: 'wide', style: 'margin-top:20px' }, table([['order'], ['retained at 79 %', 1], ['\u2265 99 % up to', 1], ['\u2265 95 % up to', 1], ['\u2265 90 % up to', 1], ['mean retained', 1]], f.facts.map(r => [r[0], ...r.slice(1).map(pct)])))));
  app.append(sec);
});
if (D.agreement.length) app.append(el('section', { class: 'task', id: 'agreement' }, el('h2', {}, 'Do the scores agree?'),
  el('p', { class: 'note' }, 'Rank agreement of the deltas of heads or other units. Within layers: the mean over layers, free of the effect of depth.'),
  el('div', { class: 'card wide' }, table([['score'], ['and score'], ['scope'], ['Spearman [95 % interval]', 1], ['Kendall \u03C4-b', 1]],
    D.agreement.map(a => [a[0], a[1], a[2].replace('_', ' '), ci(a[3], a[5], a[6]), fmt(a[4])])))));
const dl = []; const row = (k, ...v) => dl.push(el('dt', {}, k), el('dd', {}, v));
row('Model', `${D.model} (${D.arch}, ${D.dtype})`); row('Weights', el('code', {}, 'sha256 ' + D.weights)); row('Experiment', el('code', {}, D.id));
for (const [n, k, e, h] of D.data) row('Data: ' + n, `${k.replaceAll('_', ' ')}, ${e} examples, `, el('code', {}, 'blake3 ' + h));
row('Devices', Object.entries(D.devices).map(([k, v]) => el('div', {}, `${k} (${v} chunks)`)));
row('Versions', [...Object.entries(D.versions).map(([k, v]) => k + ' ' + v), 'numerics ' + D.engine].join(', ')); row('Seed', '' + D.seed);
row('Chunks', `${D.chunks.planned} planned, ${D.chunks.computed} computed, ${D.chunks.accepted} accepted, ${D.chunks.duplicate} duplicate${D.quarantined ? ', ' + D.quarantined + ' shards quarantined' : ''}`);
row('Complete', D.partial ? 'no: chunks are missing' : 'yes; every subset was computed exactly, none was screened');
app.append(el('section', { class: 'task', id: 'provenance' }, el('h2', {}, 'Provenance'), el('div', { class: 'card' }, el('dl', {}, dl))),
  el('footer', {}, 'q: Benjamini\u2013Hochberg over all heads (or other units), or all pairs, of a task. Tables of every number lie beside this file.'));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => redraw.forEach(f => f()));
})();
