// The timeline itself. Every frame draws what is in view; what was drawn where is kept for the pointer.

const topCanvas = document.getElementById('top');
const laneCanvas = document.getElementById('lanes');
const scroller = document.getElementById('scroll');
const OVERVIEW = 44;
const AXIS = 24;
const PHASES = 20;
const FLAGS = proving.size ? 18 : 0;
const TOP = OVERVIEW + AXIS + PHASES + FLAGS;
const SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';

let ink = {};
function readInk() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ['ground', 'panel', 'lane', 'ink', 'soft', 'faint', 'line', 'leader', 'leader-ink', 'follower',
    'follower-ink', 'learner', 'learner-ink', 'silent', 'silent-ink', 'hatch', 'commit', 'applied', 'fault', 'fault-ink',
    'fault-edge', 'fault-band', 'write', 'read', 'refused', 'unknown', 'watch', 'mark', 'bad', 'bad-line', 'select']) {
    ink[name] = style.getPropertyValue('--' + name).trim();
  }
}

// ---- what the pointer can be on: rectangles, each with a number of an event

const hits = { at: new Float32Array(5 * 4096), used: 0 };
function hit(x0, y0, x1, y1, event) {
  if (hits.used + 5 > hits.at.length) {
    const more = new Float32Array(hits.at.length * 2);
    more.set(hits.at);
    hits.at = more;
  }
  hits.at.set([x0, y0, x1, y1, event], hits.used);
  hits.used += 5;
}

// The event nearest to a point, of those within a few pixels.
function eventAt(x, y) {
  let best = null;
  let nearest = 5;
  for (let k = 0; k < hits.used; k += 5) {
    const dx = Math.max(hits.at[k] - x, 0, x - hits.at[k + 2]);
    const dy = Math.max(hits.at[k + 1] - y, 0, y - hits.at[k + 3]);
    const size = Math.min((hits.at[k + 2] - hits.at[k]) / 1e4, 0.5);
    const far = Math.max(dx, dy) + size;
    if (far <= nearest) { nearest = far; best = hits.at[k + 4]; }
  }
  return best;
}

function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = width + 'px';
    canvas.style.height = height + 'px';
  }
  const c = canvas.getContext('2d');
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  return c;
}

function write(c, text, x, y, color, size, weight, align) {
  c.font = (weight || 400) + ' ' + (size || 11) + 'px ' + SANS;
  c.fillStyle = color;
  c.textAlign = align || 'left';
  c.textBaseline = 'middle';
  c.fillText(text, x, y);
}

// As much of a text as fits; nothing if that is not worth reading.
function writeWithin(c, text, x, y, width, color, size, weight) {
  if (width < 24) return;
  c.font = (weight || 400) + ' ' + (size || 11) + 'px ' + SANS;
  let shown = text;
  if (c.measureText(shown).width > width) {
    while (shown.length > 2 && c.measureText(shown + '\u2026').width > width) shown = shown.slice(0, -1);
    shown = shown.length > 2 ? shown + '\u2026' : '';
  }
  write(c, shown, x, y, color, size, weight);
}

function hatch(c, x, y, w, h, color) {
  c.save();
  c.beginPath();
  c.rect(x, y, w, h);
  c.clip();
  c.strokeStyle = color;
  c.lineWidth = 1;
  c.beginPath();
  for (let k = Math.floor((x - h) / 6) * 6; k < x + w; k += 6) { c.moveTo(k, y + h); c.lineTo(k + h, y); }
  c.stroke();
  c.restore();
}

function rounded(c, x, y, w, h, r) {
  c.beginPath();
  c.roundRect(x, y, w, h, Math.min(r, w / 2, h / 2));
}

// The visible part of a span, with a width that can be seen; null if it is out of view.
function spanX(t0, t1, least) {
  if (t1 < view.t0 || t0 > view.t1) return null;
  const x0 = Math.max(xOf(t0), LEFT);
  const x1 = Math.min(xOf(t1), LEFT + plotWidth());
  return { x: x0, w: Math.max(x1 - x0, least || 0) };
}

