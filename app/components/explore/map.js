// The map: cells that follow the cutoff on every frame, a lasso, and a view to zoom and move.

const SETTLED = 250; // milliseconds without a turn of the wheel until the server draws it crisply
const LASSO_STEP = 3; // pixels between corners
const HOVER_REACH = 14; // pixels

export default function({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector('.chart');
  root.querySelector('.fallback')?.remove();
  const own = (root.own ??= build(root));
  own.data = data;
  root.style.setProperty('--accent', data.tones.accent);
  own.tell = setTriggerValue;
  if (!own.dragging) own.span = data.span.slice();
  legend(own);
  fetchPacked(data.packed).then((packed) => {
    if (own.data.packed !== data.packed) return;
    const moved = !own.packed || String(own.packed.box) !== String(packed.box);
    own.packed = packed;
    own.blocks = null;
    if (moved) own.view = packed.box.slice();
    root.dataset.ready = data.packed;
    own.paint();
  }, (error) => { own.note.textContent = String(error.message || error); });
  own.paint();
  own.watch ??= watch(own);
  return () => { own.watch?.(); own.watch = null; };
}

function build(root) {
  const own = { root, span: [null, null], tool: 'lasso', path: null, shows: 'mean' };
  own.field = node('div', 'field', root);
  own.points = node('canvas', '', own.field);
  own.over = node('canvas', '', own.field);
  own.tip = node('div', 'tip', own.field);
  own.grid = document.createElement('canvas');
  own.legend = node('div', 'legend', root);
  own.note = node('div', 'note', root);
  own.paint = everyFrame(() => draw(own));
  tools(own);
  own.over.addEventListener('pointerdown', (event) => down(own, event));
  own.over.addEventListener('pointermove', (event) => hover(own, event));
  own.over.addEventListener('pointerleave', () => { own.tip.hidden = true; });
  own.over.addEventListener('wheel', (event) => wheel(own, event), { passive: false });
  return own;
}

function watch(own) {
  const seen = new ResizeObserver(own.paint);
  seen.observe(own.root);
  const deaf = onMove(own, (moved) => {
    if (moved.scope !== own.data?.scope || moved.column !== own.data.column) return;
    own.span = moved.span;
    own.dragging = moved.dragging;
    own.paint();
  });
  return () => { seen.disconnect(); deaf(); };
}

function tools(own) {
  const bar = node('div', 'tools', own.field);
  for (const [tool, name] of [['lasso', 'Lasso'], ['box', 'Box'], ['pan', 'Move']]) {
    const button = node('button', '', bar, name);
    button.type = 'button';
    button.setAttribute('aria-pressed', tool === own.tool);
    button.onclick = () => {
      own.tool = tool;
      own.field.classList.toggle('pan', tool === 'pan');
      for (const one of bar.querySelectorAll('button')) one.setAttribute('aria-pressed', one === button);
    };
  }
  const shown = node('select', '', bar);
  shown.setAttribute('aria-label', 'What a cell of many samples shows');
  for (const [value, name] of [['mean', 'Mean'], ['lowest', 'Lowest kept'], ['share', 'Share kept']]) {
    node('option', '', shown, name).value = value;
  }
  shown.onchange = () => { own.shows = shown.value; own.paint(); };
  own.chooser = shown;
}

// From map coordinates to pixels of the field: one unit is equally long in x and y.
function frame(own) {
  const [x0, x1, y0, y1] = own.view;
  const [width, height] = [own.field.clientWidth, own.data.height];
  const each = Math.min(width / (x1 - x0), height / (y1 - y0));
  const left = (width - each * (x1 - x0)) / 2;
  const top = (height - each * (y1 - y0)) / 2;
  return {
    width, height, each,
    x: (value) => left + (value - x0) * each,
    y: (value) => top + (y1 - value) * each,
    toX: (pixel) => x0 + (pixel - left) / each,
    toY: (pixel) => y1 - (pixel - top) / each,
  };
}

function draw(own) {
  const { packed, data } = own;
  if (!packed || !own.root.clientWidth) return;
  own.field.style.height = `${data.height}px`;
  const at = frame(own);
  colourCells(own);
  const pen = sharpen(own.points, at.width, at.height);
  const [x0, x1, y0, y1] = packed.box;
  pen.drawImage(own.grid, at.x(x0), at.y(y1), at.each * (x1 - x0), at.each * (y1 - y0));
  const over = sharpen(own.over, at.width, at.height);
  over.strokeStyle = data.tones.accent;
  over.lineWidth = 2;
  for (const corners of [...data.outlines, ...(own.path ? [own.path] : [])]) {
    over.beginPath();
    corners.forEach(([x, y]) => over.lineTo(at.x(x), at.y(y)));
    over.closePath();
    over.stroke();
  }
}

// Of every cell: how much is kept, in which colour, how many there are.
function colourCells(own) {
  const { packed, data } = own;
  const { kinds, counts, dropped, cells } = packed;
  const part = weights(packed, own.span);
  const grey = rgbOf(data.tones.dropped);
  packed.places ??= places(cells);
  packed.sizes ??= sizes(packed);
  const look = (own.look ??= {});
  if (look.of !== packed) {
    look.of = packed;
    look.rgba = new Uint8ClampedArray(cells.length * 4);
    look.image = null;
  }
  const { rgba } = look;
  const dense = packed.typical > 1.5;
  own.chooser.hidden = !packed.tones;
  const shows = packed.tones ? own.shows : 'mean';
  const blue = rgbOf(data.tones.kept);
  for (let cell = 0, at = 0; cell < cells.length; cell++) {
    let kept = 0, lowest = -1, colour = [0, 0, 0];
    for (let kind = 0; kind < kinds; kind++, at++) {
      const here = counts[at] * part[kind];
      if (!here) continue;
      kept += here;
      if (lowest < 0) lowest = kind;
      if (packed.tones) for (let one = 0; one < 3; one++) colour[one] += here * packed.tones[3 * kind + one];
    }
    const all = packed.sizes[cell] + dropped[cell];
    const share = all ? kept / all : 0;
    if (packed.rgb) colour = packed.rgb.subarray(3 * cell, 3 * cell + 3);
    else if (shows === 'share') colour = blue;
    else if (shows === 'lowest' && kept) colour = packed.tones.subarray(3 * lowest, 3 * lowest + 3);
    else if (kept) for (let one = 0; one < 3; one++) colour[one] /= kept;
    const mixed = shows === 'lowest' && kept ? 1 : share;
    for (let one = 0; one < 3; one++) {
      rgba[4 * cell + one] = grey[one] + mixed * (colour[one] - grey[one]);
    }
    const depth = dense ? 0.35 + 0.65 * Math.min(1, Math.log1p(all) / Math.log1p(packed.typical * 4)) : 0.85;
    rgba[4 * cell + 3] = 255 * depth * (0.55 + 0.45 * share);
  }
  paintCells(own, look);
}

// A cell is a disc of the grid; what is kept lies over what is not.
function paintCells(own, look) {
  const { packed } = own;
  const { width, height, radius, places: at } = packed;
  if (own.grid.width !== width || own.grid.height !== height) {
    [own.grid.width, own.grid.height] = [width, height];
    look.image = null;
  }
  const pen = own.grid.getContext('2d');
  look.image ??= pen.createImageData(width, height);
  const pixels = look.image.data;
  pixels.fill(0);
  const disc = [];
  for (let dy = -radius; dy <= radius; dy++) {
    for (let dx = -radius; dx <= radius; dx++) {
      if (dx * dx + dy * dy <= radius * radius + 0.5) disc.push([dx, dy]);
    }
  }
  const { rgba } = look;
  for (const above of [false, true]) {
    for (let cell = 0; cell < at.length; cell++) {
      const alpha = rgba[4 * cell + 3];
      if ((alpha > 180) !== above) continue;
      const row = Math.floor(at[cell] / width), column = at[cell] % width;
      for (const [dx, dy] of disc) {
        const x = column + dx, y = row + dy;
        if (x < 0 || y < 0 || x >= width || y >= height) continue;
        over(pixels, 4 * (y * width + x), rgba, 4 * cell, alpha / 255);
      }
    }
  }
  pen.putImageData(look.image, 0, 0);
}

function over(pixels, to, rgba, from, alpha) {
  const below = pixels[to + 3] / 255 * (1 - alpha);
  const all = alpha + below;
  for (let one = 0; one < 3; one++) {
    pixels[to + one] = (rgba[from + one] * alpha + pixels[to + one] * below) / all;
  }
  pixels[to + 3] = 255 * all;
}

function weights(packed, span) {
  const part = new Float32Array(packed.kinds).fill(1);
  if (span[0] === null && span[1] === null) return part;
  part.set(covered(packed.edges, ...span));
  part[packed.kinds - 1] = 0; // a cutoff drops what has no value
  return part;
}

function places(steps) {
  const found = new Uint32Array(steps.length);
  for (let one = 0, at = 0; one < steps.length; one++) found[one] = at += steps[one];
  return found;
}

function sizes(packed) {
  const { kinds, counts, cells, dropped } = packed;
  const found = new Float32Array(cells.length);
  let sum = 0;
  for (let cell = 0, at = 0; cell < cells.length; cell++) {
    for (let kind = 0; kind < kinds; kind++, at++) found[cell] += counts[at];
    sum += found[cell] + dropped[cell];
  }
  packed.typical = sum / Math.max(1, cells.length);
  return found;
}

function rgbOf(hex) {
  return [1, 3, 5].map((from) => parseInt(hex.slice(from, from + 2), 16));
}

function down(own, event) {
  if (event.button || !own.packed) return;
  event.preventDefault();
  const at = frame(own);
  const box = own.over.getBoundingClientRect();
  const point = (moved) => [at.toX(moved.clientX - box.left), at.toY(moved.clientY - box.top)];
  const start = point(event);
  const view = own.view.slice();
  let last = [event.clientX, event.clientY];
  own.tip.hidden = true;
  own.over.setPointerCapture(event.pointerId);
  if (own.tool === 'lasso') own.path = [start];
  const follow = (moved) => {
    const [x, y] = point(moved);
    if (own.tool === 'pan') {
      const [dx, dy] = [start[0] - x, start[1] - y];
      own.view = [view[0] + dx, view[1] + dx, view[2] + dy, view[3] + dy];
    } else if (own.tool === 'box') {
      own.path = [start, [x, start[1]], [x, y], [start[0], y]];
    } else if (Math.hypot(moved.clientX - last[0], moved.clientY - last[1]) >= LASSO_STEP) {
      own.path.push([x, y]);
      last = [moved.clientX, moved.clientY];
    }
    own.paint();
  };
  const done = (ended) => {
    for (const name of ['pointermove', 'pointerup', 'pointercancel']) {
      own.over.removeEventListener(name, name === 'pointermove' ? follow : done);
    }
    const drawn = own.path;
    own.path = null;
    if (ended.type === 'pointerup') {
      if (own.tool === 'pan') seen(own);
      else if (drawn && drawn.length > 2 && spread(drawn, at) > 4) own.tell('region', drawn);
    }
    own.paint();
  };
  own.over.addEventListener('pointermove', follow);
  own.over.addEventListener('pointerup', done);
  own.over.addEventListener('pointercancel', done);
}

function spread(corners, at) {
  const [xs, ys] = [corners.map((one) => one[0]), corners.map((one) => one[1])];
  return Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys)) * at.each;
}

