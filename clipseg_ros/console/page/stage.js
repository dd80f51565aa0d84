// The picture: live or frozen, with layers, where people point at things.

import {html, useEffect, useRef, useState} from './preact.js';
import {ask, browser, command, say, unreachable} from './link.js';
import {drawShot} from './draw.js';
import {decode, onShot, setPaused, shown, tellShot} from './stream.js';
import {Figures, Health} from './health.js';

const LEAST_BOX = 5;  // Pixels of the screen; less is a click.

// What the picture is drawn with, apart from the shot: read by who saves it.
export const stage = {canvas: null, second: null};

const freeze = (number) => ask(`freeze/${number}?browser=${browser}`);

function Toggle({name, words, options, setOptions, title, disabled}) {
  return html`<button aria-pressed=${options[name]} title=${title} disabled=${disabled}
    onClick=${() => setOptions({...options, [name]: !options[name]})}>${words}</button>`;
}

function usePointer(canvas, state, pickAt) {
  const [box, setBox] = useState(null);
  const place = (event) => {
    const bounds = canvas.current.getBoundingClientRect();
    const scale = canvas.current.width / bounds.width;
    return {
      x: Math.min(canvas.current.width - 1, Math.max(0, (event.clientX - bounds.left) * scale)),
      y: Math.min(canvas.current.height - 1, Math.max(0, (event.clientY - bounds.top) * scale)),
      scale,
    };
  };
  const down = (event) => {
    if (!state.may_change || event.button > 0 || !shown.shot) return;
    canvas.current.setPointerCapture(event.pointerId);
    const at = place(event);
    // Nothing moves while somebody points, and the server keeps this very picture.
    const {number} = shown.shot;
    if (!shown.paused) freeze(number).catch(() => {});
    setBox({from: at, to: at, number, held: !shown.paused});
    if (!shown.paused) setPaused(true);
  };
  const move = (event) => { if (box) setBox({...box, to: place(event)}); };
  const up = (event) => {
    if (!box) return;
    const to = place(event);
    if (box.held) setPaused(false);
    setBox(null);
    if (event.type === 'pointercancel') return;
    const width = Math.abs(to.x - box.from.x);
    const height = Math.abs(to.y - box.from.y);
    const click = Math.max(width, height) < LEAST_BOX * to.scale;
    pickAt(box.number, click
      ? {x: Math.floor(to.x), y: Math.floor(to.y), width: 0, height: 0}
      : {x: Math.floor(Math.min(to.x, box.from.x)), y: Math.floor(Math.min(to.y, box.from.y)),
         width: Math.max(1, Math.round(width)), height: Math.max(1, Math.round(height))});
  };
  return {box, down, move, up};
}

// A cross that arrow keys move, for who has no mouse.
function useKeys(canvas, state, pickAt, toggleFrozen) {
  const [cross, setCross] = useState(null);
  const [corner, setCorner] = useState(null);
  const key = (event) => {
    const {width, height} = canvas.current;
    const at = cross ?? {x: Math.round(width / 2), y: Math.round(height / 2)};
    const step = event.shiftKey ? 1 : 10;
    const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    if (moves[event.key]) {
      const [dx, dy] = moves[event.key];
      setCross({
        x: Math.min(width - 1, Math.max(0, at.x + dx * step)),
        y: Math.min(height - 1, Math.max(0, at.y + dy * step)),
      });
    } else if (event.key === 'b' && state.may_change) {
      setCorner(at);
    } else if (event.key === 'Enter' && state.may_change && shown.shot) {
      const from = corner ?? at;
      pickAt(shown.shot.number, {
        x: Math.min(at.x, from.x),
        y: Math.min(at.y, from.y),
        width: Math.abs(at.x - from.x),
        height: Math.abs(at.y - from.y),
      });
      setCorner(null);
    } else if (event.key === ' ' || event.key === 'f') {
      toggleFrozen();
    } else if (event.key === 'Escape') {
      setCross(null);
      setCorner(null);
    } else {
      return;
    }
    event.preventDefault();
  };
  return {cross, corner, key};
}