// ---- overview, phases, axis

function ticks() {
  const wanted = (view.t1 - view.t0) / plotWidth() * 100;
  const power = 10 ** Math.floor(Math.log10(wanted));
  const step = [1, 2, 5, 10].map(n => n * power).find(n => n >= wanted);
  const list = [];
  for (let t = Math.ceil(Math.max(view.t0, 0) / step) * step; t <= Math.min(view.t1, END); t += step) list.push(t);
  return { step, list };
}

let density = null;
function densities(buckets) {
  if (density && density.length === buckets) return density;
  density = Array.from({ length: buckets }, () => [0, 0]);
  for (const e of events) {
    if (e.kind !== 'operation') continue;
    const k = Math.min(buckets - 1, Math.floor(e.t1 / END * buckets));
    density[k][e.cls === 'read' || e.cls === 'write' ? 0 : 1] += 1;
  }
  return density;
}

function overX(t) { return LEFT + t / END * plotWidth(); }

function drawOverview(c) {
  const width = plotWidth();
  c.fillStyle = ink.panel;
  c.fillRect(0, 0, view.width, OVERVIEW);
  for (const fault of faults) {
    c.fillStyle = ink['fault-band'];
    c.fillRect(overX(fault.t0), 6, Math.max(overX(fault.t1) - overX(fault.t0), 1), OVERVIEW - 12);
  }
  const bars = densities(Math.floor(width / 3));
  const most = Math.max(1, ...bars.map(([good, bad]) => good + bad));
  bars.forEach(([good, bad], k) => {
    const x = LEFT + k * 3;
    const high = n => n / most * (OVERVIEW - 14);
    c.fillStyle = ink.read;
    c.fillRect(x, OVERVIEW - 6 - high(good), 2, high(good));
    c.fillStyle = ink.unknown;
    c.fillRect(x, OVERVIEW - 6 - high(good) - high(bad), 2, high(bad));
  });
  c.fillStyle = ink.bad;
  for (const event of proving) c.fillRect(overX(events[event].t1) - 0.5, 3, 1, 5);
  for (const event of flags.keys()) c.fillRect(overX(events[event].t1) - 1, 3, 2.5, OVERVIEW - 6);
  const x0 = Math.max(overX(view.t0), LEFT);
  const x1 = Math.min(overX(view.t1), LEFT + width);
  c.save();
  c.globalAlpha = 0.62;
  c.fillStyle = ink.ground;
  c.fillRect(LEFT, 0, x0 - LEFT, OVERVIEW);
  c.fillRect(x1, 0, LEFT + width - x1, OVERVIEW);
  c.restore();
  c.strokeStyle = ink.soft;
  c.lineWidth = 1.5;
  c.strokeRect(x0, 2, Math.max(x1 - x0, 3), OVERVIEW - 4);
  write(c, 'whole run', 14, OVERVIEW / 2 - 7, ink.soft, 11, 550);
  write(c, length(END), 14, OVERVIEW / 2 + 8, ink.faint, 11);
}

