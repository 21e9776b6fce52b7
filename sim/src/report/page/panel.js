// Beside the timeline: what was violated, all events, the plan, and the event that is looked at.

const side = document.querySelector('aside');
const panels = document.getElementById('panels');
const details = document.getElementById('details');
const tip = document.getElementById('tip');

// An element with its content; texts are texts, whatever is in them.
function make(tag, fields, ...content) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(fields || {})) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'class') element.className = value;
    else element.setAttribute(name, value);
  }
  element.append(...content);
  return element;
}

const tabs = [];
function addTab(name, key, panel) {
  const button = make('button', { role: 'tab', onclick: () => openTab(key) }, name);
  panel.classList.add('panel');
  document.querySelector('.tabs').append(button);
  panels.append(panel);
  tabs.push({ key, button, panel });
}
function openTab(key) {
  for (const tab of tabs) {
    tab.panel.hidden = tab.key !== key;
    tab.button.setAttribute('aria-selected', String(tab.key === key));
  }
  if (key === 'events') rows.draw();
}

// ---- the verdict

function verdictPanel() {
  const panel = make('div');
  if (!run.violations.length) {
    panel.append(make('div', { class: 'calm' }, make('b', {}, 'Every property held'),
      `${events.length} events in ${length(END)} of simulated time, and no checker found anything that must not be.`));
    return panel;
  }
  kinds.forEach((kind, k) => panel.append(make('div', { class: 'violation', 'data-k': k })));
  return panel;
}

// One property that was violated: the violation that is shown, and a way to the others.
function fillCard(k) {
  const kind = kinds[k];
  const v = kind.list[kind.at];
  const violation = run.violations[v];
  const known = eventsOf(v);
  const acts = make('div', { class: 'acts' });
  if (known.length) acts.append(make('button', { onclick: () => prove(v) }, known.length > 1 ? 'show what proves it' : 'show it'));
  if (kind.list.length > 1) {
    const turn = by => () => prove(kind.list[(kind.at + by + kind.list.length) % kind.list.length]);
    acts.append(make('span', { class: 'rest' }), make('span', {}, `${kind.at + 1} of ${kind.list.length}`),
      make('button', { onclick: turn(-1), title: 'previous' }, '\u2039'), make('button', { onclick: turn(1), title: 'next' }, '\u203a'));
  }
  const card = document.querySelector(`.violation[data-k="${k}"]`);
  card.classList.toggle('on', state.violation === v);
  card.replaceChildren(
    make('span', { class: 'checker' }, `${kinds.length > 1 ? k + 1 + ' \u00b7 ' : ''}violated \u00b7 checker ${violation.checker}`),
    make('h2', {}, violation.property),
    make('p', {}, violation.text),
    acts,
    ...violation.proof.slice(0, 40).map(proofRow));
}

function proofRow(proof) {
  const flag = make('b', {}, make('span', { class: 'flag' }, proof.flag));
  if (proof.event === null) {
    return make('button', { class: 'proof', disabled: '' }, flag, make('span', { class: 'what' }, proof.name, ' (not part of the story)'));
  }
  const e = events[proof.event];
  const jump = () => { focus(proof.v); pick(e.i, true); };
  return make('button', { class: 'proof', title: 'jump to it', onclick: jump }, flag,
    make('span', { class: 'what' }, make('span', { class: 'when mono' }, seconds(e.t1) + ' s  '), make('b', {}, e.who), ' ', e.says));
}

// Shows a violation, or none in particular.
function focus(v) {
  state.violation = v;
  if (v !== null) {
    const kind = kindOf(v);
    kind.at = kind.list.indexOf(v);
    raiseFlags();
  }
  kinds.forEach((_, k) => fillCard(k));
  redraw();
}

// The same, and goes to where it shows.
function prove(v) {
  focus(v);
  openTab('verdict');
  document.querySelector(`.violation[data-k="${kinds.indexOf(kindOf(v))}"]`).scrollIntoView({ block: 'nearest' });
  const known = eventsOf(v);
  if (!known.length) return;
  unfold(events[known[0]]);
  scrollToLane(events[known[0]]);
  flyTo(known);
}

// ---- all events, of which only those in sight are in the page

