// Puts the page together and lets hands move it.

function text(id, value) { document.getElementById(id).textContent = value; }

function copy(button, what) {
  const said = word => { button.textContent = word; setTimeout(() => { button.textContent = 'copy'; }, 1200); };
  if (!navigator.clipboard) return said('select it');
  navigator.clipboard.writeText(what).then(() => said('copied'), () => said('select it'));
}

function head() {
  const wrong = kinds.length;
  text('seed', run.seed);
  text('badge', wrong ? `\u2717 ${wrong} violated` : '\u2713 passed');
  document.getElementById('badge').className = wrong ? 'bad' : 'good';
  document.title = `Quorate seed ${run.seed}: ${wrong ? 'violated' : 'passed'}`;
  const count = cls => events.filter(e => e.cls === cls).length;
  const figures = [['simulated', length(run.simulated_us)], ['members', members.length], ['clients', clients.length],
    ['faults', faults.length], ['answered', run.answered], ['refused', count('refused')], ['unknown', count('unknown')],
    ['revision', run.revision], ['digest', run.digest]];
  document.getElementById('figures').append(...figures.map(([name, value]) =>
    make('div', {}, make('dt', {}, name), make('dd', {}, typeof value === 'number' ? value.toLocaleString('en') : value))));
  const which = run.drawn ? `--seed ${run.seed}` : '--script PLAN.sim';
  const command = `ci/sim replay ${which}`;
  text('command', command);
  document.getElementById('copy').onclick = event => copy(event.target, command);
}

// ---- the legend, which is the filter too

const LEGEND = [
  ['leader', 'Leader'], ['follower', 'Follower'], ['learner', 'Learner'], ['silent', 'Down or silent'], null,
  ['write', 'Write', true], ['read', 'Read', true], ['refused', 'Refused', true], ['unknown', 'Unknown', true], null,
  ['fault', 'Fault', true], ['host', 'Host change', true], ['watch', 'Watch', true],
  ['warn', 'Warning', true], ['info', 'Log', true], ['member', 'Report', true], null, ['proof', 'Proof'],
];

function legend() {
  const box = document.getElementById('legend');
  const items = LEGEND.filter(item => !item || used(item[0]));
  const parts = items.filter((item, n) => item || items[n + 1]);
  box.replaceChildren(...parts.map(item => {
    if (!item) return make('span', { class: 'gap' });
    const [key, name, filters] = item;
    const swatch = make('canvas');
    setTimeout(() => drawSwatch(swatch, key));
    if (!filters) return make('span', { class: 'chip' }, swatch, name);
    const toggle = () => {
      if (!state.hidden.delete(key)) state.hidden.add(key);
      button.setAttribute('aria-pressed', String(!state.hidden.has(key)));
      rows.gather();
      redraw();
    };
    const button = make('button', { class: 'chip', title: 'show or hide', 'aria-pressed': String(!state.hidden.has(key)), onclick: toggle }, swatch, name);
    return button;
  }));
}

function used(key) {
  if (key === 'proof') return proving.size > 0;
  if (key in ROLES) return key === 'silent' || events.some(e => e.role === key);
  return events.some(e => e.cls === key);
}

function drawSwatch(canvas, key) {
  const c = sized(canvas, 18, 14);
  if (key === 'leader' || key === 'follower' || key === 'learner') { c.fillStyle = ink[key]; c.fillRect(1, 2, 16, 11); }
  else if (key === 'silent') { c.fillStyle = ink.silent; c.fillRect(1, 2, 16, 11); hatch(c, 1, 2, 16, 11, ink.hatch); }
  else if (OUTCOMES.includes(key)) bar(c, key, 2, 3, 14, 9);
  else if (key === 'fault') { c.fillStyle = ink.fault; c.fillRect(1, 2, 16, 11); c.fillStyle = ink['fault-edge']; c.fillRect(1, 2, 3, 11); }
  else if (key === 'host') glyph(c, 'killed', 9, 7, 6.5);
  else if (key === 'watch') { c.fillStyle = ink.watch; c.fillRect(1, 6.5, 16, 1.5); c.fillRect(6, 3, 2, 8); c.fillRect(12, 3, 2, 8); }
  else if (key === 'warn') { c.fillStyle = ink.refused; c.fillRect(5, 5, 2, 5); c.fillStyle = ink.bad; c.fillRect(11, 2, 2, 9); }
  else if (key === 'info') { c.fillStyle = ink.faint; c.fillRect(5, 5, 2, 5); c.fillRect(11, 5, 2, 5); }
  else if (key === 'member') { c.strokeStyle = ink.commit; c.lineWidth = 1.25; c.beginPath(); c.moveTo(1, 11); c.lineTo(6, 11); c.lineTo(6, 7); c.lineTo(12, 7); c.lineTo(12, 3); c.lineTo(17, 3); c.stroke(); }
  else { c.strokeStyle = ink.bad; c.lineWidth = 2; rounded(c, 3, 2, 12, 10, 3); c.stroke(); }
}

// ---- drawing when something has changed

