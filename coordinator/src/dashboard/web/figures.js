// Figures that fill in while results come: the heat map of units, the matrix of pairs, the pruning curve. Each can be read by pointer, by touch
// and by keyboard; what is under the cursor is said in words below.
import { count, css, el, fmt, pct, pm, put, scale, sgn, sv, text } from './dom.js';

const calm = matchMedia('(prefers-reduced-motion: reduce)');
const FADE = 500;
const touch = matchMedia('(pointer: coarse)').matches, how = one => touch ? `Tap a ${one}.` : `Point at a ${one}, or use the arrow keys.`;

/** A canvas of cells with a cursor. `at(x, y)` gives what lies under a point of the canvas, `move(place, key)` what lies beside it. */
const board = (label, parts) => {
  const canvas = el('canvas', { tabindex: 0, role: 'img', 'aria-label': label });
  const words = el('p', { class: 'readout', 'aria-live': 'polite' }, parts.hint);
  let place = null, frame = 0;
  const go = next => {
    place = next;
    text(words, place == null ? parts.hint : parts.read(place));
    draw();
  };
  const draw = () => { if (!frame) frame = requestAnimationFrame(() => { frame = 0; if (parts.draw(canvas, place)) draw(); }); };
  const point = e => { const r = canvas.getBoundingClientRect(); return parts.at(e.clientX - r.left, e.clientY - r.top); };
  canvas.addEventListener('pointermove', e => { if (e.pointerType === 'mouse') { const p = point(e); if (p != null) go(p); } });
  canvas.addEventListener('pointerdown', e => { const p = point(e); if (p != null) go(p); });
  canvas.addEventListener('pointerleave', e => { if (e.pointerType === 'mouse' && document.activeElement !== canvas) go(null); });
  canvas.addEventListener('keydown', e => {
    if (!['ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown', 'Home', 'End'].includes(e.key)) return;
    e.preventDefault();
    const next = parts.move(place, e.key);
    if (next != null) go(next);
  });
  canvas.addEventListener('focus', () => { if (place == null && canvas.matches(':focus-visible')) go(parts.move(null, 'Home')); });
  canvas.addEventListener('blur', () => go(null));
  return { canvas, words, draw, again: () => { if (place != null) text(words, parts.read(place)); draw(); } };
};

/** Sizes a canvas to the pixels of the screen, and gives its context in units of the page. */
const paint = (canvas, w, h) => {
  const d = devicePixelRatio || 1;
  if (canvas.width !== Math.round(w * d) || canvas.height !== Math.round(h * d)) {
    canvas.width = Math.round(w * d); canvas.height = Math.round(h * d);
    canvas.style.width = w + 'px'; canvas.style.height = h + 'px';
  }
  const ctx = canvas.getContext('2d');
  ctx.setTransform(d, 0, 0, d, 0, 0);
  ctx.clearRect(0, 0, w, h);
  ctx.font = '12px ' + getComputedStyle(document.body).fontFamily;
  return ctx;
};

/** A legend of the colours. */
const ramp = (low, high) => {
  const bar = el('canvas', { class: 'ramp', width: 200, height: 1, 'aria-hidden': 'true' });
  const ends = [el('span'), el('span', {}, '0'), el('span')];
  const e = el('div', { class: 'legend' }, el('span', {}, low), el('div', { class: 'ramp-in' }, bar, el('div', { class: 'ends' }, ends)), el('span', {}, high));
  return { e, set: most => {
    const ctx = bar.getContext('2d'), s = scale(1);
    for (let x = 0; x < 200; x++) { ctx.fillStyle = `rgb(${s((x - 99.5) / 99.5)})`; ctx.fillRect(x, 0, 1, 1); }
    text(ends[0], most ? sgn(-most) : ''); text(ends[2], most ? sgn(most) : '');
  } };
};

/** Streams of a group's units as grids: [stream, layers, rows, unit at layer/row]; a set is a column of its own. */
const grids = units => {
  const all = new Map(), seen = new Map();
  units.forEach(([, stream, layer], i) => {
    const s = stream ?? 'sets', l = layer ?? i, key = s + '/' + l, row = seen.get(key) ?? 0;
    seen.set(key, row + 1);
    if (!all.has(s)) all.set(s, { stream: s, layers: 0, rows: 0, at: new Map() });
    const g = all.get(s);
    g.layers = Math.max(g.layers, l + 1 - (stream ? 0 : 0)); g.rows = Math.max(g.rows, row + 1);
    g.at.set(l * 4096 + row, i);
  });
  return [...all.values()];
};