const ROW = 22;
const rows = {
  panel: make('div', { class: 'list', tabindex: '-1' }), inner: make('div', { class: 'virtual' }), list: [],
  gather() {
    rows.list = events.filter(e => isShown(e) && (!state.query || state.found.has(e.i)));
    rows.inner.style.height = rows.list.length * ROW + 'px';
    rows.draw();
  },
  draw() {
    if (rows.panel.hidden) return;
    const from = Math.max(Math.floor(rows.panel.scrollTop / ROW) - 5, 0);
    const to = Math.min(from + Math.ceil(rows.panel.clientHeight / ROW) + 10, rows.list.length);
    rows.inner.replaceChildren(...rows.list.slice(from, to).map((e, k) => rows.row(e, from + k)));
  },
  row(e, at) {
    const away = e.t1 < view.t0 || e.t0 > view.t1;
    const dot = make('span', { class: 'dot' });
    dot.style.background = proving.has(e.i) ? ink.bad : rowColor(e);
    const row = make('div', { class: `row ${e.cls} ${away ? 'away' : ''} ${e.i === state.selected ? 'on' : ''}`, onclick: () => pick(e.i, true) },
      make('span', { class: 'when' }, seconds(e.t1)), dot, make('span', { class: 'who' }, e.who), make('span', { class: 'what' }, e.says));
    row.style.top = at * ROW + 'px';
    return row;
  },
  // So that the list shows what the timeline shows, unless somebody reads it just now.
  follow() {
    if (rows.panel.hidden) return;
    if (!rows.panel.matches(':hover')) {
      const chosen = state.selected === null ? -1 : rows.list.findIndex(e => e.i === state.selected);
      const first = chosen >= 0 ? chosen - 4 : firstAt(rows.list, view.t0, e => e.t1);
      rows.panel.scrollTop = Math.max(first, 0) * ROW;
    }
    rows.draw();
  },
};
rows.panel.append(rows.inner);
rows.panel.addEventListener('scroll', () => rows.draw());

function rowColor(e) {
  if (e.kind === 'member') return ink[e.role] === ink.silent ? ink.hatch : ink[e.role];
  return { read: ink.read, write: ink.write, refused: ink.refused, unknown: ink.unknown, fault: ink['fault-edge'],
    watch: ink.watch, host: ink.mark, warn: ink.bad, info: ink.line, phase: ink.lane }[e.cls];
}

// ---- the plan

function planPanel() {
  const lines = run.plan.trimEnd().split('\n');
  let step = 0;
  const shown = lines.map(line => {
    if (!line.startsWith('at ')) {
      const [key, ...value] = line.split(' ');
      return make('span', {}, make('span', { class: 'key' }, key + ' '), value.join(' ') + '\n');
    }
    const fault = faults.find(f => f.step === step);
    const number = step++;
    return make('span', { class: 'step', title: 'jump to it', onclick: () => fault && pick(fault.began, true) }, `f${number}  ${line}`);
  });
  const how = make('p', {}, 'As a file, it plays with ', make('code', {}, 'replay --script FILE'), ' ',
    make('button', { onclick: event => copy(event.target, run.plan) }, 'copy'));
  return make('div', {}, how, make('pre', { class: 'plan' }, ...shown));
}

// ---- help

function helpPanel() {
  const keys = [
    ['wheel', 'zoom at the pointer; sideways or with Shift: move'],
    ['drag', 'move; on the time axis or overview, or with Shift: zoom to what is marked'],
    ['double click', 'zoom to an event, or in'],
    ['click', 'pick an event; on a heading: fold its lanes'],
    [['a', 'd', '\u2190', '\u2192'], 'move'], [['w', 's', '+', '-'], 'zoom'], [['0'], 'the whole run'],
    [['n', 'p'], 'next and previous event of the same lane'], [['v'], 'what proves the next violation'],
    [['/'], 'search; Enter: next that was found, Shift+Enter: previous'], [['l'], 'light or dark'], [['Esc'], 'let go'],
  ];
  const cell = what => Array.isArray(what) ? what.flatMap(key => [make('kbd', {}, key), ' ']) : [what];
  return make('div', {}, make('table', { class: 'keys' },
    ...keys.map(([what, does]) => make('tr', {}, make('td', {}, ...cell(what)), make('td', {}, does)))),
  make('p', {}, 'The address names what is seen: ', make('code', {}, '#t=12.5-14.2'), ' in seconds. Curves of members: the line is what they know to be committed, the ground what they have applied, over the range in view.'));
}

// ---- one event