function drawTop() {
  const c = sized(topCanvas, view.width, TOP);
  drawOverview(c);
  c.fillStyle = ink.line;
  c.fillRect(0, OVERVIEW, view.width, 1);
  phases.forEach((phase, n) => {
    const span = spanX(phase.t0, phase.t1);
    if (!span) return;
    if (n % 2) { c.fillStyle = ink.ground; c.fillRect(span.x, OVERVIEW + 1, span.w, PHASES); }
    if (xOf(phase.t0) >= LEFT) { c.fillStyle = ink.faint; c.fillRect(xOf(phase.t0), OVERVIEW + 1, 1, PHASES); }
    writeWithin(c, phase.name, span.x + 6, OVERVIEW + PHASES / 2 + 1, span.w - 8, ink.soft, 11, 600);
  });
  const { step, list } = ticks();
  const y = OVERVIEW + PHASES + AXIS / 2;
  for (const t of list) {
    c.fillStyle = ink.line;
    c.fillRect(Math.round(xOf(t)), y - 8, 1, TOP - y + 8);
    write(c, seconds(t, step) + ' s', xOf(t) + 4, y, ink.faint, 11);
  }
  drawFlags(c);
  if (state.cursor !== null && state.cursor >= view.t0 && state.cursor <= view.t1) {
    const text = seconds(Math.max(state.cursor, 0), step / 100) + ' s';
    c.font = '600 11px ' + SANS;
    const w = c.measureText(text).width + 10;
    const x = Math.min(Math.max(xOf(state.cursor) - w / 2, LEFT), view.width - w);
    c.fillStyle = ink.ink;
    rounded(c, x, y - 9, w, 18, 4);
    c.fill();
    write(c, text, x + 5, y, ink.panel, 11, 600);
  }
  if (state.range) {
    const [a, b] = state.range;
    c.save();
    c.globalAlpha = 0.18;
    c.fillStyle = ink.leader;
    c.fillRect(Math.min(a, b), 0, Math.abs(b - a), TOP);
    c.restore();
  }
}

// Numbers of the violations, above the events that prove them.
function drawFlags(c) {
  let free = -Infinity;
  const seen = [...flags.keys()].sort((a, b) => events[a].t1 - events[b].t1);
  for (const event of seen) {
    const x = xOf(events[event].t1);
    if (x < LEFT || x > LEFT + plotWidth()) continue;
    const text = flags.get(event).map(proof => proof.flag).slice(0, 2).join(' ');
    c.font = '600 10px ' + SANS;
    const w = c.measureText(text).width + 8;
    c.fillStyle = ink.bad;
    c.fillRect(x - 0.75, TOP - 4, 1.5, 4);
    if (x - w / 2 < free) continue;
    rounded(c, x - w / 2, TOP - 18, w, 15, 3);
    c.fill();
    write(c, text, x, TOP - 10, ink.panel, 10, 600, 'center');
    free = x + w / 2 + 2;
  }
}

// ---- lanes

function layout() {
  let y = 0;
  for (const lane of lanes) {
    lane.away = Boolean(lane.group && lane.group.folded);
    lane.y = y;
    if (!lane.away) y += lane.h;
  }
  return y + 16;
}

function drawLanes() {
  const c = sized(laneCanvas, view.width, view.height);
  hits.used = 0;
  c.fillStyle = ink.line;
  for (const t of ticks().list) c.fillRect(Math.round(xOf(t)), 0, 1, view.height);
  for (const phase of phases) {
    if (phase.t0 > view.t0 && phase.t0 < view.t1) { c.fillStyle = ink.hatch; c.fillRect(Math.round(xOf(phase.t0)), 0, 1, view.height); }
  }
  const range = commitRange();
  const after = [];
  for (const lane of lanes) {
    const y = lane.y - view.scroll;
    if (lane.away || y > view.height || y + lane.h < 0) continue;
    if (lane.kind === 'group') drawGroup(c, lane, y);
    else if (lane.kind === 'faults') drawFaults(c, y, after);
    else if (lane.kind === 'member') drawMember(c, lane, y, range, after);
    else if (lane.kind === 'client') drawClient(c, lane, y, after);
    else drawStreams(c, y, after);
  }
  drawGuides(c);
  after.forEach(draw => draw());
  clipLabels(c);
}

