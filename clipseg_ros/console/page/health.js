// What is wrong, in words; how fast and how old pictures are; and what commands answer.

import {html, useEffect, useState} from './preact.js';
import {link, now} from './link.js';
import {rate, shown} from './stream.js';

// Below the picture, which would move under the pointer otherwise.
export function Health({state, connected}) {
  const troubles = [...state.troubles];
  if (link.refusal) {
    troubles.unshift({level: 'error', text: link.refusal});
  } else if (!connected) {
    const text = 'the console does not answer: is it still running? The page tries again by itself';
    troubles.unshift({level: 'error', text});
  }
  return html`<div class="health" role="status" aria-live="polite">
    ${troubles.map((one) => html`<p class=${one.level} key=${one.text.slice(0, 24)}>
      <strong>${{error: 'Wrong', warning: 'Note', note: 'Next'}[one.level]}:</strong>
      ${' '}${one.text}</p>`)}
  </div>`;
}

export function Message({message}) {
  return html`<div class="message" role="status" aria-live="polite">
    ${message && html`<p class=${message.error ? 'error' : ''}>${message.text}</p>`}</div>`;
}

// The figures below the picture, twice a second.
export function Figures({state}) {
  const [, again] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => again((count) => count + 1), 500);
    return () => clearInterval(timer);
  }, []);
  const {values} = state;
  const {fps, silent} = rate();
  let age = '–';
  // A stamp of the future, or of long ago when its picture came, is of another clock, such as the
  // one of a simulation: then nobody knows how old the picture is.
  const oneClock = shown.age > -1000 && shown.age < 60000;
  if (shown.shot && !shown.paused && state.steps === 0 && oneClock) {
    age = silent < 1000 ? `${Math.max(0, Math.round(shown.age))} ms`
      : `${((now() - shown.shot.stamp * 1000) / 1000).toFixed(1)} s`;
  }
  const items = [
    ['frames', `${fps.toFixed(1)}/s`],
    ['age', age],
    ['latency', values.latency_ms ? `${Math.round(values.latency_ms)} ms` : '–'],
    ['model', state.model || '–'],
    ['device', state.device || '–'],
  ];
  if (values.model_ms) items.push(['inference', `${Math.round(values.model_ms)} ms`]);
  return html`<dl class="figures" aria-label="Speed">
    ${items.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}
