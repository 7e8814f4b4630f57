// The histogram with its cutoff, which moves with the hand: by mouse, finger or arrow key.

const MARGIN = { left: 46, right: 12, top: 10, bottom: 34 };
const NEAR = 12; // pixels between pointer and handle
const SETTLED = 350; // milliseconds without an arrow key until the server is told

export default function({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector('.chart');
  root.querySelector('.fallback')?.remove();
  const own = (root.own ??= build(root));
  own.data = data;
  root.style.setProperty('--accent', data.tones.accent);
  own.tell = (span) => setTriggerValue('span', span);
  if (!own.hand) own.span = data.span.slice();
  own.paint();
  fetchPacked(data.packed).then((packed) => {
    if (own.data.packed !== data.packed) return;
    own.packed = packed;
    root.dataset.ready = data.packed;
    own.paint();
  }, (error) => { own.note.textContent = String(error.message || error); });
  own.watch ??= watch(own);
  return () => { own.watch?.(); own.watch = null; };
}

function build(root) {
  const own = { root, span: [null, null], hand: null, moved: false };
  own.board = node('canvas', 'board', root);
  own.handles = [0, 1].map((end) => handle(own, end));
  own.tip = node('div', 'tip', root);
  own.counts = node('div', 'counts', root);
  own.counts.setAttribute('aria-live', 'polite');
  own.note = node('div', 'note', root);
  own.paint = everyFrame(() => draw(own));
  own.board.addEventListener('pointerdown', (event) => take(own, event, nearest(own, event)));
  own.board.addEventListener('pointermove', (event) => hover(own, event));
  own.board.addEventListener('pointerleave', () => { own.tip.hidden = true; });
  return own;
}

function watch(own) {
  const seen = new ResizeObserver(own.paint);
  seen.observe(own.root);
  return () => seen.disconnect();
}

function handle(own, end) {
  const made = node('div', 'handle', own.root);
  made.tabIndex = 0;
  made.setAttribute('role', 'slider');
  made.setAttribute('aria-orientation', 'horizontal');
  made.setAttribute('aria-label', end ? 'Upper cutoff' : 'Lower cutoff');
  made.dataset.end = end;
  made.addEventListener('pointerdown', (event) => take(own, event, end));
  made.addEventListener('keydown', (event) => key(own, event, end));
  return made;
}

// Where the pointer takes hold: a handle that is near, else a new span from here on.
function nearest(own, event) {
  const at = own.ends().map((value) => Math.abs(own.toPixel(value) - local(own, event)));
  const end = at[0] <= at[1] ? 0 : 1;
  return at[end] <= NEAR ? end : null;
}

function local(own, event) {
  return event.clientX - own.board.getBoundingClientRect().left;
}

function take(own, event, end) {
  if (event.button || !own.packed) return;
  event.preventDefault();
  const start = own.clamp(own.toValue(local(own, event)));
  const before = own.span.slice();
  own.hand = { end, start };
  own.tip.hidden = true;
  const target = event.currentTarget;
  target.setPointerCapture(event.pointerId);
  if (end !== null) own.handles[end].focus({ preventScroll: true });
  const follow = (moved) => {
    const value = own.clamp(own.toValue(local(own, moved)));
    if (end === null) own.set(...[start, value].sort((a, b) => a - b));
    else if (end) own.set(own.span[0], Math.max(value, own.ends()[0]));
    else own.set(Math.min(value, own.ends()[1]), own.span[1]);
    move({ ...own.where(), dragging: true });
  };
  const done = (ended) => {
    target.removeEventListener('pointermove', follow);
    target.removeEventListener('pointerup', done);
    target.removeEventListener('pointercancel', done);
    const click = end === null && Math.abs(local(own, ended) - own.toPixel(start)) < 3;
    own.hand = null;
    if (ended.type === 'pointercancel' || click) own.set(...before);
    else if (own.span.some((value, one) => value !== before[one])) own.tell(own.span);
    move({ ...own.where(), dragging: false });
    own.paint();
  };
  target.addEventListener('pointermove', follow);
  target.addEventListener('pointerup', done);
  target.addEventListener('pointercancel', done);
}

function key(own, event, end) {
  const coarse = event.shiftKey ? 10 : 1;
  const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -20, PageUp: 20 };
  const bounds = own.packed?.bars;
  if (!bounds) return;
  const [first, last] = [bounds[0], bounds[bounds.length - 1]];
  let value;
  if (event.key in steps) value = own.ends()[end] + steps[event.key] * coarse * (last - first) / 500;
  else if (event.key === 'Home') value = end ? own.ends()[0] : first;
  else if (event.key === 'End') value = end ? last : own.ends()[1];
  else if (event.key === 'Delete' || event.key === 'Backspace') value = end ? last : first;
  else return;
  event.preventDefault();
  event.stopPropagation();
  if (end) own.set(own.span[0], Math.max(own.clamp(value), own.ends()[0]));
  else own.set(Math.min(own.clamp(value), own.ends()[1]), own.span[1]);
  move({ ...own.where(), dragging: true });
  clearTimeout(own.later);
  own.hand = { end };
  own.later = setTimeout(() => {
    own.hand = null;
    own.tell(own.span);
    move({ ...own.where(), dragging: false });
  }, SETTLED);
}

