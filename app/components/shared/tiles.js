function part(kind, name, text) {
  const node = document.createElement(kind);
  node.className = name;
  if (text) node.textContent = text;
  return node;
}
const PAUSE = 120; // milliseconds that a cutoff rests in the hand until its samples are asked for

// A chart tells of its cutoff on the window; the ends that are open are null.
function follow(wanted, tell) {
  const bus = (window.mimicscopeCharts ??= Object.assign(new EventTarget(), { packed: new Map() }));
  let last = [null, null], later;
  const heard = ({ detail }) => {
    if (detail.scope !== wanted.scope || detail.column !== wanted.column) return;
    clearTimeout(later);
    const moved = detail.span.findIndex((value, end) => value !== null && value !== last[end]);
    last = detail.span;
    if (moved >= 0 && detail.dragging) later = setTimeout(() => tell(detail.span[moved]), PAUSE);
  };
  bus.addEventListener('cutoff', heard);
  return () => { clearTimeout(later); bus.removeEventListener('cutoff', heard); };
}

export default function({ data, parentElement, setTriggerValue }) {
  const grid = parentElement.querySelector('.grid');
  grid.replaceChildren(...data.tiles.map((tile) => {
    const button = part('button', tile.state ? 'tile dropped' : 'tile');
    button.type = 'button';
    button.dataset.uid = tile.uid;
    button.setAttribute('aria-label', `Open sample, ${tile.value}: ${tile.caption}`);
    const frame = part('div', 'frame');
    if (tile.uri) {
      const image = part('img', '');
      image.src = tile.uri;
      image.alt = '';
      image.onerror = async () => {
        const answer = await fetch(tile.uri);
        image.replaceWith(part('div', 'why', answer.ok ? 'cannot be shown' : await answer.text()));
      };
      frame.append(image);
    } else {
      frame.append(part('div', 'why', tile.reason));
    }
    frame.append(part('span', 'badge', tile.value));
    if (tile.state) frame.append(part('span', 'state', tile.state));
    const caption = part('div', 'caption', '');
    caption.append(part('span', '', tile.caption));
    caption.title = tile.caption;
    button.append(frame, caption);
    button.onclick = () => setTriggerValue('opened', tile.uid);
    return button;
  }));
  return data.follow && follow(data.follow, (value) => setTriggerValue('near', value));
}
