// Painting the mask of an example: what of the picture is meant.

import {html, useEffect, useRef, useState} from './preact.js';
import {link, say, send} from './link.js';

const RED = [236, 26, 110];

export function Painting({prompt, close}) {
  const dialog = useRef(null);
  const canvas = useRef(null);
  const mask = useRef(null);
  const picture = useRef(null);
  const [brush, setBrush] = useState(12);
  const [erases, setErases] = useState(false);
  const last = useRef(null);
  const cross = useRef(null);  // Where keys paint, and whether they do now.
  const name = encodeURIComponent(prompt.name);

  const redraw = () => {
    const {width, height} = canvas.current;
    const context = canvas.current.getContext('2d');
    context.globalAlpha = 1;
    context.drawImage(picture.current, 0, 0, width, height);
    context.globalAlpha = 0.5;
    context.drawImage(mask.current, 0, 0);
    if (!cross.current) return;
    const scale = width / canvas.current.getBoundingClientRect().width;
    context.globalAlpha = 1;
    for (const [colour, thickness] of [['#000', 4], ['#fff', 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = thickness * scale;
      context.setLineDash(cross.current.down ? [] : [6 * scale, 4 * scale]);
      context.beginPath();
      context.arc(cross.current.x, cross.current.y, brush * scale, 0, 2 * Math.PI);
      context.stroke();
    }
  };
  useEffect(() => {
    dialog.current.showModal();
    const load = async (path) => createImageBitmap(await (await fetch(path)).blob());
    Promise.all([load(`cutout?name=${name}&whole=1`), load(`example-mask?name=${name}`)])
      .then(([whole, values]) => {
        picture.current = whole;
        const made = document.createElement('canvas');
        made.width = canvas.current.width = values.width;
        made.height = canvas.current.height = values.height;
        // Exactly its proportions: a pixel of the screen must be one of the picture.
        canvas.current.style.width = `min(100%, ${65 * made.width / made.height}vh)`;
        const context = made.getContext('2d', {willReadFrequently: true});
        context.drawImage(values, 0, 0);
        const image = context.getImageData(0, 0, made.width, made.height);
        for (let i = 0; i < image.data.length; i += 4) {
          const on = image.data[i] > 127;
          image.data.set([...RED, on ? 255 : 0], i);
        }
        context.putImageData(image, 0, 0);
        mask.current = made;
        redraw();
      }, () => say('the example cannot be loaded', true));
  }, []);

  const place = (event) => {
    const bounds = canvas.current.getBoundingClientRect();
    const scale = canvas.current.width / bounds.width;
    return [(event.clientX - bounds.left) * scale, (event.clientY - bounds.top) * scale, scale];
  };
  const line = ([fromX, fromY], [x, y, scale]) => {
    const context = mask.current.getContext('2d');
    context.globalCompositeOperation = erases ? 'destination-out' : 'source-over';
    context.strokeStyle = `rgb(${RED.join(',')})`;
    context.lineCap = 'round';
    context.lineWidth = 2 * brush * scale;
    context.beginPath();
    context.moveTo(fromX, fromY);
    context.lineTo(x, y + 0.01);
    context.stroke();
  };
  const stroke = (event) => {
    if (!last.current || !mask.current) return;
    const to = place(event);
    line(last.current, to);
    last.current = to;
    redraw();
  };
  const begin = (event) => {
    cross.current = null;
    canvas.current.setPointerCapture(event.pointerId);
    last.current = place(event);
    stroke(event);
  };
  const key = (event) => {
    const {width, height} = canvas.current;
    const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
      ' ': [0, 0]};
    if (!moves[event.key] || !mask.current) return;
    event.preventDefault();
    const at = cross.current ?? {x: width / 2, y: height / 2, down: false};
    const scale = width / canvas.current.getBoundingClientRect().width;
    const [dx, dy] = moves[event.key].map((one) => one * (event.shiftKey ? 1 : 10) * scale);
    const x = Math.min(width, Math.max(0, at.x + dx));
    const y = Math.min(height, Math.max(0, at.y + dy));
    cross.current = {x, y, down: event.key === ' ' ? !at.down : at.down};
    if (cross.current.down) line([at.x, at.y], [x, y, scale]);
    redraw();
  };
  const lift = () => { last.current = null; };
  const clear = () => {
    if (!mask.current) return;
    mask.current.getContext('2d').clearRect(0, 0, mask.current.width, mask.current.height);
    redraw();
  };
  const accept = async () => {
    if (!mask.current) return;
    const {width, height} = mask.current;
    const made = document.createElement('canvas');
    made.width = width;
    made.height = height;
    const context = made.getContext('2d');
    const image = mask.current.getContext('2d').getImageData(0, 0, width, height);
    for (let i = 0; i < image.data.length; i += 4) {
      const value = image.data[i + 3] > 127 ? 255 : 0;
      image.data.set([value, value, value, 255], i);
    }
    context.putImageData(image, 0, 0);
    const blob = await new Promise((done) => made.toBlob(done, 'image/png'));
    if (await send(`mask?name=${name}`, blob)) close();
  };
  return html`<dialog ref=${dialog} class="painting" onClose=${close}
      aria-label=${`Mask of the example of ${prompt.name}`}>
    <p>Paint what is meant. The rest of the picture says where it is.</p>
    <canvas ref=${canvas} tabindex="0" role="application" onKeyDown=${key}
      aria-label="The picture and its mask. Arrow keys move the brush, the space bar sets it down
        and lifts it." onPointerDown=${begin} onPointerMove=${stroke}
      onPointerUp=${lift} onPointerCancel=${lift}></canvas>
    ${link.message?.error && html`<p class="wrong" role="alert">${link.message.text}</p>`}
    <div class="tools">
      <button aria-pressed=${!erases} onClick=${() => setErases(false)}>Paint</button>
      <button aria-pressed=${erases} onClick=${() => setErases(true)}>Erase</button>
      <label>Brush <input type="range" min="2" max="60" value=${brush}
        onInput=${(event) => setBrush(Number(event.target.value))}/></label>
      <button onClick=${clear}>Clear</button>
      <span class="grow"></span>
      <button onClick=${() => dialog.current.close()}>Cancel</button>
      <button class="strong" onClick=${accept}>Accept</button>
    </div>
  </dialog>`;
}