// What an event looks like that proves something, or is picked, found or pointed at.
function emphasise(c, i, x, y, w, h, after) {
  const proofs = flags.get(i);
  const chosen = i === state.selected || i === state.hover;
  const found = state.query && state.found.has(i);
  if (!proofs && proving.has(i)) { c.fillStyle = ink.bad; c.fillRect(x, y + h + 1, Math.max(w, 2), 2); }
  if (!proofs && !chosen && !found) return;
  after.push(() => {
    const wide = Math.max(w, 3);
    c.lineWidth = proofs ? 2.5 : 1.5;
    c.strokeStyle = proofs ? ink.bad : chosen ? ink.select : ink.leader;
    rounded(c, x - 2, y - 2, wide + 4, h + 4, 3);
    c.stroke();
    if (chosen && proofs) {
      c.strokeStyle = ink.select;
      c.lineWidth = 1.5;
      rounded(c, x - 5, y - 5, wide + 10, h + 10, 5);
      c.stroke();
    }
    if (!proofs || x < LEFT) return;
    const text = proofs.map(proof => proof.flag).slice(0, 3).join(' ');
    c.font = '600 10px ' + SANS;
    const width = c.measureText(text).width + 8;
    const at = Math.min(x + wide + 4, view.width - width - 2);
    c.fillStyle = ink.bad;
    rounded(c, at, y + h / 2 - 7, width, 14, 3);
    c.fill();
    write(c, text, at + width / 2, y + h / 2 + 0.5, ink.panel, 10, 600, 'center');
    hit(at, y + h / 2 - 7, at + width, y + h / 2 + 7, i);
  });
}

function drawGuides(c) {
  c.save();
  c.setLineDash([2, 3]);
  for (const event of flags.keys()) {
    const x = xOf(events[event].t1);
    if (x < LEFT || x > LEFT + plotWidth()) continue;
    const mine = state.violation === null || flags.get(event).some(proof => proof.v === state.violation);
    c.globalAlpha = mine ? 1 : 0.3;
    c.strokeStyle = ink['bad-line'];
    c.lineWidth = 1;
    c.beginPath();
    c.moveTo(x, 0);
    c.lineTo(x, view.height);
    c.stroke();
  }
  c.restore();
  if (state.cursor !== null) {
    c.fillStyle = ink.faint;
    c.globalAlpha = 0.6;
    c.fillRect(xOf(state.cursor), 0, 1, view.height);
    c.globalAlpha = 1;
  }
}

// Names stand left of the plot, on ground of their own.
function clipLabels(c) {
  c.fillStyle = ink.lane;
  c.fillRect(0, 0, LEFT - 1, view.height);
  c.fillStyle = ink.line;
  c.fillRect(LEFT - 1, 0, 1, view.height);
  for (const lane of lanes) {
    const y = lane.y - view.scroll;
    if (lane.away || y > view.height || y + lane.h < 0) continue;
    c.fillStyle = ink.line;
    c.fillRect(0, Math.round(y + lane.h) - 1, LEFT, 1);
    if (lane.kind === 'group') {
      c.fillStyle = ink.ground;
      c.fillRect(0, y, LEFT - 1, lane.h - 1);
      write(c, lane.folded ? '\u25b8' : '\u25be', 14, y + lane.h / 2, ink.faint, 10);
      write(c, lane.name, 28, y + lane.h / 2, ink.soft, 11, 620);
    } else if (lane.kind === 'member') {
      write(c, lane.label, 14, y + 17, ink.ink, 13, 620);
      write(c, 'role', LEFT - 10, y + 15, ink.faint, 10, 400, 'right');
      write(c, 'commit', LEFT - 10, y + 41, ink.faint, 10, 400, 'right');
    } else if (lane.kind === 'client') {
      write(c, lane.label, 14, y + lane.h / 2, ink.ink, 12, 600);
      const at = Math.max(44, 20 + c.measureText(lane.label).width);
      writeWithin(c, lane.sub, at, y + lane.h / 2, LEFT - 8 - at, ink.faint, 11);
    }
  }
}

function drawGroup(c, lane, y) {
  c.fillStyle = ink.ground;
  c.fillRect(LEFT, y, view.width, lane.h - 1);
  write(c, String(lane.count), LEFT + 8, y + lane.h / 2, ink.faint, 11);
}