let waiting = false;
redraw = () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; drawTop(); drawLanes(); });
};

let moved = 0;
whenMoved = () => {
  text('span', `${seconds(Math.max(view.t0, 0), (view.t1 - view.t0) / 100)} to ${seconds(Math.min(view.t1, END), (view.t1 - view.t0) / 100)} s`);
  clearTimeout(moved);
  moved = setTimeout(() => {
    rows.follow();
    try { history.replaceState(null, '', address()); } catch { /* a page without an address of its own */ }
  }, 120);
};

function measure() {
  const box = document.getElementById('stage').getBoundingClientRect();
  view.width = Math.max(scroller.clientWidth || box.width, 200);
  view.height = scroller.clientHeight;
  arrange();
}

function arrange() {
  document.getElementById('spacer').style.height = Math.max(layout() - view.height, 0) + 'px';
  view.scroll = scroller.scrollTop;
  redraw();
}

function unfold(e) {
  const lane = laneFor(e);
  if (lane && lane.away) { lane.group.folded = false; arrange(); }
}

function laneFor(e) {
  if (e.cls === 'fault') return lanes.find(lane => lane.kind === 'faults');
  if (e.kind === 'watch') return lanes.find(lane => lane.kind === 'streams');
  return lanes.find(lane => lane.host === e.who);
}

function scrollToLane(e) {
  const lane = laneFor(e);
  if (!lane) return;
  const row = e.kind === 'watch' ? streams.find(s => s.stream === e.stream).row * 15 : 0;
  const y = lane.y + row;
  if (y < scroller.scrollTop || y + Math.min(lane.h, 60) > scroller.scrollTop + view.height) scroller.scrollTop = Math.max(y - view.height / 3, 0);
}

// ---- pointer

function laneAt(y) {
  const at = y + view.scroll;
  return lanes.find(lane => !lane.away && at >= lane.y && at < lane.y + lane.h);
}

let drag = null;
function grab(event) {
  const box = event.currentTarget.getBoundingClientRect();
  const x = event.clientX - box.left;
  const y = event.clientY - box.top;
  const top = event.currentTarget === topCanvas;
  flight++;
  drag = { x, y, t0: view.t0, t1: view.t1, scroll: scroller.scrollTop, top, over: top && y < OVERVIEW, mark: top || event.shiftKey, far: false, canvas: event.currentTarget };
  event.currentTarget.setPointerCapture(event.pointerId);
  scroller.focus({ preventScroll: true });
}

function move(event) {
  const box = event.currentTarget.getBoundingClientRect();
  const x = event.clientX - box.left;
  const y = event.clientY - box.top;
  if (drag && Math.hypot(x - drag.x, y - drag.y) > 4) drag.far = true;
  if (drag && drag.far) {
    tip.hidden = true;
    if (drag.mark) state.range = [Math.max(drag.x, LEFT), Math.max(x, LEFT)];
    else {
      laneCanvas.classList.add('drag');
      const by = (drag.x - x) / plotWidth() * (drag.t1 - drag.t0);
      look(drag.t0 + by, drag.t1 + by);
      scroller.scrollTop = drag.scroll + drag.y - y;
    }
    redraw();
    return;
  }
  const inside = x >= LEFT;
  const over = event.currentTarget === topCanvas && y < OVERVIEW;
  state.cursor = inside && !over ? tOf(x) : null;
  const i = event.currentTarget === laneCanvas && inside ? eventAt(x, y) : null;
  state.hover = i;
  laneCanvas.classList.toggle('point', i !== null || (!inside && laneAt(y)?.kind === 'group'));
  if (event.currentTarget === laneCanvas && inside) showTip(event.clientX, event.clientY, i, laneAt(y));
  else tip.hidden = true;
  redraw();
}

function drop(event) {
  const was = drag;
  drag = null;
  laneCanvas.classList.remove('drag');
  if (!was) return;
  if (was.far && was.mark) {
    const time = was.over ? x => (x - LEFT) / plotWidth() * END : tOf;
    const [a, b] = state.range.map(time).sort((p, q) => p - q);
    state.range = null;
    fly(a, b);
  } else if (!was.far) {
    click(was, event);
  }
  state.range = null;
  redraw();
}

function click(was) {
  if (was.over) {
    const half = (view.t1 - view.t0) / 2;
    const t = (was.x - LEFT) / plotWidth() * END;
    return fly(t - half, t + half);
  }
  if (was.top) return nearestFlag(was.x);
  const lane = laneAt(was.y);
  if (lane && lane.kind === 'group') { lane.folded = !lane.folded; return arrange(); }
  const i = was.x >= LEFT ? eventAt(was.x, was.y) : null;
  if (i === null) letGo(); else pick(i, false);
}

function nearestFlag(x) {
  const near = [...flags.keys()].filter(i => Math.abs(xOf(events[i].t1) - x) < 12);
  if (near.length) { focus(flags.get(near[0])[0].v); openTab('verdict'); pick(near[0], true); }
}

