// What histogram and map share: packed charts, colours of the theme, and the cutoff in the hand.

const bus = (window.mimicscopeCharts ??= Object.assign(new EventTarget(), { packed: new Map() }));

function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const kinds = {
    uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float64: Float64Array,
  };
  for (const [name, [kind, at, size]] of Object.entries(head.arrays)) {
    head[name] = new kinds[kind](buffer, 4 + length + at, size);
  }
  return head;
}

// One packed chart; the newest few stay, so that going back to a column asks for nothing.
function fetchPacked(address) {
  const kept = bus.packed;
  if (!kept.has(address)) {
    kept.set(address, fetch(address).then(async (answer) => {
      if (!answer.ok) throw new Error(await answer.text());
      return unpack(await answer.arrayBuffer());
    }));
    kept.get(address).catch(() => kept.delete(address));
    while (kept.size > 12) kept.delete(kept.keys().next().value);
  }
  return kept.get(address);
}

// The part of each bin that lies inside a span, 0 to 1; null is open. Ties at an end are kept.
function covered(edges, low, high) {
  const bins = Math.max(0, edges.length - 1);
  const part = new Float32Array(bins);
  for (let bin = 0; bin < bins; bin++) {
    const from = edges[bin], to = edges[bin + 1];
    const below = low === null || low <= from ? 0 : low > to ? 1 : width(from, low, to);
    const above = high === null || high >= to ? 0 : high < from ? 1 : 1 - width(from, high, to);
    part[bin] = Math.max(0, 1 - below - above);
  }
  return part;
}

function width(from, value, to) {
  return to > from ? (value - from) / (to - from) : value > from ? 1 : 0;
}

function move(detail) {
  bus.dispatchEvent(new CustomEvent('cutoff', { detail }));
}

function onMove(owner, listen) {
  const heard = (event) => listen(event.detail);
  bus.addEventListener('cutoff', heard);
  return () => bus.removeEventListener('cutoff', heard);
}

// Draws at most once a frame, however often it is asked to.
function everyFrame(draw) {
  let waiting = 0;
  return () => {
    if (waiting) return;
    waiting = requestAnimationFrame(() => { waiting = 0; draw(); });
  };
}

function node(kind, name, parent, text) {
  const made = document.createElement(kind);
  if (name) made.className = name;
  if (text) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function sharpen(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const pen = canvas.getContext('2d');
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}

const whole = (number) => Math.round(number).toLocaleString('en-US');
const short = (number) => {
  const size = Math.abs(number);
  if (size && (size < 1e-3 || size >= 1e6)) return number.toExponential(2);
  return String(Number(number.toPrecision(4)));
};