function drawFaults(c, y, after) {
  for (const fault of faults) {
    const span = spanX(fault.t0, fault.t1, 4);
    if (!span) continue;
    const top = y + 4 + fault.row * 19;
    c.globalAlpha = state.hidden.has('fault') ? 0.12 : strength(fault.began);
    c.fillStyle = ink.fault;
    rounded(c, span.x, top, span.w, 16, 3);
    c.fill();
    if (xOf(fault.t0) >= LEFT) { c.fillStyle = ink['fault-edge']; c.fillRect(span.x, top, 3, 16); }
    // A text that is longer than its bar goes on beside it, or stands there where the bar is a mere line.
    const [at, color] = span.w < 14 ? [span.x + span.w + 4, ink.soft] : [span.x + 7, ink['fault-ink']];
    writeWithin(c, fault.says, at, top + 8, Math.max(freeRight(fault), span.x + span.w) - at - 3, color, 11, 500);
    c.globalAlpha = 1;
    hit(span.x, top, span.x + span.w, top + 16, fault.began);
    emphasise(c, fault.began, span.x, top, span.w, 16, after);
  }
}

// Where the next bar of its row begins.
function freeRight(fault) {
  const next = faults.filter(f => f.row === fault.row && f.t0 > fault.t0).reduce((least, f) => Math.min(least, f.t0), Infinity);
  return Math.min(xOf(Math.min(next, view.t1)), LEFT + plotWidth());
}

function drawBands(c, lane, y) {
  if (state.hidden.has('fault')) return;
  for (const fault of lane.bands) {
    const span = spanX(fault.t0, fault.t1, 2);
    if (!span) continue;
    c.fillStyle = ink['fault-band'];
    c.fillRect(span.x, y, span.w, lane.h - 1);
    c.fillStyle = ink['fault-edge'];
    if (xOf(fault.t0) >= LEFT) c.fillRect(span.x, y, 1, lane.h - 1);
    c.fillRect(span.x, y, span.w, 2);
  }
}

// The commit indexes that members report in view: the height of all their curves.
function commitRange() {
  let low = Infinity;
  let high = 0;
  for (const { states } of members) {
    const from = Math.max(firstAt(states, view.t0, e => e.at_us) - 1, 0);
    const to = Math.min(firstAt(states, view.t1, e => e.at_us) + 1, states.length);
    for (let k = from; k < to; k++) {
      if (states[k].role === 'silent') continue;
      low = Math.min(low, states[k].applied);
      high = Math.max(high, states[k].commit);
    }
  }
  return { low: Math.min(low, high), high: Math.max(high, low === Infinity ? 1 : low + 1) };
}

const ROLES = { leader: 'Leader', follower: 'Follower', learner: 'Learner', silent: 'Silent' };

function drawMember(c, lane, y, range, after) {
  drawBands(c, lane, y);
  for (const stay of lane.stays) {
    const span = spanX(stay.t0, stay.t1, 1);
    if (span) { c.fillStyle = ink.silent; c.fillRect(span.x, y + 7, span.w, 18); }
  }
  for (const reign of lane.reigns) {
    const span = spanX(reign.t0, reign.t1, 1);
    if (!span) continue;
    c.fillStyle = ink[reign.role];
    c.fillRect(span.x, y + 7, span.w, 18);
    if (reign.role === 'silent') hatch(c, span.x, y + 7, span.w, 18, ink.hatch);
    if (xOf(reign.t0) >= LEFT) { c.fillStyle = ink.lane; c.fillRect(span.x, y + 7, 1, 18); }
    drawRole(c, lane, reign, span, y);
    hit(span.x, y + 7, span.x + span.w, y + 25, reign.i);
    emphasise(c, reign.i, span.x, y + 7, Math.min(span.w, 6), 18, after);
  }
  drawCommit(c, lane, y + 29, 24, range, after);
  drawAbsences(c, lane, y);
  drawLogs(c, lane, y + lane.h - 6, after);
  drawMarks(c, lane, y, after);
}