function scales(own) {
  const { packed } = own;
  const [width, height] = [own.root.clientWidth, own.data.height];
  const plot = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
  const [low, high] = [packed.bars[0], packed.bars[packed.bars.length - 1]];
  const each = (plot.right - plot.left) / (high - low || 1);
  own.toPixel = (value) => plot.left + (value - low) * each;
  own.toValue = (pixel) => low + (pixel - plot.left) / each;
  own.clamp = (value) => Math.min(high, Math.max(low, value));
  own.ends = () => [own.span[0] ?? low, own.span[1] ?? high];
  // An end that is dragged to the axis's own end is open, not a cutoff there.
  const slack = (high - low) * 0.004;
  own.set = (from, to) => {
    own.span = [
      from === null || from <= low + slack ? null : from,
      to === null || to >= high - slack ? null : to,
    ];
    own.paint();
  };
  own.where = () => ({ scope: own.data.scope, column: own.data.column, span: own.span.slice() });
  return { width, height, plot, low, high };
}

function draw(own) {
  const { packed, data } = own;
  if (!packed || !own.root.clientWidth) return;
  const frame = scales(own);
  const { plot } = frame;
  own.board.style.height = `${frame.height}px`;
  const pen = sharpen(own.board, frame.width, frame.height);
  const tones = data.tones;
  const most = packed.all.reduce((a, b) => Math.max(a, b), 1);
  const y = (count) => plot.bottom - (count / most) * (plot.bottom - plot.top);
  axes(pen, own, frame, most, y);
  const [from, to] = own.ends().map(own.toPixel);
  if (own.span[0] !== null || own.span[1] !== null) {
    pen.globalAlpha = 0.12;
    pen.fillStyle = tones.faint;
    pen.fillRect(plot.left, plot.top, from - plot.left, plot.bottom - plot.top);
    pen.fillRect(to, plot.top, plot.right - to, plot.bottom - plot.top);
    pen.globalAlpha = 1;
  }
  pen.fillStyle = tones.dropped;
  bars(pen, own, plot, packed.all, y);
  pen.save();
  pen.beginPath();
  pen.rect(from, 0, Math.max(0, to - from), plot.bottom);
  pen.clip();
  pen.fillStyle = tones.kept;
  bars(pen, own, plot, packed.others, y);
  pen.restore();
  own.handles.forEach((one, end) => {
    const value = own.ends()[end];
    const open = own.span[end] === null;
    one.style.transform = `translateX(${own.toPixel(value)}px)`;
    one.style.height = `${plot.bottom}px`;
    one.classList.toggle('open', open);
    one.dataset.value = open ? '' : short(value);
    one.setAttribute('aria-valuemin', frame.low);
    one.setAttribute('aria-valuemax', frame.high);
    one.setAttribute('aria-valuenow', value);
    one.setAttribute('aria-valuetext', open ? 'open' : short(value));
  });
  tell(own);
}