export const heatMap = group => {
  const one = { head: 'head', kv_group: 'KV group', layer: 'layer', set: 'set' }[group.unit[0]] ?? 'unit';
  const rows = new Map(), born = new Map(), streams = grids(group.units);
  let resolved = new Set(), most = 0, width = 0, boxes = [];
  const layout = w => {
    width = w; boxes = [];
    let y = 0;
    for (const g of streams) {
      const named = streams.length > 1, left = 34, top = y + (named ? 24 : 4);
      const c = Math.max(3, Math.min(60, Math.floor((w - left - 4) / g.layers))), t = Math.max(3, Math.min(30, c * 2, Math.floor(600 / g.rows)));
      boxes.push({ ...g, left, top, c, t, named });
      y = top + g.rows * t + 40;
    }
    return y;
  };
  // Many layers are wider than a phone: what doesn't fit is scrolled to.
  const size = () => {
    const w = b.canvas.parentElement?.clientWidth || 320, h = layout(w);
    return [Math.max(w, ...boxes.map(g => g.left + g.layers * g.c + 4)), h];
  };
  const find = (box, l, r) => box.at.get(l * 4096 + r);
  const read = i => {
    const r = rows.get(i), name = group.units[i][0];
    if (!r) return `${name}: not measured yet`;
    const range = r[4] == null ? '' : ` [${sgn(r[4])}, ${sgn(r[5])}]`;
    return `${name}: \u0394 ${pm(r[2], r[3])}${range}; ${group.metric} ${fmt(r[1])} without it${resolved.has(i) ? '; resolved' : ''}`;
  };
  const draw = (canvas, place) => {
    const [w, h] = size(), ctx = paint(canvas, w, h), now = performance.now(), s = scale(most || 1);
    const ink = css('--ink'), soft = css('--soft'), card = css('--card'), blank = css('--blank');
    let moving = false;
    for (const box of boxes) {
      const { c, t, left, top, layers, rows: tall } = box, least = Math.min(c, t), gap = least > 12 ? 2 : least > 5 ? 1 : 0, r0 = least > 12 ? 4 : 0;
      ctx.fillStyle = soft;
      if (box.named) { ctx.textAlign = 'left'; ctx.fillText(box.stream, left, top - 9); }
      const each = size => Math.max(1, Math.ceil(22 / size));
      ctx.textAlign = 'center';
      for (let l = 0; l < layers; l += each(c)) ctx.fillText(l, left + (l + .5) * c - gap / 2, top + tall * t + 15);
      ctx.fillText(group.unit[0] === 'set' ? 'set' : 'layer', left + layers * c / 2, top + tall * t + 31);
      ctx.textAlign = 'right';
      if (tall > 1) for (let r = 0; r < tall; r += each(t)) ctx.fillText(r, left - 7, top + (r + .5) * t + 4 - gap / 2);
      for (const [key, i] of box.at) {
        const l = Math.floor(key / 4096), r = key % 4096, row = rows.get(i), x = left + l * c, y = top + r * t, W = c - gap, H = t - gap;
        ctx.fillStyle = blank;
        round(ctx, x, y, W, H, r0);
        if (!row || row[2] == null) continue;
        const age = calm.matches ? FADE : now - (born.get(i) ?? -FADE);
        if (age < FADE) moving = true;
        ctx.globalAlpha = Math.min(1, age / FADE);
        ctx.fillStyle = `rgb(${s(row[2])})`;
        round(ctx, x, y, W, H, r0);
        ctx.globalAlpha = 1;
        if (resolved.has(i) && least >= 9) {
          ctx.fillStyle = Math.sqrt(Math.abs(row[2]) / (most || 1)) > .55 ? card : ink;
          ctx.beginPath(); ctx.arc(x + W / 2, y + H / 2, Math.max(1.5, least / 12), 0, 7); ctx.fill();
        }
      }
      if (place != null) for (const [key, i] of box.at) if (i === place) {
        ctx.strokeStyle = ink; ctx.lineWidth = 2;
        ctx.strokeRect(left + Math.floor(key / 4096) * c - 1, top + key % 4096 * t - 1, Math.max(4, c - gap) + 2, Math.max(4, t - gap) + 2);
      }
    }
    return moving;
  };
  const b = board(`Effect of removing each ${one} alone, by layer`, {
    hint: `A dot marks what is resolved at q \u2264 0.05. ${how(one)}`,
    read, draw,
    at: (x, y) => {
      for (const box of boxes) {
        const l = Math.floor((x - box.left) / box.c), r = Math.floor((y - box.top) / box.t), i = find(box, l, r);
        if (l >= 0 && r >= 0 && l < box.layers && r < box.rows && i != null) return i;
      }
      return null;
    },
    move: (place, key) => {
      if (key === 'Home' || place == null) return 0;
      if (key === 'End') return group.units.length - 1;
      for (let k = 0; k < boxes.length; k++) for (const [at, i] of boxes[k].at) if (i === place) {
        const l = Math.floor(at / 4096), r = at % 4096, [dl, dr] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
        const next = find(boxes[k], l + dl, r + dr);
        if (next != null) return next;
        // From one stream to the next.
        const other = boxes[k + (dr > 0 ? 1 : dr < 0 ? -1 : 0)];
        return other && other !== boxes[k] ? find(other, Math.min(l, other.layers - 1), dr > 0 ? 0 : other.rows - 1) ?? place : place;
      }
      return 0;
    },
  });
  const legend = ramp('helps', 'hurts');
  const e = el('figure', { class: 'heat' }, el('div', { class: 'plate' }, b.canvas), b.words, legend.e);
  new ResizeObserver(() => { if ((b.canvas.parentElement?.clientWidth || 0) !== width) b.draw(); }).observe(e);
  return { e, rows, redraw: () => { legend.set(most); b.again(); }, update: view => {
    if (view.whole) { rows.clear(); born.clear(); }
    const now = performance.now();
    view.rows.forEach((r, k) => { if (!rows.has(r[0])) born.set(r[0], view.rows.length > 400 ? -FADE : now + Math.min(300, k * 8)); rows.set(r[0], r); });
    resolved = new Set(view.resolved);
    most = 0;
    for (const r of rows.values()) if (r[2] != null) most = Math.max(most, Math.abs(r[2]));
    legend.set(most);
    b.canvas.setAttribute('aria-label', `Effect of removing each ${one} alone, by layer: ${rows.size} of ${group.units.length} measured, ${resolved.size} resolved`);
    b.again();
  } };
};
const round = (ctx, x, y, w, h, r) => { if (!r) return ctx.fillRect(x, y, w, h); ctx.beginPath(); ctx.roundRect(x, y, w, h, r); ctx.fill(); };