// The longest name of the role that fits, right of a mark that stands at its beginning.
function drawRole(c, lane, reign, span, y) {
  const mark = lane.marks.find(e => Math.abs(xOf(e.at_us) - span.x) < 14);
  const absence = lane.absences.find(a => xOf(a.t0) <= span.x + 2 && xOf(a.t1) > span.x && xOf(a.t1) < span.x + span.w);
  const at = Math.max(span.x + 6, mark ? xOf(mark.at_us) + 11 : 0, absence ? xOf(absence.t1) + 11 : 0);
  const next = lane.absences.find(a => xOf(a.t0) > at);
  const room = Math.min(span.x + span.w, next ? xOf(next.t0) - 8 : Infinity) - at - 3;
  const name = ROLES[reign.role];
  const names = reign.role === 'silent' ? ['silent'] : [`${name}, term ${reign.term}`, `${name} ${reign.term}`, `${name[0]}${reign.term}`];
  c.font = '550 11px ' + SANS;
  const text = names.find(text => c.measureText(text).width <= room);
  if (text) write(c, text, at, y + 16.5, ink[reign.role + '-ink'], 11, 550);
}

function drawAbsences(c, lane, y) {
  for (const absence of lane.absences) {
    const span = spanX(absence.t0, absence.t1, 2);
    if (!span) continue;
    c.fillStyle = ink.silent;
    c.fillRect(span.x, y + 7, span.w, 18);
    hatch(c, span.x, y + 7, span.w, 18, ink.hatch);
    c.font = '600 11px ' + SANS;
    const room = span.w - 22;
    if (room < 24) continue;
    const w = Math.min(c.measureText(absence.why).width, room);
    c.fillStyle = ink.silent;
    c.fillRect(span.x + 16, y + 9, w + 6, 14);
    writeWithin(c, absence.why, span.x + 19, y + 16.5, room, ink['silent-ink'], 11, 600);
  }
}

// Commit as a line, applied as the ground below it; both as steps, as they were reported.
function drawCommit(c, lane, y, h, range, after) {
  const from = Math.max(firstAt(lane.states, view.t0, e => e.at_us) - 1, 0);
  const high = n => y + h - 2 - (n - range.low) / (range.high - range.low) * (h - 4);
  const spans = [];
  for (let k = from; k < lane.states.length && lane.states[k].at_us <= view.t1; k++) {
    const e = lane.states[k];
    const next = lane.states[k + 1];
    const span = spanX(e.at_us, next ? next.at_us : END, 0.5);
    if (span && e.role !== 'silent') spans.push([span, e]);
  }
  c.fillStyle = ink.applied;
  for (const [span, e] of spans) c.fillRect(span.x, high(e.applied), span.w + 0.5, y + h - high(e.applied));
  c.strokeStyle = ink.commit;
  c.lineWidth = 1.25;
  c.beginPath();
  let end = -1;
  for (const [span, e] of spans) {
    if (Math.abs(end - span.x) > 1) c.moveTo(span.x, high(e.commit));
    else c.lineTo(span.x, high(e.commit));
    c.lineTo(span.x + span.w, high(e.commit));
    end = span.x + span.w;
  }
  c.stroke();
  let last = -9;
  for (const [span, e] of spans) {
    if (flags.has(e.i) || e.i === state.selected || span.x - last > 2) {
      hit(span.x, y, span.x + span.w, y + h, e.i);
      emphasise(c, e.i, span.x, high(e.commit) - 3, 4, 6, after);
      last = span.x;
    }
  }
}