function bars(pen, own, plot, counts, y) {
  const edges = own.packed.bars;
  pen.beginPath();
  for (let bar = 0; bar < counts.length; bar++) {
    if (!counts[bar]) continue;
    const left = own.toPixel(edges[bar]);
    const top = Math.min(plot.bottom - 1, y(counts[bar]));
    pen.rect(left, top, Math.max(1, own.toPixel(edges[bar + 1]) - left - 0.5), plot.bottom - top);
  }
  pen.fill();
}

function axes(pen, own, { plot, low, high, height }, most, y) {
  const tones = own.data.tones;
  pen.font = `12px ${getComputedStyle(own.root).fontFamily}`;
  pen.fillStyle = tones.ink;
  pen.strokeStyle = tones.grid;
  pen.textAlign = 'right';
  pen.textBaseline = 'middle';
  for (const tick of ticks(0, most, 4).filter(Number.isInteger)) {
    pen.beginPath();
    pen.moveTo(plot.left, y(tick));
    pen.lineTo(plot.right, y(tick));
    pen.stroke();
    pen.fillText(tick >= 10000 ? `${short(tick / 1000)}k` : String(tick), plot.left - 6, y(tick));
  }
  pen.textAlign = 'center';
  pen.textBaseline = 'top';
  for (const tick of ticks(low, high, Math.max(2, (plot.right - plot.left) / 90))) {
    pen.fillText(short(tick), own.toPixel(tick), plot.bottom + 5);
  }
  pen.fillText(own.data.title, (plot.left + plot.right) / 2, height - 13);
}

function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((one) => one >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) {
    found.push(Number(tick.toPrecision(10)));
  }
  return found;
}

// Counts of what the cutoff keeps: exact from the server, or from the bins while it moves.
function tell(own) {
  const { data, packed } = own;
  const exact = own.span.every((value, end) => value === data.span[end]);
  const found = exact ? data.exact : estimate(packed, own.span);
  const about = exact ? '' : '≈ ';
  const parts = [
    ['kept', `${about}${whole(found.kept)} of ${whole(packed.total)}`],
    ['retention', `${about}${(100 * found.kept / (packed.total || 1)).toFixed(1)} %`],
  ];
  if (found.noisy_kept !== undefined && packed.noisy_total) {
    const dropped = packed.total - found.kept;
    const right = packed.noisy_total - found.noisy_kept;
    const precision = dropped ? right / dropped : null;
    const recall = right / packed.noisy_total;
    const f1 = right ? 2 * precision * recall / (precision + recall) : 0;
    parts.push(
      ['precision', precision === null ? '–' : about + precision.toFixed(3)],
      ['recall', about + recall.toFixed(3)],
      ['F1', about + f1.toFixed(3)],
    );
  }
  own.root.dataset.exact = exact;
  own.counts.replaceChildren(...parts.map(([name, said]) => {
    const one = node('span', '', null);
    node('b', '', one, said);
    one.append(` ${name}`);
    return one;
  }));
}

function estimate(packed, span) {
  const part = covered(packed.edges, ...span);
  const open = span[0] === null && span[1] === null; // without a cutoff missing values stay
  let kept = open ? packed.missing_kept : 0;
  let noisy = open ? packed.noisy_missing_kept : 0;
  for (let bin = 0; bin < part.length; bin++) {
    kept += part[bin] * packed.kept[bin];
    if (packed.noisy) noisy += part[bin] * packed.noisy[bin];
  }
  return packed.noisy ? { kept, noisy_kept: noisy } : { kept };
}

function hover(own, event) {
  if (!own.packed || own.hand) return;
  const value = own.toValue(local(own, event));
  const edges = own.packed.bars;
  let bar = edges.length - 2;
  while (bar > 0 && edges[bar] > value) bar--;
  own.board.style.cursor = nearest(own, event) === null ? 'crosshair' : 'ew-resize';
  own.tip.hidden = !(value >= edges[0] && value <= edges[edges.length - 1]);
  own.tip.textContent = `${short(edges[bar])} to ${short(edges[bar + 1])}: `
    + `${whole(own.packed.all[bar])} samples, ${whole(own.packed.others[bar])} kept by the other conditions`;
  const right = own.toPixel(value) > own.root.clientWidth / 2;
  own.tip.style.left = right ? '' : `${own.toPixel(value) + 14}px`;
  own.tip.style.right = right ? `${own.root.clientWidth - own.toPixel(value) + 14}px` : '';
}
