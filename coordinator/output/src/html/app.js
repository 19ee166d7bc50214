'use strict';
// Drawings and numbers are in the page already. This adds what is told on pointing (or by arrow keys), the order of
// matrices, and downloads. Text always goes in as text: nothing of the data is ever parsed as HTML.
(() => {
const tip = document.getElementById('tip');
const json = id => { const e = document.getElementById(id); return e && JSON.parse(e.textContent); };
const page = json('page');
const clamp = (v, low, high) => Math.max(low, Math.min(high, v));

// ---- numbers, as the page sets them ----
const raised = s => s.replace(/./g, c => c === '-' ? '⁻' : '⁰¹²³⁴⁵⁶⁷⁸⁹'[c]);
const number = v => {
  if (v == null || !isFinite(v)) return 'n/a';
  const a = Math.abs(v);
  if (a === 0) return '0';
  if (a >= 1e-3 && a < 1e5) return v.toFixed(clamp(2 - Math.floor(Math.log10(+a.toPrecision(3))), 0, 5)).replace('-', '−');
  const [m, e] = v.toExponential(1).split('e');
  return m.replace('-', '−').replace(/\.0$/, '') + '×10' + raised(e.replace('+', ''));
};
const signed = v => (v > 0 ? '+' : '') + number(v);

// ---- tips ----
// What is marked, and where what the keys have come to lies.
let shown = null, held = null;
const hide = () => { held = null; tip.hidden = true; if (shown) shown.classList.remove('at'); shown = null; };
const place = (x, y) => {
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 16 + width > innerWidth - 8 ? x - 16 - width : x + 16;
  const top = y + 18 + height > innerHeight - 8 ? y - 14 - height : y + 18;
  tip.style.transform = `translate(${Math.round(clamp(left, 8, Math.max(8, innerWidth - width - 8)))}px,${Math.round(Math.max(8, top))}px)`;
};
const tell = (text, x, y, mark) => {
  if (shown !== mark) { if (shown) shown.classList.remove('at'); if (mark) mark.classList.add('at'); shown = mark; }
  if (tip.textContent !== text) tip.textContent = text;
  tip.hidden = false;
  place(x, y);
};
const middle = mark => { const r = mark.getBoundingClientRect(); return [(r.left + r.right) / 2, (r.top + r.bottom) / 2]; };
document.addEventListener('pointermove', ev => {
  const pane = ev.target.closest?.('.pane');
  held = null;
  if (pane) return pointed(pane, ev);
  const mark = ev.target.closest?.('[data-tip]');
  if (mark) tell(mark.dataset.tip, ev.clientX, ev.clientY, mark); else if (!document.activeElement?.matches?.('svg[tabindex]')) hide();
});
document.addEventListener('pointerdown', ev => { if (!ev.target.closest?.('[data-tip], .pane')) hide(); });
document.addEventListener('scroll', () => { if (held) place(...held()); else hide(); }, { passive: true, capture: true });

// ---- keys: arrows go to the nearest mark on that side ----
const WAYS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
const next = (marks, from, [dx, dy]) => {
  const [x, y] = middle(from);
  let best = null, least = Infinity;
  for (const mark of marks) {
    if (mark === from) continue;
    const [mx, my] = middle(mark), along = (mx - x) * dx + (my - y) * dy, aside = Math.abs((mx - x) * dy) + Math.abs((my - y) * dx);
    if (along <= .5 || (dx && aside > 2 * along && aside > 12)) continue;
    const far = along + 3 * aside;
    if (far < least) { least = far; best = mark; }
  }
  return best;
};
for (const svg of document.querySelectorAll('.drawing svg')) {
  const marks = [...svg.querySelectorAll('[data-tip]')], pane = svg.querySelector('.pane');
  if (!marks.length && !pane) continue;
  svg.setAttribute('tabindex', '0');
  svg.setAttribute('aria-roledescription', 'figure; arrow keys read its numbers');
  let at = null;
  const show = mark => { at = mark; const r = mark.getBoundingClientRect(); if (r.top < 0 || r.bottom > innerHeight) mark.scrollIntoView({ block: 'center', behavior: 'instant' });
    held = () => middle(mark); tell(mark.dataset.tip, ...held(), mark); };
  svg.addEventListener('focus', () => { if (!svg.matches(':focus-visible')) return; if (pane) keyed(pane, null); else show(at || marks[0]); });
  svg.addEventListener('blur', hide);
  svg.addEventListener('keydown', ev => {
    if (ev.key === 'Escape') return hide();
    const way = WAYS[ev.key];
    if (!way && ev.key !== 'Home' && ev.key !== 'End') return;
    ev.preventDefault();
    if (pane) return keyed(pane, way || [0, 0]);
    // Marks may lie on one another, or none on that side: they are read in their order then.
    const to = ev.key === 'Home' ? marks[0] : ev.key === 'End' ? marks[marks.length - 1] :
      at ? next(marks, at, way) || marks[marks.indexOf(at) + way[0] + way[1]] : marks[0];
    if (to) show(to);
  });
}

// ---- matrices: every pair from packed half floats ----
const half = h => { const e = h >> 10 & 31, m = h & 1023, s = h >> 15 ? -1 : 1;
  return e === 31 ? (m ? NaN : s * Infinity) : e ? s * 2 ** (e - 15) * (1 + m / 1024) : s * 2 ** -14 * (m / 1024); };
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const unpacked = new Map();
const pairsOf = group => {
  if (!unpacked.has(group)) {
    const d = json('pairs-' + group);
    if (d) { const view = new DataView(bytes(d.packed).buffer), n = d.units.length; d.at = new Map(d.units.map((u, k) => [u, k]));
      d.pair = (a, b) => { let [i, j] = [d.at.get(a), d.at.get(b)]; if (i == null || j == null || i === j) return null; if (i > j) [i, j] = [j, i];
        const k = (i * (2 * n - i - 1) / 2 + j - i - 1) * 8, [v, low, high, q] = [0, 2, 4, 6].map(o => half(view.getUint16(k + o, true)));
        return isNaN(v) ? null : { i, j, value: v * d.most, low: low * d.most, high: high * d.most, q: Math.abs(q), resolved: q > 0 }; }; }
    unpacked.set(group, d);
  }
  return unpacked.get(group);
};
const relation = p => !p.resolved ? 'unresolved' : p.value > 0 ? 'redundant' : 'overlapping';
const told = (d, p) => `${d.names[p.i]} + ${d.names[p.j]}\ninteraction ${signed(p.value)} [${signed(p.low)}, ${signed(p.high)}] 95 %\n`
  + `alone ${signed(d.deltas[p.i])} and ${signed(d.deltas[p.j])}\nq ${p.q < 1e-4 ? '< 0.0001' : number(p.q)}: ${relation(p)}`;
const cells = new WeakMap();
const cellOf = pane => {
  if (!cells.has(pane)) {
    const [x, y, side, n] = pane.dataset.box.split(' ').map(Number), drawing = pane.closest('.drawing');
    cells.set(pane, { x, y, side, n, row: 0, column: 1, order: (drawing.dataset.order || '').split(' ').map(Number), d: pairsOf(pane.closest('figure').dataset.group) });
  }
  return cells.get(pane);
};
const cross = (pane, c) => {
  const svg = pane.ownerSVGElement, one = c.side / c.n;
  let g = svg.querySelector('.cross');
  if (!g) { g = document.createElementNS(svg.namespaceURI, 'g'); g.setAttribute('class', 'cross');
    for (let k = 0; k < 3; k++) { const r = document.createElementNS(svg.namespaceURI, 'rect'); r.setAttribute('fill', k < 2 ? 'var(--ink)' : 'none'); r.setAttribute('fill-opacity', '.07'); if (k === 2) r.setAttribute('stroke', 'var(--ink)'); g.append(r); } svg.append(g); }
  const set = (r, x, y, w, h) => { r.setAttribute('x', x); r.setAttribute('y', y); r.setAttribute('width', w); r.setAttribute('height', h); };
  set(g.children[0], c.x, c.y + c.row * one, c.side, one); set(g.children[1], c.x + c.column * one, c.y, one, c.side);
  set(g.children[2], c.x + c.column * one - .5, c.y + c.row * one - .5, one + 1, one + 1);
};
const read = (pane, c, x, y) => {
  const p = c.d && c.d.pair(c.order[c.row], c.order[c.column]);
  cross(pane, c);
  tell(p ? told(c.d, p) : c.d && c.row === c.column ? c.d.names[c.d.at.get(c.order[c.row])] : 'not measured', x, y, null);
};
const pointed = (pane, ev) => {
  const c = cellOf(pane), r = pane.getBoundingClientRect();
  if (!c.d) return;
  c.column = clamp(Math.floor((ev.clientX - r.left) / r.width * c.n), 0, c.n - 1);
  c.row = clamp(Math.floor((ev.clientY - r.top) / r.height * c.n), 0, c.n - 1);
  read(pane, c, ev.clientX, ev.clientY);
};
const keyed = (pane, way) => {
  const c = cellOf(pane), r = pane.getBoundingClientRect();
  if (!c.d) return;
  if (way) { c.column = clamp(c.column + way[0], 0, c.n - 1); c.row = clamp(c.row + way[1], 0, c.n - 1); }
  held = () => { const r = pane.getBoundingClientRect(); return [r.left + (c.column + .5) * r.width / c.n, r.top + (c.row + .5) * r.height / c.n]; };
  if (r.top < 0 || r.bottom > innerHeight) pane.scrollIntoView({ block: r.height > innerHeight ? 'nearest' : 'center', behavior: 'instant' });
  read(pane, c, ...held());
};

// ---- images follow the theme: their palettes are exchanged in place ----
const dark = matchMedia('(prefers-color-scheme: dark)'), print = matchMedia('print');
const PALETTE_AT = 33;
for (const image of document.querySelectorAll('image[data-plte]')) {
  const light = image.getAttribute('href');
  let other = null;
  const paint = () => {
    if (!dark.matches || print.matches) return image.setAttribute('href', light);
    if (!other) { const png = bytes(light.slice(light.indexOf(',') + 1)); png.set(bytes(image.dataset.plte), PALETTE_AT);
      let text = ''; for (let k = 0; k < png.length; k += 8192) text += String.fromCharCode(...png.subarray(k, k + 8192)); other = 'data:image/png;base64,' + btoa(text); }
    image.setAttribute('href', other);
  };
  image.light = light;
  paint(); dark.addEventListener('change', paint); print.addEventListener('change', paint);
}

// ---- downloads: what is in the page, in the light colours of the files beside it ----
const save = (name, blob) => { const a = document.createElement('a'); a.href = URL.createObjectURL(blob); a.download = name; document.body.append(a); a.click(); a.remove(); setTimeout(() => URL.revokeObjectURL(a.href), 10000); };
const alone = (drawing, fonts) => {
  const from = drawing.querySelector('svg'), svg = from.cloneNode(true);
  svg.removeAttribute('tabindex'); svg.removeAttribute('aria-roledescription'); svg.querySelector('.cross')?.remove();
  from.querySelectorAll('image').forEach((image, k) => svg.querySelectorAll('image')[k].setAttribute('href', image.light || image.getAttribute('href')));
  for (const e of svg.querySelectorAll('[data-tip],[data-box],[data-plte]')) for (const k of ['tip', 'box', 'plte']) e.removeAttribute('data-' + k);
  svg.querySelectorAll('.at').forEach(e => e.classList.remove('at'));
  const paper = document.createElementNS(svg.namespaceURI, 'rect');
  for (const [k, v] of [['width', '100%'], ['height', '100%'], ['fill', 'var(--paper)']]) paper.setAttribute(k, v);
  svg.prepend(paper);
  if (fonts) { const style = document.createElementNS(svg.namespaceURI, 'style'); style.textContent = document.getElementById('fonts').textContent; svg.prepend(style); }
  return new XMLSerializer().serializeToString(svg).replace(/var\(--([a-z0-9]+)\)/g, (_, name) => page.colours[name] || '#000');
};
const png = drawing => new Promise((done, fail) => {
  const [, , width, height] = drawing.querySelector('svg').getAttribute('viewBox').split(' ').map(Number), image = new Image();
  image.onload = () => { const canvas = document.createElement('canvas'); canvas.width = 2 * width; canvas.height = 2 * height;
    const on = canvas.getContext('2d'); on.imageSmoothingEnabled = false; on.drawImage(image, 0, 0, canvas.width, canvas.height); canvas.toBlob(b => b ? done(b) : fail(Error('no picture'))); };
  image.onerror = () => fail(Error('the figure is no picture'));
  image.src = 'data:image/svg+xml;charset=utf-8,' + encodeURIComponent(alone(drawing, true));
});
const cell = v => v == null ? '' : /[",\n]/.test(v) ? '"' + String(v).replaceAll('"', '""') + '"' : String(v);
const csv = (columns, rows) => new Blob([[columns, ...rows].map(r => r.map(cell).join(',')).join('\n') + '\n'], { type: 'text/csv' });
const pairsCsv = d => { const rows = [];
  for (let i = 0; i < d.units.length; i++) for (let j = i + 1; j < d.units.length; j++) { const p = d.pair(d.units[i], d.units[j]);
    if (p) rows.push([d.names[i], d.names[j], d.deltas[i], d.deltas[j], ...[p.value, p.low, p.high, p.q].map(v => isFinite(v) ? +v.toPrecision(3) : null), relation(p)]); }
  return csv(['a', 'b', 'delta_a', 'delta_b', 'interaction', 'ci_low', 'ci_high', 'q_value', 'relation'], rows); };
for (const figure of document.querySelectorAll('figure')) {
  const get = document.createElement('span'), drawings = [...figure.querySelectorAll('.drawing')], visible = () => drawings.find(d => !d.hidden);
  get.className = 'get';
  const button = (text, label, act) => { const b = document.createElement('button'); b.type = 'button'; b.textContent = text; b.setAttribute('aria-label', label); b.addEventListener('click', () => act(b)); get.append(b); return b; };
  if (drawings.length > 1) {
    const how = figure.querySelector('.how'), first = how.textContent;
    button('Forward order', 'Show in forward order', b => { hide(); const other = drawings[0].hidden; drawings[0].hidden = !other; drawings[1].hidden = other;
      how.textContent = other ? first : drawings[1].dataset.how; b.setAttribute('aria-pressed', !other); }).setAttribute('aria-pressed', false);
  }
  button('SVG', 'Save the figure as SVG', () => save(visible().dataset.name + '.svg', new Blob([alone(visible())], { type: 'image/svg+xml' })));
  button('PNG', 'Save the figure as PNG', () => png(visible()).then(b => save(visible().dataset.name + '.png', b)));
  const matrix = figure.querySelector('.pane') && document.getElementById('pairs-' + figure.dataset.group), own = document.getElementById('data-' + figure.id);
  if (own) button('CSV', 'Save the numbers as CSV', () => { const t = JSON.parse(own.textContent); save(figure.id + '.csv', csv(t.columns, t.rows)); });
  else if (matrix) button('CSV', 'Save the pairs as CSV', () => save(figure.id + '.csv', pairsCsv(pairsOf(figure.dataset.group))));
  figure.querySelector('figcaption').append(get);
}
})();