function drawLogs(c, lane, y, after) {
  let last = -9;
  for (let k = firstAt(lane.logs, view.t0, e => e.at_us); k < lane.logs.length; k++) {
    const e = lane.logs[k];
    if (e.at_us > view.t1) break;
    if (!isShown(e) && !flags.has(e.i)) continue;
    const x = xOf(e.at_us);
    if (x - last < 1.5 && !flags.has(e.i)) continue;
    last = x;
    c.globalAlpha = strength(e.i);
    c.fillStyle = e.level === 'error' ? ink.bad : e.level === 'warn' ? ink.refused : ink.faint;
    c.fillRect(x - 1, y - (e.level === 'error' ? 4 : 0), 2, e.level === 'error' ? 9 : 5);
    c.globalAlpha = 1;
    hit(x - 1, y, x + 1, y + 5, e.i);
    emphasise(c, e.i, x - 1, y, 2, 5, after);
  }
}

function drawMarks(c, lane, y, after) {
  if (state.hidden.has('host')) return;
  for (const e of lane.marks) {
    const x = xOf(e.at_us);
    if (x < LEFT - 1 || x > LEFT + plotWidth() + 1) continue;
    c.globalAlpha = strength(e.i);
    c.fillStyle = ink.mark;
    c.fillRect(x - 0.5, y + 3, 1, lane.h - 8);
    glyph(c, e.change, x, y + 16, 7);
    c.globalAlpha = 1;
    hit(x - 8, y + 7, x + 8, y + 25, e.i);
    emphasise(c, e.i, x - 8, y + 7, 16, 18, after);
  }
}

// A disc with what happened to the host.
function glyph(c, change, x, y, r) {
  c.fillStyle = ink.mark;
  c.beginPath();
  c.arc(x, y, r, 0, 7);
  c.fill();
  c.strokeStyle = c.fillStyle = ink.panel;
  c.lineWidth = 1.6;
  const s = r * 0.43;
  c.beginPath();
  if (change === 'killed') {
    c.moveTo(x - s, y - s); c.lineTo(x + s, y + s); c.moveTo(x + s, y - s); c.lineTo(x - s, y + s);
    c.stroke();
  } else if (change === 'power_lost') {
    c.moveTo(x + s * 0.5, y - s * 1.5); c.lineTo(x - s, y + s * 0.3); c.lineTo(x - s * 0.1, y + s * 0.3);
    c.lineTo(x - s * 0.5, y + s * 1.5); c.lineTo(x + s, y - s * 0.3); c.lineTo(x + s * 0.1, y - s * 0.3);
    c.fill();
  } else if (change === 'paused') {
    c.moveTo(x - s * 0.7, y - s); c.lineTo(x - s * 0.7, y + s); c.moveTo(x + s * 0.7, y - s); c.lineTo(x + s * 0.7, y + s);
    c.stroke();
  } else if (change === 'ended') {
    c.rect(x - s, y - s, 2 * s, 2 * s);
    c.fill();
  } else {
    c.moveTo(x - s * 0.7, y - s * 1.1); c.lineTo(x + s * 1.2, y); c.lineTo(x - s * 0.7, y + s * 1.1);
    c.fill();
  }
}

const CALL = 12;
const OUTCOMES = ['read', 'write', 'refused', 'unknown'];

function drawClient(c, lane, y, after) {
  drawBands(c, lane, y);
  const from = firstAt(lane.items, view.t0 - lane.longest, e => e.t0);
  const ends = new Map();
  for (const cls of OUTCOMES) {
    if (state.hidden.has(cls)) continue;
    for (let k = from; k < lane.items.length && lane.items[k].t0 <= view.t1; k++) {
      const e = lane.items[k];
      if (e.cls === cls) drawCall(c, e, y + 5 + e.row * CALL_PITCH, ends, after);
    }
  }
}