function wheel(own, event) {
  if (!own.packed) return;
  event.preventDefault();
  const at = frame(own);
  const box = own.over.getBoundingClientRect();
  const [x, y] = [at.toX(event.clientX - box.left), at.toY(event.clientY - box.top)];
  const times = Math.exp(Math.max(-1, Math.min(1, event.deltaY / 300)));
  const [x0, x1, y0, y1] = own.view;
  own.view = [x + (x0 - x) * times, x + (x1 - x) * times, y + (y0 - y) * times, y + (y1 - y) * times];
  own.paint();
  seen(own);
}

function seen(own) {
  clearTimeout(own.later);
  own.later = setTimeout(() => own.tell('view', own.view), SETTLED);
}

function hover(own, event) {
  if (!own.packed || event.buttons) return;
  const { hover: address } = own.data;
  if (own.asked !== address) {
    own.asked = address;
    own.near = null;
    fetch(address).then((answer) => answer.json()).then((found) => {
      if (own.asked === address) own.near = found;
    }, () => { own.asked = null; });
  }
  if (!own.near) return;
  const at = frame(own);
  const box = own.over.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  let best = HOVER_REACH ** 2, found = -1;
  own.near.x.forEach((value, one) => {
    const far = (at.x(value) - x) ** 2 + (at.y(own.near.y[one]) - y) ** 2;
    if (far < best) [best, found] = [far, one];
  });
  own.tip.hidden = found < 0;
  if (found < 0) return;
  own.tip.textContent = own.near.text[found];
  own.tip.style.top = `${Math.min(y + 12, at.height - 60)}px`;
  own.tip.style.left = x < at.width / 2 ? `${x + 12}px` : '';
  own.tip.style.right = x < at.width / 2 ? '' : `${at.width - x + 12}px`;
}

function legend(own) {
  const { legend: said } = own.data;
  const parts = [];
  if (said.scale.length) {
    parts.push(node('span', '', null, short(said.low)));
    const ramp = node('span', 'ramp', null);
    ramp.style.background = `linear-gradient(90deg, ${said.scale.join(', ')})`;
    parts.push(ramp, node('span', '', null, `${short(said.high)}  ${said.title}`));
  }
  for (const [name, colour, count, value] of said.entries) {
    const one = node(value === null ? 'span' : 'button', 'entry', null);
    if (value !== null) {
      one.type = 'button';
      one.title = 'Keep these alone';
      one.onclick = () => own.tell('category', value);
    }
    node('i', '', one).style.background = colour;
    one.append(`${name} (${whole(count)})`);
    parts.push(one);
  }
  own.legend.replaceChildren(...parts);
}