export const pairMatrix = group => {
  const cells = new Map(), img = el('canvas');
  let bins = null, n = 0, most = 0, pad = 34, side = 0, stale = true;
  const layerOf = u => { const [name, s, l] = group.units[u] ?? []; return l == null ? name : (s === 'self' ? '' : s[0] + ' ') + l; };
  const rowName = r => {
    const from = bins.first[r], to = (bins.first[r + 1] ?? group.units.length) - 1;
    return from === to ? group.units[from][0] : `${group.units[from][0]} to ${group.units[to][0]}`;
  };
  const key = (r, c) => r * n + c;
  const cell = ([r, c]) => cells.get(r <= c ? key(r, c) : key(c, r));
  const bake = () => {
    stale = false;
    img.width = img.height = Math.max(1, n);
    const ctx = img.getContext('2d'), data = ctx.createImageData(Math.max(1, n), Math.max(1, n)), s = scale(most || 1);
    for (const [k, v] of cells) {
      const r = Math.floor(k / n), c = k % n, colour = s(v[2]);
      if (!colour) continue;
      for (const [y, x] of [[r, c], [c, r]]) { const p = 4 * (y * n + x); data.data.set(colour, p); data.data[p + 3] = 255; }
    }
    ctx.putImageData(data, 0, 0);
  };
  const draw = (canvas, place) => {
    const w = canvas.parentElement?.clientWidth || 320;
    side = Math.max(120, Math.min(w - pad - 4, 560));
    const ctx = paint(canvas, Math.max(w, side + pad + 4), side + pad + 6);
    if (stale) bake();
    ctx.fillStyle = css('--blank');
    ctx.fillRect(pad, pad, side, side);
    if (n) {
      ctx.imageSmoothingEnabled = false;
      ctx.drawImage(img, pad, pad, side, side);
      ctx.fillStyle = css('--card');
      const c = side / n;
      if (bins.rows === group.units.length) for (let i = 0; i < n; i++) ctx.fillRect(pad + i * c, pad + i * c, c, c);
      lines(ctx);
      if (place) { ctx.strokeStyle = css('--ink'); ctx.lineWidth = 2; ctx.strokeRect(pad + place[1] * c - 1, pad + place[0] * c - 1, Math.max(5, c) + 2, Math.max(5, c) + 2); }
    }
    ctx.strokeStyle = css('--line'); ctx.lineWidth = 1;
    ctx.strokeRect(pad - .5, pad - .5, side + 1, side + 1);
    return false;
  };
  const lines = ctx => {
    const starts = [];
    for (let r = 0; r < n; r++) { const l = layerOf(bins.first[r]); if (!starts.length || starts.at(-1)[1] !== l) starts.push([r, l]); }
    const c = side / n, each = Math.ceil(starts.length / Math.max(1, side / 26));
    ctx.fillStyle = css('--soft'); ctx.strokeStyle = css('--card'); ctx.lineWidth = starts.length > 60 ? 0 : 1;
    starts.forEach(([r, l], k) => {
      const end = starts[k + 1]?.[0] ?? n, mid = pad + (r + end) / 2 * c;
      if (k && starts.length <= 60) { ctx.beginPath(); ctx.moveTo(pad + r * c, pad); ctx.lineTo(pad + r * c, pad + side); ctx.moveTo(pad, pad + r * c); ctx.lineTo(pad + side, pad + r * c); ctx.stroke(); }
      if (k % each) return;
      ctx.textAlign = 'center'; ctx.fillText(l, mid, pad - 8);
      ctx.textAlign = 'right'; ctx.fillText(l, pad - 8, mid + 4);
    });
  };
  const read = place => {
    const [r, c] = place, v = cell(place);
    if (r === c && bins.rows === group.units.length) return rowName(r);
    const names = `${rowName(Math.min(r, c))} + ${rowName(Math.max(r, c))}`;
    if (!v) return names + ': not measured yet';
    if (v.length === 3) return `${names}: interaction ${sgn(v[2])}`;
    return `${names}: strongest ${sgn(v[2])} (${group.units[v[5]][0]} + ${group.units[v[6]][0]}), mean ${sgn(v[3])} of ${plural(v[4])}`;
  };
  const plural = k => count(k) + ' pairs';
  const b = board('Interactions of pairs', {
    hint: `Orange: losing both costs more than the sum. Blue: less. ${how('pair')}`,
    read, draw,
    at: (x, y) => {
      const c = Math.floor((x - pad) / side * n), r = Math.floor((y - pad) / side * n);
      return n && r >= 0 && c >= 0 && r < n && c < n ? [r, c] : null;
    },
    move: (place, key) => {
      if (!n) return null;
      const [r, c] = place ?? [0, Math.min(1, n - 1)], clamp = v => Math.max(0, Math.min(n - 1, v));
      if (!place || key === 'Home') return [0, Math.min(1, n - 1)];
      if (key === 'End') return [Math.max(0, n - 2), n - 1];
      const [dr, dc] = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key];
      return [clamp(r + dr), clamp(c + dc)];
    },
  });
  const legend = ramp('below 0', 'above 0');
  const e = el('figure', { class: 'matrix' }, el('div', { class: 'plate' }, b.canvas), b.words, legend.e);
  let width = 0;
  new ResizeObserver(() => { const w = e.clientWidth; if (w !== width) { width = w; b.draw(); } }).observe(e);
  return { e, redraw: () => { stale = true; legend.set(most); b.again(); }, update: view => {
    if (view.whole) { cells.clear(); most = 0; }
    bins = view.bins; n = bins.rows;
    for (const v of view.cells) { cells.set(key(v[0], v[1]), v); if (v[2] != null) most = Math.max(most, Math.abs(v[2])); }
    if (view.cells.length || view.whole) stale = true;
    legend.set(most);
    b.canvas.setAttribute('aria-label', `Interactions of pairs of ${group.unit[1]}: ${count(view.known)} of ${count(view.planned)} measured`);
    b.again();
  } };
};