// Segments the frozen picture again, by what the state says now.
async function segmentFrozen(number, layers, more = {}) {
  const response = await ask('compare', {number, browser, layers, ...more});
  return decode(await response.arrayBuffer());
}

// Keeps the frozen picture as prompts, thresholds and layers say: one request at a time, the last
// of which is by what they are in the end.
function useFrozen(frozen, state, options) {
  const {prompts, threshold, presence, may_change: mayChange} = state;
  const words = JSON.stringify(prompts.map((one) => [one.name, one.phrase, one.enabled,
    one.negative, one.weight, one.example]));
  const cuts = JSON.stringify([prompts.map((one) => [one.threshold, one.presence]), threshold,
    presence]);
  const layers = ['heat', 'instances'].filter((name) => options[name]);
  const now = useRef({});
  Object.assign(now.current, {frozen, words, layers});
  useEffect(() => { now.current.begun = words; }, [frozen]);
  useEffect(() => {
    const one = now.current;
    one.again = true;
    if (!frozen || !mayChange || one.works) return;
    one.works = true;
    (async () => {
      while (one.again && one.frozen) {
        one.again = false;
        const number = one.frozen;
        try {
          take(await segmentFrozen(number, one.layers), number, one);
        } catch (error) {
          say(unreachable(error), true);
        }
      }
      one.works = false;
    })();
  }, [frozen, words, cuts, String(layers)]);
}

function take(shot, number, {words, begun, layers}) {
  const {shot: old} = shown;
  if (!old || old.number !== number) return;
  const {labels, labelsSize, labelsFile, found, instances, instancesSize} = shot;
  // A node tells no probability of a picture that stands still. That of before does not depend on
  // thresholds, and holds while the words do.
  const from = shot.heat ? shot : words === begun ? old : {};
  Object.assign(old, {labels, labelsSize, labelsFile, found, instances, instancesSize,
    heat: from.heat, heatSize: from.heatSize});
  // What is shown from now on is no longer the node's own drawing.
  if (old.own) Object.assign(old, {picture: shot.picture, own: false});
  if (layers.includes('heat') && !old.heat) {
    say('the node tells the heat of live pictures alone: end Freeze to see it', true);
  }
  tellShot();
}

function Compare({state, options, number, second, setSecond, split, setSplit}) {
  const [model, setModel] = useState('');
  const [threshold, setThreshold] = useState('');
  const [works, setWorks] = useState(false);
  const run = async () => {
    setWorks(true);
    try {
      const cut = threshold === '' ? null : Number(threshold);
      const layers = ['heat', 'instances'].filter((name) => options[name]);
      setSecond(await segmentFrozen(number, layers, {model, threshold: cut}));
    } catch (error) {
      say(unreachable(error), true);
    }
    setWorks(false);
  };
  return html`<fieldset class="compare"><legend>Compare, on the right side</legend>
    <label>Model <select value=${model} onChange=${(event) => setModel(event.target.value)}>
      <option value="">the same</option>
      ${state.compare_models.map((one) => html`<option value=${one.key}>${one.text}</option>`)}
    </select></label>
    <label>Threshold <input type="number" min="0.01" max="0.99" step="0.01" placeholder="its own"
      value=${threshold} onInput=${(event) => setThreshold(event.target.value)}/></label>
    <button onClick=${run} disabled=${works}>${works ? 'Works…' : 'Compare'}</button>
    ${second && html`<label class="split">Left is now, right is that
      <input type="range" min="0" max="1" step="0.005" value=${split}
        onInput=${(event) => setSplit(Number(event.target.value))}/></label>
      <button onClick=${() => setSecond(null)}>End</button>`}
  </fieldset>`;
}

