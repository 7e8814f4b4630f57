function part(kind, name, text) {
  const node = document.createElement(kind);
  node.className = name;
  if (text) node.textContent = text;
  return node;
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
}
