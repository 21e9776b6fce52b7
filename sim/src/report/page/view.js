// What part of the run is seen, and what is picked, found or hidden in it.

const LEFT = 118;
const RIGHT = 14;
const SHORTEST = 200;

const view = { t0: 0, t1: END, width: 800, height: 500, scroll: 0 };
const state = {
  hidden: new Set(['info']),
  found: new Set(), query: '', selected: null, hover: null, violation: null, cursor: null,
};
let redraw = () => {};
let whenMoved = () => {};

function plotWidth() { return Math.max(view.width - LEFT - RIGHT, 50); }
function xOf(t) { return LEFT + (t - view.t0) / (view.t1 - view.t0) * plotWidth(); }
function tOf(x) { return view.t0 + (x - LEFT) / plotWidth() * (view.t1 - view.t0); }

function look(t0, t1) {
  const span = Math.min(Math.max(t1 - t0, SHORTEST), END * 1.02);
  const middle = (t0 + t1) / 2;
  let from = middle - span / 2;
  from = Math.max(-END * 0.01, Math.min(from, END * 1.01 - span));
  view.t0 = from;
  view.t1 = from + span;
  whenMoved();
  redraw();
}

function zoom(factor, around) {
  const at = around === undefined ? (view.t0 + view.t1) / 2 : around;
  look(at - (at - view.t0) * factor, at + (view.t1 - at) * factor);
}

function pan(share) {
  const by = (view.t1 - view.t0) * share;
  look(view.t0 + by, view.t1 + by);
}

let flight = 0;
const still = matchMedia('(prefers-reduced-motion: reduce)').matches;

// Moves there in a quarter of a second, so that people see where they are taken.
function fly(t0, t1) {
  const from = { t0: view.t0, t1: view.t1 };
  const mine = ++flight;
  if (still) return look(t0, t1);
  const began = performance.now();
  const step = now => {
    if (mine !== flight) return;
    const share = Math.min(Math.max((now - began) / 260, 0), 1);
    const eased = 1 - (1 - share) ** 3;
    look(from.t0 + (t0 - from.t0) * eased, from.t1 + (t1 - from.t1) * eased);
    if (share < 1) requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

function flyWhole() { fly(-END * 0.005, END * 1.005); }

// All of these events with some air around them.
function flyTo(list) {
  const t0 = Math.min(...list.map(i => events[i].t0));
  const t1 = Math.max(...list.map(i => events[i].t1));
  const air = Math.max((t1 - t0) * 0.25, 150000);
  fly(t0 - air, t1 + air);
}

function isShown(e) { return !state.hidden.has(e.cls); }

// 0 to 1: what is neither found nor part of the violation that is looked at stands back.
function strength(i) {
  if (state.query && !state.found.has(i)) return 0.15;
  return 1;
}

function seconds(us, step) {
  const digits = step === undefined ? 6 : Math.max(0, Math.min(6, Math.ceil(6 - Math.log10(step))));
  return (us / 1e6).toFixed(digits);
}

function length(us) {
  if (us < 1000) return Math.round(us) + ' \u00b5s';
  if (us < 1e6) return (us / 1e3).toPrecision(3) + ' ms';
  return us < 1e8 ? (us / 1e6).toPrecision(3) + ' s' : (us / 1e6).toFixed(1) + ' s';
}

// ---- the place, in the page's address: #t=12.5-14.2&e=310

function address() {
  const parts = ['t=' + seconds(Math.max(view.t0, 0), 1000) + '-' + seconds(Math.min(view.t1, END), 1000)];
  if (state.selected !== null) parts.push('e=' + state.selected);
  return '#' + parts.join('&');
}

function parseAddress() {
  const fields = new Map(location.hash.slice(1).split('&').map(part => part.split('=')));
  const span = /^([\d.]+)-([\d.]+)$/.exec(fields.get('t') || '');
  const event = parseInt(fields.get('e'), 10);
  return {
    span: span ? [parseFloat(span[1]) * 1e6, parseFloat(span[2]) * 1e6] : null,
    event: events[event] ? event : null,
    violation: parseInt(fields.get('v'), 10) - 1,
    theme: fields.get('theme'),
    tab: fields.get('tab'),
  };
}