export function Stage({state, options, setOptions, connected}) {
  const canvas = useRef(null);
  const [name, setName] = useState('');
  const [frozen, setFrozen] = useState(0);
  const [second, setSecond] = useState(null);
  const [split, setSplit] = useState(0.5);
  const redraw = () => {
    stage.canvas = canvas.current;
    stage.second = second;
    if (canvas.current && shown.shot) {
      drawShot(canvas.current, shown.shot, state.prompts, options, second, split);
    }
  };
  // The listener of shots lives longer than one state.
  const newest = useRef(redraw);
  newest.current = redraw;
  useEffect(() => onShot(() => newest.current()), []);
  useEffect(redraw, [state.prompts, options, second, split]);

  useFrozen(frozen, state, options);
  // Who may only look has no frozen picture segmented again.
  const lacks = (key) => frozen > 0 && !state.may_change && !shown.shot?.[key]
    && ['heat', 'instances'].includes(key);

  const toggleFrozen = async () => {
    if (frozen) {
      setFrozen(0);
      setSecond(null);
      setPaused(false);
      return;
    }
    if (!shown.shot) return;
    const {number} = shown.shot;
    setPaused(true);
    try {
      await freeze(number);
      setFrozen(number);
    } catch (error) {
      setPaused(false);
      say(unreachable(error), true);
    }
  };
  const pickAt = async (number, place) => {
    const done = await command('pick', {number, ...place, name: name.trim()});
    if (done) setName('');
  };
  const pointer = usePointer(canvas, state, pickAt);
  const keys = useKeys(canvas, state, pickAt, toggleFrozen);
  const {width = 4, height = 3} = shown.shot ?? {};
  const percent = (value, whole) => `${100 * value / whole}%`;
  const {box} = pointer;
  return html`<div class="picture">
      <canvas ref=${canvas} tabindex="0" width="640" height="480" role="img"
        class=${state.may_change ? 'pickable' : ''}
        aria-label=${`Picture of ${state.title}. Arrow keys move a cross, Enter picks what is under
          it, b begins a box, f freezes.`}
        onPointerDown=${pointer.down} onPointerMove=${pointer.move} onPointerUp=${pointer.up}
        onPointerCancel=${pointer.up} onKeyDown=${keys.key}></canvas>
      ${box && html`<div class="box" style=${{
        left: percent(Math.min(box.from.x, box.to.x), width),
        top: percent(Math.min(box.from.y, box.to.y), height),
        width: percent(Math.abs(box.to.x - box.from.x), width),
        height: percent(Math.abs(box.to.y - box.from.y), height)}}></div>`}
      ${keys.cross && html`<div class="cross" style=${{
        left: percent(keys.cross.x, width), top: percent(keys.cross.y, height)}}></div>`}
      ${frozen > 0 && html`<span class="badge frozen">frozen</span>`}
    </div>
    <${Health} state=${state} connected=${connected}/>
    <div class="tools" role="toolbar" aria-label="Picture">
      <button aria-pressed=${frozen > 0} onClick=${toggleFrozen}>Freeze</button>
      ${[['tint', 'Tint'], ['outline', 'Outline'], ['heat', 'Heat'], ['instances', 'Instances']]
        .map(([key, words]) => html`<${Toggle} key=${key} name=${key} words=${words}
          options=${options} setOptions=${setOptions} disabled=${lacks(key)}
          title=${lacks(key) ? 'Of a frozen picture only for who may change things' : ''}/>`)}
      ${state.kind === 'ros' && html`<${Toggle} name="own" words="Node's drawing"
        options=${options} setOptions=${setOptions} title="The topic ~/overlay/compressed"/>`}
      <label class="strength">Strength <input type="range" min="0" max="1" step="0.05"
        value=${options.strength}
        onInput=${(event) => setOptions({...options, strength: Number(event.target.value)})}/>
      </label>
    </div>
    ${state.may_change && html`<p class="hint">
      <label>Click a thing, or drag a box around it: an example of
        <input value=${name} placeholder="name (optional)" maxlength="80"
          onInput=${(event) => setName(event.target.value)}/></label></p>`}
    ${frozen > 0 && state.may_change && html`<${Compare} state=${state} options=${options}
      number=${frozen} second=${second} setSecond=${setSecond} split=${split} setSplit=${setSplit}/>`}
    <${Figures} state=${state}/>`;
}
