// The run, as the page needs it: events with their time spans, and the lanes they belong to.

const run = JSON.parse(document.getElementById('run').textContent);
const events = run.events;
const END = Math.max(run.simulated_us, ...tail(events).map(e => e.at_us), 1);

function tail(list) { return list.slice(-1); }

// What can be hidden, and how the lists colour it.
function classOf(e) {
  switch (e.kind) {
    case 'operation':
      if (e.outcome.outcome !== 'answered') return e.outcome.outcome;
      return /^(get|ask|list|keep|txn if 0 then \[get)/.test(e.call) ? 'read' : 'write';
    case 'fault_began': case 'fault_ended': return 'fault';
    case 'log': return e.level === 'info' ? 'info' : 'warn';
    default: return e.kind;
  }
}

events.forEach((e, i) => {
  e.i = i;
  e.t1 = e.at_us;
  e.t0 = e.kind === 'operation' ? e.began_us : e.at_us;
  e.cls = classOf(e);
});

// Names in the order in which people count.
function byName(a, b) { return a.localeCompare(b, 'en', { numeric: true }); }

function grouped(list, key) {
  const groups = new Map();
  for (const item of list) {
    const name = key(item);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(item);
  }
  return groups;
}

function ofKind(kind) { return events.filter(e => e.kind === kind); }

// Puts what overlaps below each other; `item.row` counts from 0.
function pack(items, rowsMax, gap) {
  const ends = [];
  for (const item of items) {
    let row = ends.findIndex(end => end <= item.t0);
    if (row < 0 && ends.length < rowsMax) row = ends.push(0) - 1;
    if (row < 0) row = ends.indexOf(Math.min(...ends));
    item.row = row;
    ends[row] = Math.max(ends[row], item.t1 + gap);
  }
  return Math.max(ends.length, 1);
}

// ---- phases and faults

const phases = ofKind('phase').map((e, n, all) =>
  ({ name: e.name, t0: e.at_us, t1: n + 1 < all.length ? all[n + 1].at_us : END }));

const faults = [];
for (const e of events) {
  if (e.kind === 'fault_began') {
    faults.push({ step: e.step, says: e.says, hosts: e.hosts, t0: e.at_us, t1: END, began: e.i, ended: null });
  } else if (e.kind === 'fault_ended') {
    const fault = faults.find(f => f.step === e.step && f.ended === null);
    if (fault) { fault.t1 = e.at_us; fault.ended = e.i; }
  }
}
const faultRows = pack(faults, 12, END / 400);

// ---- members

const DOWN = { killed: 'down', power_lost: 'power lost', ended: 'ended' };

// The spans in which a host does not run, or is paused.
function absences(changes) {
  const spans = [];
  let open = null;
  let paused = null;
  const close = (span, at) => { if (span) { span.t1 = at; spans.push(span); } };
  for (const e of changes) {
    if (e.change in DOWN) {
      close(paused, e.at_us); paused = null;
      if (!open) open = { t0: e.at_us, why: DOWN[e.change] };
    } else if (e.change === 'started') {
      close(open, e.at_us); open = null;
    } else if (e.change === 'paused') {
      paused = { t0: e.at_us, why: 'paused' };
    } else if (e.change === 'resumed') {
      close(paused, e.at_us); paused = null;
    }
  }
  close(open, END);
  close(paused, END);
  return spans.sort((a, b) => a.t0 - b.t0);
}

// From the first start on; what it is in between is drawn over it.
function stays(changes) {
  const first = changes.find(e => e.change === 'started');
  return first ? [{ t0: first.at_us, t1: END }] : [];
}

// Successive reports of one role in one term are one span.
function reigns(states) {
  const spans = [];
  for (const e of states) {
    const last = spans[spans.length - 1];
    if (last && last.role === e.role && last.term === e.term && last.leader === e.leader) continue;
    if (last) last.t1 = e.at_us;
    spans.push({ t0: e.at_us, t1: END, role: e.role, term: e.term, leader: e.leader, i: e.i });
  }
  return spans;
}

const reports = grouped(ofKind('member'), e => e.host);
const changes = grouped(ofKind('host'), e => e.host);
const logs = grouped(ofKind('log'), e => e.host);
const calls = grouped(ofKind('operation'), e => 'c' + e.client);

const isClient = host => calls.has(host) || /^c\d+$/.test(host);
const memberNames = [...new Set([...reports.keys(), ...changes.keys(), ...logs.keys()])]
  .filter(host => reports.has(host) || /^m\d+$/.test(host)).sort(byName);

const members = memberNames.map(host => ({
  kind: 'member', host, label: host, h: 58,
  states: reports.get(host) || [],
  reigns: reigns(reports.get(host) || []),
  stays: stays(changes.get(host) || []),
  absences: absences(changes.get(host) || []),
  marks: changes.get(host) || [],
  logs: logs.get(host) || [],
  bands: faults.filter(f => f.hosts.includes(host)),
}));

// ---- clients

const CALL_PITCH = 15;

const clients = [...new Set([...calls.keys(), ...changes.keys()])].filter(isClient).sort(byName).map(host => {
  const items = (calls.get(host) || []).slice().sort((a, b) => a.t0 - b.t0);
  const rows = pack(items, 3, 0);
  const names = [...new Set(items.map(e => e.workload))].join(' ');
  return {
    kind: 'client', host, label: host, sub: names, items, rows, h: 8 + CALL_PITCH * rows,
    bands: faults.filter(f => f.hosts.includes(host)),
    longest: Math.max(0, ...items.slice(0, 50000).map(e => e.t1 - e.t0)),
  };
});

// ---- watch streams

const streams = [...grouped(ofKind('watch'), e => e.stream).entries()].map(([stream, news]) => {
  const last = news[news.length - 1];
  const over = last.news.news === 'ended';
  return { stream, host: news[0].host, news, t0: news[0].at_us, t1: over ? last.at_us : END, over };
}).sort((a, b) => a.t0 - b.t0);
const streamRows = pack(streams, 40, END / 300);

// ---- what proves what

// One property may be violated a thousand times; of each, one violation is shown at a time.
const kinds = [...grouped(run.violations.map((_, v) => v), v => {
  const { checker, property } = run.violations[v];
  return checker + ' ' + property;
}).values()].map(list => ({ list, at: 0 }));

kinds.forEach((kind, k) => kind.list.forEach(v => run.violations[v].proof.forEach((proof, n, all) => {
  proof.v = v;
  proof.flag = String(k + 1) + (all.length > 1 ? letters(n) : '');
})));

function kindOf(v) { return kinds.find(kind => kind.list.includes(v)); }
function eventsOf(v) { return run.violations[v].proof.map(proof => proof.event).filter(event => event !== null); }

// The events that prove anything, and of those, with their flags, the ones that prove what is shown.
const proving = new Set(run.violations.flatMap((_, v) => eventsOf(v)));
const flags = new Map();
function raiseFlags() {
  flags.clear();
  for (const kind of kinds) {
    for (const proof of run.violations[kind.list[kind.at]].proof) {
      if (proof.event === null) continue;
      if (!flags.has(proof.event)) flags.set(proof.event, []);
      flags.get(proof.event).push(proof);
    }
  }
}
raiseFlags();

function letters(n) { return (n >= 26 ? letters(Math.floor(n / 26) - 1) : '') + String.fromCharCode(97 + n % 26); }

// ---- lanes, from the top down

const group = (name, count) => ({ kind: 'group', name, count, h: 24, folded: false });
const lanes = [];
function addGroup(name, count, list) {
  if (!list.length) return;
  const head = group(name, count);
  lanes.push(head);
  for (const lane of list) { lane.group = head; lanes.push(lane); }
}
addGroup('Faults', faults.length, faults.length ? [{ kind: 'faults', label: '', h: 8 + 19 * faultRows }] : []);
addGroup('Members', members.length, members);
addGroup('Clients', clients.length, clients);
addGroup('Watch streams', streams.length, streams.length ? [{ kind: 'streams', label: '', h: 8 + 15 * streamRows }] : []);

// The lane's own list of what happened, for stepping from one event to the next.
function laneOf(e) { return e.who; }
const neighbours = grouped(events, laneOf);

// ---- searching

let haystack = null;
function search(words) {
  haystack = haystack || events.map(e => (e.who + ' ' + e.says).toLowerCase());
  const names = new Set(events.map(e => e.who));
  const tests = words.toLowerCase().split(/\s+/).filter(Boolean).map(word =>
    names.has(word) ? i => events[i].who === word || haystack[i].split(/[^\w]+/).includes(word) : i => haystack[i].includes(word));
  const found = new Set();
  if (tests.length) for (let i = 0; i < events.length; i++) if (tests.every(test => test(i))) found.add(i);
  return found;
}

// The first index whose time is not before `t`.
function firstAt(list, t, time) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (time(list[mid]) < t) low = mid + 1; else high = mid;
  }
  return low;
}
