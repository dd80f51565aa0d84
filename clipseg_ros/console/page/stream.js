// Pictures and layers by a binary channel of their own. The next one is asked for when the one
// before has been drawn, so a slow browser leaves pictures out instead of getting them late.

import {browser, explain, link, now, socketAddress} from './link.js';

export const shown = {
  shot: null,       // the header of what is drawn, with its decoded parts
  age: 0,           // milliseconds from its stamp until it was drawn
  paused: false,
  layers: ['labels'],
};

const WINDOW = 3000;  // Milliseconds over which pictures are counted.
const listeners = new Set();
const times = [];
const scratch = document.createElement('canvas');
let socket = null;
let asked = false;
let last = 0;
let pause = 300;

export function onShot(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function setLayers(layers) {
  shown.layers = layers;
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({layers}));
}

export function setPaused(paused) {
  shown.paused = paused;
  request();
}

function request() {
  const rests = shown.paused || document.hidden || asked;
  if (rests || socket?.readyState !== WebSocket.OPEN) return;
  asked = true;
  socket.send(JSON.stringify({after: last, layers: shown.layers, browser}));
}

document.addEventListener('visibilitychange', request);

export function openStream() {
  socket = new WebSocket(socketAddress('shots'));
  socket.binaryType = 'arraybuffer';
  asked = false;
  let opened = false;
  socket.onopen = () => {
    opened = true;
    link.refusal = '';
    pause = 300;
    last = 0;
    request();
  };
  socket.onmessage = async (event) => {
    try {
      const shot = await decode(event.data);
      // One that is not shown is asked for again: of a still picture there is no newer one.
      if (!shown.paused) {
        last = shot.number;
        show(shot);
      }
    } catch (error) {
      console.error('a picture cannot be shown', error);
    }
    asked = false;
    request();
  };
  socket.onclose = () => {
    if (!opened) explain();
    setTimeout(openStream, pause);
    pause = Math.min(pause * 1.5, 3000);
  };
}

// Returns pictures a second, and the milliseconds since the last one.
export function rate() {
  const moment = performance.now();
  if (times.length < 2) return {fps: 0, silent: 0};
  const count = times.length - 1;
  const usual = (times[count] - times[0]) / count;
  const silent = moment - times[count];
  // Without pictures, the rate goes to nothing.
  return {fps: 1000 / (silent > 2 * usual ? silent : usual), silent};
}

export function show(shot) {
  shown.shot = shot;
  shown.age = now() - shot.stamp * 1000;
  const moment = performance.now();
  times.push(moment);
  while (times.length > 2 && moment - times[0] > WINDOW) times.shift();
  tellShot();
}

// Says that what is shown is another shot, or has been segmented again.
export function tellShot() {
  for (const listener of listeners) listener(shown.shot);
}

// Returns a message as its header with `picture` (ImageBitmap), and `labels`, `heat`, `instances`
// (Uint8ClampedArray RGBA of width × height), as far as they are in it.
export async function decode(data) {
  const length = new DataView(data).getUint32(0, true);
  const shot = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  let offset = 4 + length;
  const parts = {};
  for (const [name, size] of shot.parts) {
    parts[name] = new Uint8Array(data, offset, size);
    offset += size;
  }
  const kind = (bytes) => ({type: bytes[0] === 0x89 ? 'image/png' : 'image/jpeg'});
  const exact = {colorSpaceConversion: 'none', premultiplyAlpha: 'none'};
  const bitmaps = {};
  await Promise.all(Object.entries(parts).map(async ([name, bytes]) => {
    const options = name === 'picture' || name === 'overlay' ? {} : exact;
    bitmaps[name] = await createImageBitmap(new Blob([bytes], kind(bytes)), options);
  }));
  shot.picture = bitmaps.overlay ?? bitmaps.picture ?? null;
  shot.own = Boolean(bitmaps.overlay);
  const sized = bitmaps.labels ?? shot.picture;
  shot.width = shot.width || sized?.width || 0;
  shot.height = shot.height || sized?.height || 0;
  for (const name of ['labels', 'heat', 'instances']) {
    const bitmap = bitmaps[name];
    if (!bitmap) continue;
    shot[name] = values(bitmap);
    shot[`${name}Size`] = [bitmap.width, bitmap.height];
    bitmap.close();
  }
  if (parts.labels) shot.labelsFile = parts.labels.slice();
  return shot;
}

// Returns the grey values of a bitmap, one a pixel.
function values(bitmap) {
  if (scratch.width !== bitmap.width || scratch.height !== bitmap.height) {
    scratch.width = bitmap.width;
    scratch.height = bitmap.height;
  }
  const context = scratch.getContext('2d', {willReadFrequently: true});
  context.globalCompositeOperation = 'copy';
  context.drawImage(bitmap, 0, 0);
  const rgba = new Uint32Array(
    context.getImageData(0, 0, bitmap.width, bitmap.height).data.buffer);
  const grey = new Uint8Array(rgba.length);
  for (let i = 0; i < rgba.length; i += 1) grey[i] = rgba[i] & 255;
  return grey;
}
