// The connection to the console: its state, its scores, commands, and the difference of clocks.

export const link = {
  state: null,      // what the server says; see Hub.state
  connected: false,
  lost: false,      // whether a connection was there and is gone
  scores: new Map(),  // name -> [[seconds, score], …] of the last minute
  offset: 0,        // server's clock minus this browser's, milliseconds
  message: null,    // {text, error}: the answer to the last command
  refusal: '',      // why the console refuses connections, though it answers
};

// What this page calls itself in all its connections: what it freezes is kept for it.
export const browser = Array.from(crypto.getRandomValues(new Uint8Array(12)),
  (one) => one.toString(16).padStart(2, '0')).join('');

const listeners = new Set();
const MINUTE = 60;
let bestTrip = Infinity;
let pause = 300;
let messageTimer = 0;

export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell() {
  for (const listener of listeners) listener();
}

export function socketAddress(path) {
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/${path}`;
}

export function say(text, error = false) {
  link.message = {text, error};
  clearTimeout(messageTimer);
  messageTimer = setTimeout(() => { link.message = null; tell(); }, error ? 12000 : 5000);
  tell();
}

export function now() {
  return Date.now() + link.offset;
}

// Finds out why a WebSocket was closed before it was open, which does not say so itself.
export async function explain() {
  link.refusal = await fetch('/', {cache: 'no-store'}).then(
    async (response) => (response.ok ? '' : (await response.text()).trim()), () => '');
  tell();
}

export function connect() {
  const socket = new WebSocket(socketAddress('state'));
  let opened = false;
  let pinging = 0;
  const ping = () => socket.send(JSON.stringify({ping: Date.now()}));
  socket.onopen = () => {
    opened = true;
    pause = 300;
    link.refusal = '';
    bestTrip = Infinity;
    link.connected = true;
    link.lost = false;
    ping();
    pinging = setInterval(ping, 3000);
    tell();
  };
  socket.onmessage = (event) => {
    const news = JSON.parse(event.data);
    if (news.pong !== undefined) {
      const trip = Date.now() - news.pong;
      // The quickest answer says most; a slow link later on must not keep an old one for ever.
      if (trip <= bestTrip + 2) {
        bestTrip = trip;
        link.offset = news.at * 1000 - (Date.now() + news.pong) / 2;
      }
      return;
    }
    if (news.state) {
      // Scores of another model or camera.
      if (news.state.scored !== link.state?.scored) link.scores.clear();
      link.state = news.state;
    }
    if (news.scores) takeScores(news.scores, news.now);
    tell();
  };
  socket.onclose = () => {
    clearInterval(pinging);
    link.lost = link.lost || link.connected;
    link.connected = false;
    tell();
    if (!opened) explain();
    setTimeout(connect, pause);
    pause = Math.min(pause * 1.5, 3000);
  };
}

function takeScores(scores, at) {
  const names = new Set((link.state?.prompts ?? []).map((prompt) => prompt.name));
  for (const [name, values] of Object.entries(scores)) {
    const known = link.scores.get(name) ?? [];
    const last = known.length ? known[known.length - 1][0] : 0;
    for (const value of values) if (value[0] > last) known.push(value);
    while (known.length && at - known[0][0] > MINUTE) known.shift();
    link.scores.set(name, known);
  }
  for (const name of link.scores.keys()) if (!names.has(name)) link.scores.delete(name);
}

async function answerOf(response) {
  let answer = {};
  try {
    answer = await response.json();
  } catch {
    answer = {error: (await response.text().catch(() => '')) || `status ${response.status}`};
  }
  if (!response.ok) throw new Error(answer.error ?? `status ${response.status}`);
  return answer;
}

// Sends a command; says what it did, or why not. Returns whether it was done.
export async function command(name, body = {}, quiet = false) {
  return send(`do/${name}`, JSON.stringify(body), quiet);
}

export async function send(path, body, quiet = false) {
  try {
    const response = await fetch(path, {method: 'POST', body});
    const text = response.headers.get('content-type') ?? '';
    if (!text.includes('json')) throw new Error((await response.text()).trim());
    const answer = await answerOf(response);
    if (!quiet) say(answer.said ?? 'done');
    return true;
  } catch (error) {
    say(unreachable(error), true);
    return false;
  }
}

export async function ask(path, body) {
  const options = body === undefined ? {} : {method: 'POST', body: JSON.stringify(body)};
  const response = await fetch(path, options);
  if (!response.ok) await answerOf(response);
  return response;
}

export function unreachable(error) {
  return error instanceof TypeError ? 'the console does not answer: is it running?' : error.message;
}

// Sends pictures to look at; where there is a camera, as examples of what to look for.
export async function upload(files, state, prompt = '') {
  for (const file of files ?? []) {
    const name = encodeURIComponent(file.name);
    if (prompt || !state.takes_pictures) {
      await send(`example?name=${encodeURIComponent(prompt)}&file=${name}`, file);
    } else {
      await send(`picture?name=${name}`, file);
    }
  }
}

// Sends the pictures that a field for files got, and empties it: the same file may come again.
export function uploadOf(event, state, prompt = '') {
  const files = [...event.target.files];
  event.target.value = '';
  return upload(files, state, prompt);
}

// Calls a function with the newest arguments, at most once in so many milliseconds, and never before
// the call before has ended: what was chosen last is what holds.
export function paced(act, milliseconds) {
  let waiting = null;
  let works = false;
  const run = async () => {
    works = true;
    try {
      while (waiting) {
        const values = waiting;
        waiting = null;
        await Promise.all([act(...values), new Promise((done) => setTimeout(done, milliseconds))]);
      }
    } finally {
      works = false;
    }
  };
  return (...values) => {
    waiting = values;
    if (!works) run();
  };
}
