// Saving pictures and prompts, and copying prompts for other programs.

import {html, useState} from './preact.js';
import {ask, say, unreachable} from './link.js';
import {maskFile} from './draw.js';
import {stage} from './stage.js';
import {shown} from './stream.js';

function download(blob, name) {
  const address = URL.createObjectURL(blob);
  const anchor = document.createElement('a');
  anchor.href = address;
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function stampName() {
  return new Date(shown.shot.stamp * 1000).toISOString().replace(/[:.]/g, '-').slice(0, 23);
}

async function saveFile(kind) {
  const {shot} = shown;
  if (!shot || (kind !== 'picture' && !shot.labels)) {
    say(shot?.own ? `"Node's drawing" has no ${kind}: switch it off, and save again`
      : `there is no ${kind} yet: add a prompt, and wait for a picture`, true);
    return;
  }
  const name = `${kind}_${stampName()}.png`;
  if (kind === 'picture') {
    stage.canvas.toBlob((blob) => download(blob, name), 'image/png');
  } else if (kind === 'mask') {
    download(await maskFile(shot), name);
  } else {
    download(new Blob([shot.labelsFile], {type: 'image/png'}), name);
  }
}

async function savePrompts() {
  try {
    const response = await ask('save/prompts');
    const name = /filename="([^"]+)"/.exec(response.headers.get('content-disposition'))?.[1];
    download(await response.blob(), name ?? 'prompts.yaml');
    const {said} = await (await ask('copy/yaml')).json();
    say(said || `${name}: the node loads it (parameter prompt_file, service ~/load_prompts)`);
  } catch (error) {
    say(unreachable(error), true);
  }
}

export function Saving({state}) {
  const [text, setText] = useState('');
  const copy = async (kind) => {
    try {
      const answer = await (await ask(`copy/${kind}`)).json();
      setText(answer.text);
      let said = 'copied';
      try {
        await navigator.clipboard.writeText(answer.text);
      } catch {
        said = 'this browser copies nothing by itself: the text is below the picture';
      }
      say(answer.said ? `${said}; ${answer.said}` : said);
    } catch (error) {
      say(unreachable(error), true);
    }
  };
  const none = !state.prompts.length;
  return html`<div class="tools saving" role="toolbar" aria-label="Save and copy">
      <span>Save</span>
      <button onClick=${() => saveFile('picture')}>Picture</button>
      <button onClick=${() => saveFile('mask')}>Mask</button>
      <button onClick=${() => saveFile('labels')}>Labels</button>
      <button onClick=${savePrompts} disabled=${none}>Prompt file</button>
      <span>Copy as</span>
      <button onClick=${() => copy('yaml')} disabled=${none}>YAML</button>
      <button onClick=${() => copy('ros2')} disabled=${none}>ros2</button>
      <button onClick=${() => copy('python')} disabled=${none}>Python</button>
    </div>
    ${text && html`<div class="copied"><textarea readonly rows="6" aria-label="Copied text"
      value=${text} onFocus=${(event) => event.target.select()}></textarea>
      <button onClick=${() => setText('')} aria-label="Close the copied text">✕</button></div>`}`;
}
