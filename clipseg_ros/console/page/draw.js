// Drawing a shot with its layers onto a canvas.

const layer = document.createElement('canvas');

// A colour for each of 256 probabilities, from dark blue by red to yellow, as 0xAABBGGRR.
const heatColours = new Uint32Array(256);
for (let i = 0; i < 256; i += 1) {
  const p = i / 255;
  const red = Math.round(255 * Math.min(1, Math.max(0, 2.2 * p - 0.3)));
  const green = Math.round(255 * Math.max(0, 1.8 * p - 0.8));
  const blue = Math.round(255 * Math.max(0, Math.min(0.6, 0.35 + p) - 1.1 * p * p));
  heatColours[i] = (235 << 24 | blue << 16 | green << 8 | red) >>> 0;
}

function packed(colour, alpha) {
  const value = parseInt(colour.slice(1), 16);
  return (alpha << 24 | (value & 255) << 16 | (value & 0xff00) | value >> 16) >>> 0;
}

function hueOf(number) {
  const hue = (number * 137.508) % 360;
  const part = (shift) => {
    const k = (shift + hue / 30) % 12;
    return Math.round(255 * (0.55 - 0.42 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return `#${[part(0), part(8), part(4)].map((v) => v.toString(16).padStart(2, '0')).join('')}`;
}

const instanceColours = Array.from({length: 256}, (_, number) => hueOf(number));

// Writes values as colours: filled, or outlined where a neighbour has another value.
function paint(context, values, [width, height], colourOf, options) {
  if (layer.width !== width || layer.height !== height) {
    layer.width = width;
    layer.height = height;
  }
  const inner = layer.getContext('2d', {willReadFrequently: true});
  const image = inner.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const fill = new Uint32Array(256);
  const line = new Uint32Array(256);
  const alpha = Math.round(255 * options.strength);
  for (let i = 1; i < 256; i += 1) {
    const colour = colourOf(i);
    if (!colour) continue;
    if (options.tint) fill[i] = packed(colour, alpha);
    if (options.outline) line[i] = packed(colour, 255);
  }
  for (let i = 0; i < values.length; i += 1) pixels[i] = fill[values[i]];
  if (options.outline) {
    for (let y = 0; y < height; y += 1) {
      const row = y * width;
      for (let x = 0; x < width; x += 1) {
        const i = row + x;
        const value = values[i];
        if (!value) continue;
        const edge = x === 0 || y === 0 || x === width - 1 || y === height - 1
          || values[i - 1] !== value || values[i + 1] !== value
          || values[i - width] !== value || values[i + width] !== value;
        if (edge) pixels[i] = line[value];
      }
    }
  }
  inner.putImageData(image, 0, 0);
  context.drawImage(layer, 0, 0, context.canvas.width, context.canvas.height);
}

function paintHeat(context, values, [width, height]) {
  layer.width = width;
  layer.height = height;
  const inner = layer.getContext('2d');
  const image = inner.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < values.length; i += 1) pixels[i] = heatColours[values[i]];
  inner.putImageData(image, 0, 0);
  context.globalAlpha = 0.6;
  context.drawImage(layer, 0, 0, context.canvas.width, context.canvas.height);
  context.globalAlpha = 1;
}

function drawLayers(context, shot, labels, size, prompts, options) {
  const colours = new Map(prompts.map((prompt) => [prompt.id, prompt.colour]));
  if (options.heat && shot.heat) {
    paintHeat(context, shot.heat, shot.heatSize);
    if (labels && options.outline) {
      paint(context, labels, size, (id) => colours.get(id), {...options, tint: false});
    }
    return;
  }
  if (options.instances && shot.instances) {
    paint(context, shot.instances, shot.instancesSize, (id) => instanceColours[id],
      {...options, tint: true, outline: true});
    return;
  }
  if (labels && (options.tint || options.outline)) {
    paint(context, labels, size, (id) => colours.get(id), options);
  }
}

// Draws a shot; `second` is another one of the same picture, right of `split` (0 … 1).
export function drawShot(canvas, shot, prompts, options, second = null, split = 1) {
  if (canvas.width !== shot.width || canvas.height !== shot.height) {
    canvas.width = shot.width;
    canvas.height = shot.height;
  }
  const context = canvas.getContext('2d', {willReadFrequently: true});
  const {width, height} = canvas;
  if (shot.picture) context.drawImage(shot.picture, 0, 0, width, height);
  if (shot.own) return;
  if (!second) {
    drawLayers(context, shot, shot.labels, shot.labelsSize, prompts, options);
    return;
  }
  const middle = Math.round(split * width);
  for (const [one, from, to] of [[shot, 0, middle], [second, middle, width]]) {
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, height);
    context.clip();
    drawLayers(context, one, one.labels, one.labelsSize, prompts, options);
    context.restore();
  }
  context.fillStyle = '#fff';
  context.fillRect(middle - 1, 0, 2, height);
}

// Returns the values of a mask as a PNG file: white where any prompt is.
export async function maskFile(shot) {
  const [width, height] = shot.labelsSize;
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < shot.labels.length; i += 1) {
    pixels[i] = shot.labels[i] ? 0xffffffff : 0xff000000;
  }
  context.putImageData(image, 0, 0);
  return new Promise((done) => canvas.toBlob(done, 'image/png'));
}
