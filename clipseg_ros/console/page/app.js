// The page: what is where, and what follows from the state of the console.

import {h, html, render, useEffect, useState} from './preact.js';
import {command, connect, link, listen, upload, uploadOf} from './link.js';
import {openStream, setLayers} from './stream.js';
import {Message} from './health.js';
import {Prompts} from './prompts.js';
import {Stage} from './stage.js';
import {Saving} from './saving.js';

function useLink() {
  const [, again] = useState(0);
  useEffect(() => listen(() => again((count) => count + 1)), []);
  return link;
}

const OPTIONS = {tint: true, outline: true, heat: false, instances: false, own: false, strength: 0.5};

function layersOf(options) {
  if (options.own) return ['overlay'];
  const layers = ['labels'];
  if (options.heat) layers.push('heat');
  if (options.instances) layers.push('instances');
  return layers;
}

function Theme() {
  const [theme, setTheme] = useState(localStorage.getItem('clipseg theme') ?? '');
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem('clipseg theme', theme);
  }, [theme]);
  const next = {'': 'dark', dark: 'light', light: ''}[theme];
  const words = {'': 'as the system', dark: 'dark', light: 'light'}[theme];
  return html`<button class="quiet" onClick=${() => setTheme(next)}
    aria-label=${`Colours: ${words}. Change them`}>◐ <span class="wide">${words}</span></button>`;
}

function Choose({label, what, choices, value, disabled}) {
  if (!choices.length) return null;
  return html`<label class="choose">${label}
    <select value=${value} disabled=${disabled}
      onChange=${(event) => command('choose', {what, key: event.target.value})}>
      ${choices.map((one) => html`<option value=${one.key} key=${one.key}
        selected=${one.key === value}>${one.text}</option>`)}
    </select></label>`;
}

function Steps({state}) {
  if (state.steps < 1) return null;
  const go = (by, playing) => command('step', {by, playing}, true);
  const off = !state.may_change;
  return html`<div class="steps" role="group" aria-label="Pictures">
    <button disabled=${off} onClick=${() => go(-1, false)} aria-label="Picture before">◀</button>
    <span>${state.step + 1} / ${state.steps}</span>
    <button disabled=${off} onClick=${() => go(1, false)} aria-label="Next picture">▶</button>
    ${state.steps > 1 && html`<button disabled=${off} aria-pressed=${state.playing}
      onClick=${() => go(0, !state.playing)}>${state.playing ? 'Stop' : 'Play'}</button>`}
  </div>`;
}

function Head({state}) {
  const off = !state.may_change;
  const own = state.models.find((one) => one.key === state.model || one.text === state.model);
  return html`<header>
    <h1><img src="page/icon.svg" alt="" width="24" height="24"/> clipseg</h1>
    <${Choose} label=${state.kind === 'ros' ? 'Camera' : 'Source'} what="source"
      choices=${state.sources} value=${state.source} disabled=${off}/>
    <${Choose} label="Model" what="model" choices=${state.models} value=${own?.key ?? ''}
      disabled=${off}/>
    <${Steps} state=${state}/>
    ${state.takes_pictures && html`<label class="button">Open a picture…
      <input type="file" accept="image/*" class="hidden" disabled=${off}
        onChange=${(event) => uploadOf(event, state)}/></label>`}
    <span class="grow"></span>
    ${off && html`<span class="badge">look only</span>`}
    ${state.viewers > 1 && html`<span class="badge">${state.viewers} browsers</span>`}
    <${Theme}/>
  </header>`;
}

function useDropping(state) {
  useEffect(() => {
    const over = (event) => {
      if (![...event.dataTransfer.types].includes('Files')) return;
      event.preventDefault();
      document.body.classList.add('dropping');
    };
    const leave = (event) => {
      if (!event.relatedTarget) document.body.classList.remove('dropping');
    };
    const drop = (event) => {
      document.body.classList.remove('dropping');
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      const card = event.target.closest?.('[data-prompt]');
      upload(event.dataTransfer.files, state, card?.dataset.prompt ?? '');
    };
    document.addEventListener('dragover', over);
    document.addEventListener('dragleave', leave);
    document.addEventListener('drop', drop);
    return () => {
      document.removeEventListener('dragover', over);
      document.removeEventListener('dragleave', leave);
      document.removeEventListener('drop', drop);
    };
  }, [state?.takes_pictures]);
}

function App() {
  const {state, connected, lost, message, refusal} = useLink();
  const [options, setOptions] = useState(OPTIONS);
  useEffect(() => setLayers(layersOf(options)), [options]);
  useDropping(state);
  if (!state) {
    return html`<p class="starting" role="status">
      ${refusal || (lost ? 'The console does not answer.' : 'The page waits for the console.')}</p>`;
  }
  return html`<${Head} state=${state}/>
    <main>
      <section class="left" aria-label="What is seen">
        <${Stage} state=${state} options=${options} setOptions=${setOptions} connected=${connected}/>
        <${Saving} state=${state}/>
      </section>
      <${Prompts} state=${state}/>
    </main>
    <${Message} message=${message}/>`;
}

render(h(App), document.getElementById('app'));
document.querySelector('#app > .starting')?.remove();
connect();
openStream();