function wheel(event) {
  const box = laneCanvas.getBoundingClientRect();
  const x = event.clientX - box.left;
  if (x < LEFT && !event.ctrlKey) return;
  event.preventDefault();
  flight++;
  const unit = event.deltaMode === 1 ? 16 : 1;
  const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(sideways * unit / plotWidth());
  else zoom(Math.exp(event.deltaY * unit * 0.0018), tOf(x));
}

function leave() {
  state.hover = state.cursor = null;
  tip.hidden = true;
  redraw();
}

for (const canvas of [topCanvas, laneCanvas]) {
  canvas.addEventListener('pointerdown', grab);
  canvas.addEventListener('pointermove', move);
  canvas.addEventListener('pointerup', drop);
  canvas.addEventListener('pointercancel', () => { drag = state.range = null; redraw(); });
  canvas.addEventListener('pointerleave', leave);
  canvas.addEventListener('wheel', wheel, { passive: false });
}
laneCanvas.addEventListener('dblclick', event => {
  const box = laneCanvas.getBoundingClientRect();
  const i = eventAt(event.clientX - box.left, event.clientY - box.top);
  if (i !== null) flyTo([i]);
  else { const t = tOf(event.clientX - box.left); const span = (view.t1 - view.t0) / 6; fly(t - span, t + span); }
});
scroller.addEventListener('scroll', () => { view.scroll = scroller.scrollTop; tip.hidden = true; redraw(); });

// ---- searching

const field = document.getElementById('search');
function lookFor() {
  state.query = field.value.trim();
  state.found = search(state.query);
  text('found', state.query ? `${state.found.size} found` : '');
  rows.gather();
  if (state.query) openTab('events');
  redraw();
}
function nextFound(by) {
  const list = [...state.found];
  if (!list.length) return;
  const here = list.indexOf(state.selected);
  const next = here < 0 ? (by > 0 ? 0 : list.length - 1) : (here + by + list.length) % list.length;
  pick(list[next], true);
}
field.addEventListener('input', lookFor);
field.addEventListener('keydown', event => {
  if (event.key === 'Enter') nextFound(event.shiftKey ? -1 : 1);
  if (event.key === 'Escape') { field.value = ''; lookFor(); field.blur(); }
});

// ---- keys

function neighbour(by) {
  if (state.selected === null) return;
  const list = neighbours.get(laneOf(events[state.selected]));
  const next = list[list.indexOf(events[state.selected]) + by];
  if (next) pick(next.i, true);
}

function nextViolation() {
  if (!kinds.length) return;
  const next = state.violation === null ? 0 : (kinds.indexOf(kindOf(state.violation)) + 1) % kinds.length;
  prove(kinds[next].list[kinds[next].at]);
}

const KEYS = {
  a: () => pan(-0.2), d: () => pan(0.2), ArrowLeft: () => pan(-0.1), ArrowRight: () => pan(0.1),
  w: () => zoom(0.7), s: () => zoom(1.43), '+': () => zoom(0.6), '=': () => zoom(0.6), '-': () => zoom(1.67),
  0: flyWhole, Home: flyWhole, n: () => neighbour(1), p: () => neighbour(-1), v: nextViolation, l: swapTheme, Escape: letGo,
  '/': () => field.focus(), '?': () => openTab('help'),
};
document.addEventListener('keydown', event => {
  if (event.target === field || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  flight++;
  KEYS[event.key]();
});

// ---- light and dark

function theme(name) {
  document.documentElement.dataset.theme = name;
  readInk();
  legend();
  rows.draw();
  redraw();
}
function swapTheme() { theme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark'); }

// ---- the divider

document.getElementById('divider').addEventListener('pointerdown', event => {
  const from = { x: event.clientX, width: side.offsetWidth };
  const slide = at => { side.style.width = Math.min(Math.max(from.width + from.x - at.clientX, 240), innerWidth - 420) + 'px'; measure(); };
  addEventListener('pointermove', slide);
  addEventListener('pointerup', () => removeEventListener('pointermove', slide), { once: true });
  event.preventDefault();
});

document.getElementById('in').onclick = () => zoom(0.5);
document.getElementById('out').onclick = () => zoom(2);
document.getElementById('whole').onclick = flyWhole;
document.getElementById('theme').onclick = swapTheme;

// ---- and go

const asked = parseAddress();
head();
theme(asked.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'));
const wrong = kinds.length;
addTab(wrong ? `Violated (${wrong})` : 'Verdict', 'verdict', verdictPanel());
addTab('Events', 'events', rows.panel);
addTab('Plan', 'plan', planPanel());
addTab('Help', 'help', helpPanel());
openTab(tabs.some(tab => tab.key === asked.tab) ? asked.tab : 'verdict');
rows.gather();
new ResizeObserver(measure).observe(scroller);
measure();
if (asked.span) look(...asked.span); else look(-END * 0.005, END * 1.005);
if (asked.event !== null) pick(asked.event, false);
if (run.violations[asked.violation]) prove(asked.violation); else focus(null);
addEventListener('hashchange', () => { const { span, event } = parseAddress(); if (span) look(...span); if (event !== null) pick(event, true); });