const DASH = { greedy: '', importance: '7 4', gradient: '2 3', rollout: '10 3 2 3' };
/** Kinds of random orders, which are numbered: plain shuffles, and those matched per layer to greedy. */
const SHUFFLES = ['random', 'matched'], kindOf = order => SHUFFLES.find(k => order?.startsWith(k));
/** Pruning curves; while there are none yet, how far greedy is. */
export const curvePlot = group => {
  const box = el('div', { class: 'plate' }), words = el('p', { class: 'readout', 'aria-live': 'polite' }), e = el('figure', { class: 'curve' }, box, words);
  let view = null, width = 0, at = null;
  const draw = () => {
    if (!view) return;
    width = e.clientWidth || 320;
    const lines = view.lines.filter(l => l.points.length > 1), named = lines.filter(l => !kindOf(l.order)), random = lines.filter(l => kindOf(l.order));
    const walks = lines.length ? [] : view.walks.filter(w => w.points.length > 1);
    const shown = lines.length ? [...named, ...random] : walks;
    const retained = lines.length > 0 && !lines[0].flagged, pick = p => retained ? p[2] : p[1];
    const narrow = width < 520, W = width, H = narrow ? 260 : 340, L = 52, R = narrow ? 14 : 104, T = 14, B = 42;
    const ys = shown.flatMap(s => s.points.map(pick)).filter(v => v != null);
    if (!ys.length) { put(box, el('p', { class: 'wait' }, 'The curve begins with the first round of greedy.')); text(words, ''); return; }
    let lo = Math.min(...ys, retained ? 0 : Infinity), hi = Math.max(...ys, retained ? 1 : -Infinity);
    if (!(hi > lo)) { const d = Math.abs(hi) * .05 || .5; lo -= d; hi += d; }
    const raw = (hi - lo) / 4, mag = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 2.5, 5, 10].map(k => k * mag).find(k => k >= raw);
    const room = (hi - lo) * .04;
    if (!retained || lo < 0) lo -= room;
    hi += room;
    const units = walks[0] ? walks[0].rounds : 0, last = Math.max(...shown.flatMap(s => s.points.map(p => p[0])), units, 1);
    const xm = Math.min(1, Math.ceil(last / view.heads * 20) / 20), x = k => L + k / view.heads / xm * (W - L - R), y = v => T + (hi - v) / (hi - lo) * (H - T - B);
    const svg = sv('svg', { width: W, height: H, viewBox: `0 0 ${W} ${H}`, role: 'img', tabindex: 0, 'aria-label': label(lines, walks) });
    for (let v = Math.ceil(lo / step - 1e-9) * step; v <= hi; v += step) svg.append(sv('line', { class: 'grid', x1: L, x2: W - R, y1: y(v), y2: y(v) }),
      sv('text', { x: L - 8, y: y(v) + 4, 'text-anchor': 'end' }, retained ? pct(Math.abs(v) < 1e-9 ? 0 : v) : fmt(Math.abs(v) < step / 1e6 ? 0 : v)));
    const ticks = xm > .5 ? .2 : xm > .2 ? .1 : .05;
    for (let k = 0; k <= xm + 1e-9; k += ticks) svg.append(sv('text', { x: x(k * view.heads), y: H - B + 18, 'text-anchor': 'middle' }, pct(k)));
    svg.append(sv('text', { x: (L + W - R) / 2, y: H - 5, 'text-anchor': 'middle', class: 'name' }, 'share of heads removed'));
    const path = (s, attrs) => svg.append(sv('path', { d: s.points.filter(p => pick(p) != null).map((p, i) => (i ? 'L' : 'M') + x(p[0]).toFixed(1) + ' ' + y(pick(p)).toFixed(1)).join(''), ...attrs }));
    for (const s of random) path(s, { class: kindOf(s.order) });
    const marks = [];
    for (const s of named) { path(s, { class: 'order ' + s.order, 'stroke-dasharray': DASH[s.order] ?? '' }); marks.push([s.order, s.points.at(-1), s.order]); }
    for (const s of walks) { path(s, { class: 'order greedy' }); marks.push(['greedy', s.points.at(-1), 'greedy']); }
    for (const kind of SHUFFLES) {
      const far = random.filter(s => kindOf(s.order) === kind).map(s => s.points.at(-1)).sort((a, b) => pick(a) - pick(b));
      if (far.length) marks.push([kind, far[far.length >> 1], kind]);
    }
    const placed = marks.filter(m => m[1] && pick(m[1]) != null).map(m => ({ name: m[0], x: x(m[1][0]), y: y(pick(m[1])), kind: m[2] })).sort((a, b) => a.y - b.y);
    placed.forEach((m, i) => {
      m.label = i ? Math.max(m.y, placed[i - 1].label + 15) : m.y;
      svg.append(sv('circle', { class: 'end ' + m.kind, cx: m.x, cy: m.y, r: 3.4 }));
      if (!narrow) svg.append(sv('text', { class: 'label ' + m.kind, x: m.x + 9, y: m.label + 4 }, m.name));
    });
    const guide = sv('line', { class: 'guide', y1: T, y2: H - B, visibility: 'hidden' });
    svg.append(guide);
    const steps = [...new Set(shown.filter(s => !kindOf(s.order)).flatMap(s => s.points.map(p => p[0])))].sort((a, b) => a - b);
    const show = k => {
      at = k;
      guide.setAttribute('visibility', k == null ? 'hidden' : 'visible');
      if (k == null) return text(words, hint(lines, walks));
      guide.setAttribute('x1', x(k)); guide.setAttribute('x2', x(k));
      const said = (lines.length ? named : walks).map(s => { const p = s.points.find(p => p[0] === k); return p && `${s.order ?? 'greedy'} ${retained ? pct(p[2], 1) + ' (' + group.metric + ' ' + fmt(p[1]) + ')' : fmt(p[1])}${p[3] ? ', removes ' + p[3] : ''}`; });
      text(words, `${k} of ${view.heads} heads gone: ${said.filter(Boolean).join('; ')}`);
    };
    svg.addEventListener('pointermove', ev => {
      const r = svg.getBoundingClientRect(), k = (ev.clientX - r.left - L) / (W - L - R) * xm * view.heads;
      if (steps.length) show(steps.reduce((a, b) => Math.abs(b - k) < Math.abs(a - k) ? b : a));
    });
    svg.addEventListener('pointerleave', () => { if (document.activeElement !== svg) show(null); });
    svg.addEventListener('blur', () => show(null));
    svg.addEventListener('keydown', ev => {
      const i = steps.indexOf(at), next = { ArrowRight: i + 1, ArrowLeft: i < 0 ? steps.length - 1 : i - 1, Home: 0, End: steps.length - 1 }[ev.key];
      if (next == null || !steps.length) return;
      ev.preventDefault();
      show(steps[Math.max(0, Math.min(steps.length - 1, next))]);
    });
    const focused = box.contains(document.activeElement);
    put(box, svg);
    if (focused) svg.focus({ preventScroll: true });
    show(at != null && steps.includes(at) ? at : null);
  };
  const label = (lines, walks) => lines.length ? `Pruning curves of ${count(lines.length)} orders` : `Greedy so far: round ${walks[0]?.round ?? 0} of ${walks[0]?.rounds ?? 0}`;
  const hint = (lines, walks) => {
    if (lines.length) {
      const [plain, matched] = SHUFFLES.map(k => lines.filter(l => kindOf(l.order) === k).length);
      const thin = [plain && ` Thin grey: ${plain} random orders.`, matched && ` Dashed ochre: ${matched} random orders matched per layer, which remove as many ${group.unit[1]} of each layer as greedy.`].filter(Boolean).join('');
      return (lines[0].flagged ? `${group.metric}, as removing everything isn\u2019t measurably worse than removing nothing. ` : 'Retained: 100\u202f% is the whole model, 0\u202f% is no head. ').trim() + thin;
    }
    const w = walks[0];
    return w ? `Greedy so far: ${w.round} of ${w.rounds} rounds, ${group.metric} on ${w.half ? 'the half of the examples that it selects on' : 'all examples'}.` : '';
  };
  new ResizeObserver(() => { if (e.clientWidth !== width) draw(); }).observe(e);
  return { e, redraw: draw, update: v => { view = v; draw(); } };
};
