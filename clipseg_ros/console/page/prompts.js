// Prompts as cards: words, colour, thresholds, scores, examples, marks; in an order of one's own.

import {html, useEffect, useRef, useState} from './preact.js';
import {command, link, paced, uploadOf} from './link.js';
import {onShot, shown} from './stream.js';
import {Painting} from './painting.js';

const edit = (name, changes) => command('edit', {name, changes}, true);

// Cards whose "More" is open, by name: a card of another name is another card.
const opened = new Set();

// A value that follows the state but while somebody changes it: the state comes several times a
// second, and would write over what is being typed. Returns [value, hold, release].
function useHeld(value) {
  const [held, setHeld] = useState(null);
  return [held ?? value, setHeld, () => setTimeout(() => setHeld(null), 700)];
}

// A slider that answers while it is moved.
function Slider({label, value, min, max, step, disabled, change, reset, own}) {
  const [shownValue, hold, release] = useHeld(value);
  const sending = useRef(null);
  sending.current ??= paced((act, number) => act(number), 120);
  const input = (event) => {
    const number = Number(event.target.value);
    hold(number);
    sending.current(change, number);
  };
  return html`<label class="slider"><span>${label}</span>
    <input type="range" min=${min} max=${max} step=${step} value=${shownValue}
      disabled=${disabled} aria-label=${label} onInput=${input}
      onChange=${release}/>
    <output>${shownValue.toFixed(2)}</output>
    ${reset && html`<button class="quiet" disabled=${disabled || !own}
      onClick=${() => sending.current(reset)}
      title="Take the one of all prompts" aria-label=${`${label}: take the one of all`}>↺</button>`}
  </label>`;
}

// The score now, with the presence threshold on it; the scores of the last minute below.
function Scores({prompt, presence}) {
  const bar = useRef(null);
  const number = useRef(null);
  const area = useRef(null);
  const graph = useRef(null);
  useEffect(() => onShot((shot) => {
    const found = shot.found.find((one) => one.name === prompt.name);
    const score = found?.score ?? 0;
    if (!bar.current) return;
    bar.current.style.width = `${100 * score}%`;
    bar.current.classList.toggle('absent', !found?.presence);
    bar.current.parentElement.setAttribute('aria-valuenow', score.toFixed(2));
    number.current.textContent = found ? score.toFixed(2) : '–';
    const whole = shot.width * shot.height;
    area.current.textContent = found && whole
      ? `${(100 * found.area / whole).toFixed(1)} %` : '–';
  }), [prompt.name]);
  const scores = link.scores.get(prompt.name) ?? [];
  const last = scores.length ? scores[scores.length - 1] : null;
  useEffect(() => drawGraph(graph.current, scores, presence, prompt.colour),
    [last?.[0], presence, prompt.colour]);
  return html`<div class="score">
      <div class="meter" role="meter" aria-label=${`Score of ${prompt.name}`} aria-valuemin="0"
        aria-valuemax="1"><div ref=${bar} class="fill" style=${{background: prompt.colour}}></div>
        <div class="mark" style=${{left: `${100 * presence}%`}} title="Presence threshold"></div>
      </div>
      <span class="value" ref=${number}></span>
      <span class="area" title="Share of the picture"><span ref=${area}></span></span>
    </div>
    <canvas class="graph" ref=${graph} width="320" height="40" role="img"
      aria-label=${`Scores of ${prompt.name} over the last minute, ${last
        ? `the last is ${last[1].toFixed(2)}` : 'none yet'}`}></canvas>`;
}

function drawGraph(canvas, scores, presence, colour) {
  if (!canvas) return;
  const context = canvas.getContext('2d');
  const {width, height} = canvas;
  const style = getComputedStyle(canvas);
  context.clearRect(0, 0, width, height);
  context.strokeStyle = style.color;
  context.setLineDash([4, 4]);
  context.beginPath();
  context.moveTo(0, height * (1 - presence));
  context.lineTo(width, height * (1 - presence));
  context.stroke();
  context.setLineDash([]);
  if (!scores.length) return;
  const end = (Date.now() + link.offset) / 1000;
  context.strokeStyle = colour;
  context.lineWidth = 2;
  context.beginPath();
  let before = null;
  for (const [at, score] of scores) {
    const x = width * (1 - (end - at) / 60);
    const y = 1 + (height - 2) * (1 - score);
    // Where no picture was segmented, there is a gap.
    if (before === null || at - before > 2) context.moveTo(x, y);
    else context.lineTo(x, y);
    before = at;
  }
  context.stroke();
}

