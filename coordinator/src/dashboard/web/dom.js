// Making elements, and saying numbers. Text always goes in as text nodes: nothing that was received is parsed as HTML.
const NS = 'http://www.w3.org/2000/svg';
const fill = (e, attrs, kids) => {
  for (const [k, v] of Object.entries(attrs)) {
    if (v == null || v === false) continue;
    if (k.startsWith('on')) e.addEventListener(k.slice(2), v); else e.setAttribute(k, v === true ? '' : v);
  }
  for (const k of kids.flat(9)) if (k != null && k !== false) e.append(k);
  return e;
};
export const el = (tag, attrs = {}, ...kids) => fill(document.createElement(tag), attrs, kids);
export const sv = (tag, attrs = {}, ...kids) => fill(document.createElementNS(NS, tag), attrs, kids);
export const put = (e, ...kids) => { e.replaceChildren(...kids.flat(9).filter(k => k != null && k !== false)); return e; };
/** Sets text only where it differs, so that nothing is read out or laid out anew. */
export const text = (e, s) => { if (e.textContent !== s) e.textContent = s; return e; };
export const $ = id => document.getElementById(id);

const minus = s => s.replace('-', '\u2212');
export const fmt = v => {
  if (v == null) return 'n/a';
  const a = Math.abs(v);
  if (a === 0) return '0';
  return minus(a >= 1e-3 && a < 1e5 ? (a >= 1000 ? v.toFixed(0) : v.toPrecision(3)) : v.toExponential(1));
};
export const sgn = v => (v > 0 ? '+' : '') + fmt(v);
/** A value with its standard error, to two digits of that. */
export const pm = (v, se) => {
  if (v == null || se == null || !(se > 0)) return sgn(v);
  const digits = 1 - Math.floor(Math.log10(se));
  if (digits > 6 || digits < 0) return sgn(v) + ' \u00b1 ' + fmt(se);
  return minus((v > 0 ? '+' : '') + v.toFixed(digits)) + ' \u00b1 ' + se.toFixed(digits);
};
export const pct = (v, digits = 0) => v == null ? 'n/a' : minus((100 * v).toFixed(digits)) + '\u202f%';
export const count = n => n.toLocaleString('en').replaceAll(',', '\u202f');
/** A share of work that isn't through is never 100 %. */
export const done = share => share >= 1 ? '100\u202f%' : (share >= .995 ? '99.9' : (share * 100).toFixed(share < .0995 ? 1 : 0)) + '\u202f%';
export const time = s => {
  if (s == null) return null;
  if (s < 1) return 'under a second';
  if (s < 59.5) return `${Math.round(s)}\u202fs`;
  // Rounded first, so that no part comes to 60.
  const whole = Math.round(s), minutes = Math.round(s / 60);
  if (whole < 600) return `${Math.floor(whole / 60)}\u202fmin ${whole % 60}\u202fs`;
  if (minutes < 60) return `${minutes}\u202fmin`;
  if (s < 172800) return `${Math.floor(minutes / 60)}\u202fh ${minutes % 60}\u202fmin`;
  return `${Math.round(s / 86400)} days`;
};
export const rate = v => v == null ? null : (v >= 10 ? count(Math.round(v)) : v.toFixed(v >= 1 ? 1 : 2)) + '/s';
export const plural = (n, one, many = one + 's') => `${count(n)} ${n === 1 ? one : many}`;

export const css = v => getComputedStyle(document.documentElement).getPropertyValue(v).trim();
const rgb = h => [1, 3, 5].map(i => parseInt(h.slice(i, i + 2), 16));
/** Orange above 0, blue below, paper at 0, by the square root: both are told apart with every kind of colour vision. */
export const scale = most => {
  const [m, u, d] = [css('--zero'), css('--up'), css('--down')].map(rgb);
  return v => {
    if (v == null) return null;
    const t = Math.sqrt(Math.min(1, Math.abs(v) / most)), c = v > 0 ? u : d;
    return m.map((x, i) => Math.round(x + (c[i] - x) * t));
  };
};

const STATES = {
  running: ['\u25b6', 'running'], paused: ['\u2016', 'paused'], done: ['\u2713', 'done'],
  failed: ['\u2715', 'failed'], cancelled: ['\u25a0', 'cancelled'],
};
/** A state by sign and word, not by colour alone. */
export const chip = (e, state, busy) => {
  const [sign, word] = STATES[state] ?? ['?', state];
  const key = word + (busy ? '+' : '');
  if (e.dataset.state !== key) {
    e.dataset.state = key;
    e.className = 'chip ' + state;
    put(e, el('span', { 'aria-hidden': 'true' }, sign), busy ? word + ', ' + busy : word);
  }
  return e;
};

let saying = 0;
/** A short word at the foot of the page, read out too. */
export const say = (words, kind = '') => {
  const box = $('say');
  box.className = 'show ' + kind;
  text(box, words);
  clearTimeout(saying);
  saying = setTimeout(() => { box.className = ''; box.textContent = ''; }, kind === 'bad' ? 9000 : 4000);
};