function pick(i, travel) {
  state.selected = i;
  const e = events[i];
  details.hidden = false;
  const list = neighbours.get(laneOf(e));
  const at = list.indexOf(e);
  const step = by => list[at + by] && pick(list[at + by].i, true);
  const marks = (flags.get(i) || []).map(proof => make('span', { class: 'flag', title: run.violations[proof.v].property }, proof.flag));
  details.replaceChildren(
    make('div', { class: 'line' }, make('b', {}, e.who || 'phase'), make('span', { class: 'mono' }, seconds(e.t1) + ' s'), ...marks),
    make('div', { class: 'says mono' }, e.says),
    make('dl', {}, ...facts(e).flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, value)])),
    make('div', { class: 'acts' }, make('button', { onclick: () => flyTo([i]) }, 'zoom to it'),
      make('button', { onclick: () => step(-1), title: 'previous of its lane (p)' }, '\u2039'),
      make('button', { onclick: () => step(1), title: 'next of its lane (n)' }, '\u203a')));
  if (travel) comeTo(e);
  whenMoved();
  redraw();
}

// Into view, with as little movement as it takes.
function comeTo(e) {
  unfold(e);
  const span = view.t1 - view.t0;
  const wanted = Math.min(span, Math.max((e.t1 - e.t0) * 6, 2.5e6));
  const middle = (e.t0 + e.t1) / 2;
  const inside = e.t0 > view.t0 + span * 0.04 && e.t1 < view.t1 - span * 0.04;
  if (!inside || span > wanted * 8) fly(middle - wanted / 2, middle + wanted / 2);
  scrollToLane(e);
}

function letGo() {
  state.selected = null;
  details.hidden = true;
  focus(null);
}

function facts(e) {
  const list = [];
  if (e.kind === 'operation') {
    list.push(['began', seconds(e.t0) + ' s'], ['took', length(e.t1 - e.t0)], ['workload', e.workload], ['outcome', outcomeOf(e)]);
  } else if (e.kind === 'member') {
    list.push(['role', e.role], ['term', e.term], ['commit', e.commit], ['applied', e.applied], ['leader', e.leader || 'none known']);
  } else if (e.kind === 'fault_began') {
    const fault = faults.find(f => f.began === e.i);
    list.push(['hosts', e.hosts.join(' ') || 'all'], ['lasted', length(fault.t1 - fault.t0)], ['in the plan', e.label]);
  }
  return list;
}

function outcomeOf(e) {
  const { outcome, revision, text } = e.outcome;
  return { answered: `answered at revision ${revision}`, refused: `refused, has not happened: ${text}`,
    unknown: `unknown, may have happened or happen yet: ${text}` }[outcome];
}

function showTip(x, y, i, lane) {
  const parts = i === null ? tipOfLane(x, lane) : tipOfEvent(events[i]);
  tip.hidden = !parts.length;
  if (tip.hidden) return;
  tip.replaceChildren(...parts);
  const box = tip.getBoundingClientRect();
  const right = x + 16 + box.width > innerWidth;
  tip.style.left = Math.max(right ? x - box.width - 12 : x + 16, 4) + 'px';
  tip.style.top = Math.max(Math.min(y + 16, innerHeight - box.height - 6), 4) + 'px';
}

function tipOfEvent(e) {
  const marks = (flags.get(e.i) || []).map(proof => make('span', { class: 'flag' }, proof.flag));
  const parts = [make('div', { class: 'line' }, make('b', {}, e.who), make('span', { class: 'when' }, timesOf(e)), ...marks),
    make('div', { class: 'mono' }, e.says)];
  for (const proof of flags.get(e.i) || []) parts.push(make('div', { class: 'also' }, 'proves: ' + run.violations[proof.v].property));
  return parts;
}

function timesOf(e) {
  if (e.kind === 'fault_began') {
    const fault = faults.find(f => f.began === e.i);
    return `${seconds(fault.t0, 1000)} to ${seconds(fault.t1, 1000)} s`;
  }
  return e.t0 === e.t1 ? seconds(e.t1) + ' s' : `${seconds(e.t0)} s, ${length(e.t1 - e.t0)}`;
}

// What held at that moment, where nothing is under the pointer.
function tipOfLane(x, lane) {
  if (!lane || !lane.bands || state.cursor === null) return [];
  const t = state.cursor;
  const over = lane.bands.filter(fault => fault.t0 <= t && t <= fault.t1);
  if (!over.length) return [];
  return [make('div', { class: 'line' }, make('b', {}, lane.label), make('span', { class: 'when' }, seconds(t, 1000) + ' s')),
    ...over.map(fault => make('div', { class: 'mono' }, `f${fault.step} ${fault.says}`))];
}