// A field that is sent when one leaves it or presses Enter; what is refused stays, to be mended.
function Field({label, field, prompt, off, most, placeholder = ''}) {
  const [text, hold, release] = useHeld(prompt[field]);
  const change = async () => {
    const value = text.trim();
    if (value === prompt[field]) {
      release();
      return;
    }
    const named = field === 'name' || prompt.name === prompt.phrase;
    if (named) opened.add(value || prompt.phrase);
    if (await edit(prompt.name, {[field]: value})) release();
  };
  const key = (event) => {
    if (event.key === 'Enter') event.target.blur();
    if (event.key === 'Escape') hold(null);
  };
  return html`<label><span>${label}</span><input value=${text} maxlength=${most} disabled=${off}
    placeholder=${placeholder} onInput=${(event) => hold(event.target.value)}
    onChange=${change} onKeyDown=${key}/></label>`;
}

function Words({prompt, off}) {
  return html`<div class="words">
    <${Field} label="Name" field="name" prompt=${prompt} off=${off} most="200"/>
    <${Field} label="Words" field="phrase" prompt=${prompt} off=${off} most="1000"
      placeholder=${prompt.pictured ? 'a picture alone' : ''}/>
  </div>`;
}

function Colour({prompt, off}) {
  const [value, hold, release] = useHeld(prompt.colour);
  const sending = useRef(null);
  sending.current ??= paced(
    (name, colour) => command('colour', {name, colour}, true), 150);
  const input = (event) => {
    hold(event.target.value);
    sending.current(prompt.name, event.target.value);
  };
  return html`<input type="color" value=${value} disabled=${off}
    aria-label=${`Colour of ${prompt.name}`} onInput=${input} onChange=${release}/>`;
}

function Marks({prompt, off}) {
  const mark = (right) => command('mark',
    {name: prompt.name, right, number: shown.shot?.number ?? 0});
  const use = () => edit(prompt.name, {presence: prompt.suggested});
  return html`<div class="marks">
    <span>What is shown is</span>
    <button disabled=${off} onClick=${() => mark(true)}>✓ right</button>
    <button disabled=${off} onClick=${() => mark(false)}>✗ wrong</button>
    ${prompt.marks > 0 && html`<span>${prompt.marks} marked</span>
      <button class="quiet" disabled=${off} aria-label="Forget the marks"
        onClick=${() => command('forget_marks', {name: prompt.name}, true)}>↺</button>`}
    ${prompt.suggested !== null && html`<button disabled=${off} onClick=${use}>
      Use presence ${prompt.suggested.toFixed(2)}</button>`}
  </div>`;
}

function Example({prompt, off, state}) {
  const [paints, setPaints] = useState(false);
  const name = encodeURIComponent(prompt.name);
  return html`<div class="example">
    ${prompt.example && html`<img src=${`cutout?name=${name}&v=${prompt.example}`}
      alt=${`The example of ${prompt.name}, cut out`}/>`}
    ${prompt.pictured && !prompt.example && html`<span>its picture is at the node</span>`}
    ${prompt.pictured && prompt.phrase && html`<${Slider} label="Words' weight" min="0" max="1"
      step="0.05" value=${prompt.weight} disabled=${off}
      change=${(weight) => edit(prompt.name, {weight})}/>`}
    <label class="button">${prompt.pictured ? 'Other picture…' : 'Add a picture…'}
      <input type="file" accept="image/*" class="hidden" disabled=${off}
        onChange=${(event) => uploadOf(event, state, prompt.name)}/></label>
    ${prompt.example && html`<button disabled=${off} onClick=${() => setPaints(true)}>
      Paint its mask…</button>`}
    ${paints && html`<${Painting} prompt=${prompt} close=${() => setPaints(false)}/>`}
  </div>`;
}