function drawCall(c, e, y, ends, after) {
  const span = spanX(e.t0, e.t1, 1.6);
  if (!span) return;
  const key = e.cls + e.row;
  const marked = flags.has(e.i) || e.i === state.selected || e.i === state.hover || (state.query && state.found.has(e.i));
  // Where one pixel has many calls of a kind, the first stands for them.
  if (!marked && span.w < 2 && span.x - (ends.get(key) ?? -9) < 0.8) return;
  ends.set(key, span.x);
  c.globalAlpha = strength(e.i);
  bar(c, e.cls, span.x, y, span.w, CALL);
  if (span.w > 46 && e.cls !== 'refused') {
    const color = e.cls === 'unknown' ? ink.unknown : e.cls === 'write' ? ink.panel : ink.ink;
    writeWithin(c, e.call, span.x + 5, y + CALL / 2 + 0.5, span.w - 9, color, 10, 500);
  }
  c.globalAlpha = 1;
  hit(span.x, y, span.x + span.w, y + CALL, e.i);
  emphasise(c, e.i, span.x, y, span.w, CALL, after);
}

// Colour and shape say the same: full, thin, or open.
function bar(c, cls, x, y, w, h) {
  c.fillStyle = c.strokeStyle = ink[cls];
  if (cls === 'refused') {
    c.fillRect(x, y + h / 2 - 1.5, w, 3);
    if (w >= 4) c.fillRect(x + w - 1.5, y, 2, h);
  } else if (cls === 'unknown' && w >= 4) {
    c.lineWidth = 1.5;
    c.beginPath();
    c.moveTo(x + w, y + 0.75); c.lineTo(x + 0.75, y + 0.75); c.lineTo(x + 0.75, y + h - 0.75); c.lineTo(x + w, y + h - 0.75);
    c.stroke();
  } else {
    c.fillRect(x, y, w, h);
  }
}

function drawStreams(c, y, after) {
  const hidden = state.hidden.has('watch');
  for (const stream of streams) {
    const span = spanX(stream.t0, stream.t1, 2);
    if (!span || (hidden && !stream.news.some(e => flags.has(e.i)))) continue;
    const top = y + 4 + stream.row * 15;
    if (top > view.height || top < -15) continue;
    c.globalAlpha = state.query ? 0.4 : 1;
    c.fillStyle = ink.watch;
    c.fillRect(span.x, top + 5.5, span.w, 1.5);
    if (xOf(stream.t0) >= LEFT) c.fillRect(span.x, top + 1, 1.5, 10);
    hit(span.x, top + 3, span.x + span.w, top + 9, stream.news[0].i);
    drawNews(c, stream, top, after);
    const label = 'w' + stream.stream + ' ' + stream.host;
    if (span.w > 90) {
      c.font = '500 10px ' + SANS;
      const w = c.measureText(label).width;
      c.fillStyle = ink.lane;
      c.fillRect(span.x + 3, top, w + 6, 12);
      write(c, label, span.x + 6, top + 6.5, ink.watch, 10, 500);
    }
    c.globalAlpha = 1;
  }
}

function drawNews(c, stream, top, after) {
  let last = -9;
  for (const e of stream.news) {
    if (e.at_us < view.t0) continue;
    if (e.at_us > view.t1) break;
    const x = xOf(e.at_us);
    const kind = e.news.news;
    const proof = flags.has(e.i) || e.i === state.selected;
    if (!proof && x - last < 1.6 && kind !== 'ended') continue;
    last = x;
    c.globalAlpha = strength(e.i);
    c.fillStyle = c.strokeStyle = ink.watch;
    if (kind === 'events') c.fillRect(x - 1, top + 2, 2, 8);
    else if (kind === 'progress') { c.lineWidth = 1; c.beginPath(); c.arc(x, top + 6, 2.5, 0, 7); c.stroke(); }
    else if (kind === 'ended') {
      c.lineWidth = 1.5;
      c.beginPath();
      c.moveTo(x - 3, top + 3); c.lineTo(x + 3, top + 9); c.moveTo(x + 3, top + 3); c.lineTo(x - 3, top + 9);
      c.stroke();
    }
    hit(x - 2, top, x + 2, top + 12, e.i);
    emphasise(c, e.i, x - 1, top + 2, 2, 8, after);
  }
}