function Card({prompt, place, state, move}) {
  const off = !state.may_change;
  const {name} = prompt;
  const threshold = prompt.threshold ?? state.threshold;
  const presence = prompt.presence ?? state.presence;
  useEffect(() => () => opened.delete(name), []);
  const toggle = (event) => opened[event.target.open ? 'add' : 'delete'](name);
  const drag = (event) => event.dataTransfer.setData('text/clipseg-prompt', name);
  const drop = (event) => {
    const dragged = event.dataTransfer.getData('text/clipseg-prompt');
    if (!dragged) return;
    event.preventDefault();
    move(dragged, place);
  };
  return html`<li class=${`card ${prompt.enabled ? '' : 'off'}`} data-prompt=${name}
      onDragOver=${(event) => event.preventDefault()} onDrop=${drop}>
    <div class="top">
      <span class="handle" draggable=${!off} onDragStart=${drag} title="Drag to reorder">⠿</span>
      <${Colour} prompt=${prompt} off=${off}/>
      <strong class="name">${prompt.negative ? 'not ' : ''}${name}</strong>
      <label class="check"><input type="checkbox" checked=${prompt.enabled} disabled=${off}
        aria-label=${`Look for ${name}`}
        onChange=${(event) => edit(name, {enabled: event.target.checked})}/>on</label>
      <button class="quiet" disabled=${off} aria-label=${`Move ${name} up`}
        onClick=${() => move(name, place - 1)}>↑</button>
      <button class="quiet" disabled=${off} aria-label=${`Move ${name} down`}
        onClick=${() => move(name, place + 1)}>↓</button>
      <button class="quiet" disabled=${off} aria-label=${`Remove ${name}`}
        onClick=${() => command('remove', {name}, true)}>✕</button>
    </div>
    ${!prompt.negative && html`<${Scores} prompt=${prompt} presence=${presence}/>`}
    ${!prompt.negative && html`<${Slider} label="Threshold" min="0.01" max="0.99" step="0.01"
      value=${threshold} disabled=${off} own=${prompt.threshold !== null}
      change=${(value) => edit(name, {threshold: value})}
      reset=${() => edit(name, {threshold: null})}/>`}
    <details open=${opened.has(name)} onToggle=${toggle}><summary>More</summary>
      <${Words} prompt=${prompt} off=${off}/>
      <label class="check"><input type="checkbox" checked=${prompt.negative} disabled=${off}
        onChange=${(event) => edit(name, {negative: event.target.checked})}/>
        negative: takes pixels from the others, and is not shown</label>
      ${!prompt.negative && html`<${Slider} label="Presence" min="0.01" max="1" step="0.01"
        value=${presence} disabled=${off} own=${prompt.presence !== null}
        change=${(value) => edit(name, {presence: value})}
        reset=${() => edit(name, {presence: null})}/>
        <${Marks} prompt=${prompt} off=${off}/>`}
      <${Example} prompt=${prompt} off=${off} state=${state}/>
    </details>
    ${prompt.example && html`<img class="thumb" alt=""
      src=${`cutout?name=${encodeURIComponent(name)}&v=${prompt.example}`}/>`}
  </li>`;
}

export function Prompts({state}) {
  const [text, setText] = useState('');
  const off = !state.may_change;
  const add = async (event) => {
    event.preventDefault();
    if (await command('add', {text})) setText('');
  };
  const order = state.prompts.map((one) => one.name);
  const pressed = useRef(null);
  // A button whose card has moved loses the focus, and gets it back.
  useEffect(() => {
    if (document.activeElement === document.body) pressed.current?.focus();
  }, [JSON.stringify(order)]);
  const move = (name, place) => {
    pressed.current = document.activeElement;
    const names = order.filter((one) => one !== name);
    names.splice(Math.max(0, place), 0, name);
    command('order', {names}, true);
  };
  return html`<section class="right" aria-label="What is looked for">
    <form class="add" onSubmit=${add}>
      <label for="text">What to look for</label>
      <div><input id="text" value=${text} disabled=${off} autocomplete="off"
        placeholder="the mug; something to sit on" onInput=${(event) => setText(event.target.value)}/>
      <button disabled=${off || !text.trim()}>Add</button></div>
    </form>
    <ul class="cards">
      ${state.prompts.map((prompt, place) => html`<${Card} key=${prompt.name} prompt=${prompt}
        place=${place} state=${state} move=${move}/>`)}
    </ul>
    <details class="all"><summary>For all prompts</summary>
      <${Slider} label="Threshold of all" min="0.01" max="0.99" step="0.01"
        value=${state.threshold} disabled=${off} own
        change=${(threshold) => command('values', {threshold}, true)}
        reset=${() => command('values', {threshold: null}, true)}/>
      <${Slider} label="Presence of all" min="0" max="1" step="0.01"
        value=${state.presence} disabled=${off} own
        change=${(presence) => command('values', {presence}, true)}
        reset=${() => command('values', {presence: null}, true)}/>
      <button disabled=${off || !state.prompts.length}
        onClick=${() => command('clear')}>Remove all prompts</button>
    </details>
  </section>`;
}

