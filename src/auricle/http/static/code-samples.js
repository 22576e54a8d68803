/** "Use it in your code": programs for exactly the form's settings. Pure. */

import { audioFormat, keyRequest, sessionObject, updateType } from './session-object.js';

/**
 * @typedef {object} Place
 * @property {string} origin        of the server, such as `http://127.0.0.1:8000`
 * @property {boolean} wantsKey     whether the server asked for an API key
 * @property {string} defaultModel  what the server calls the model of sessions that name none
 * @property {'websocket'|'webrtc'} transport
 */

const SILENCE_BYTE = { 'audio/pcm': 0, 'audio/pcmu': 0xff, 'audio/pcma': 0xd5 };
const FFMPEG_FORMAT = { 'audio/pcm': 's16le', 'audio/pcmu': 'mulaw', 'audio/pcma': 'alaw' };
/** Seconds of silence that end any turn. `semantic_vad` waits for up to 8. */
const SILENCE_S = { server_vad: (settings) => settings.silence_duration_ms / 1000 + 0.5, semantic_vad: () => 9 };

/** Longer literals are broken into lines. */
const LINE_LENGTH = 56;

const TEXT = 'conversation.item.input_audio_transcription';

/** What the programs need to know of the audio. */
function audioFacts(settings) {
  const { type, rate } = audioFormat(settings);
  const bytesPerSecond = type === 'audio/pcm' ? rate * 2 : rate;
  const silence_s = SILENCE_S[settings.turn_detection]?.(settings) ?? 0;
  return {
    ffmpeg: `ffmpeg -i speech.wav -ac 1 -ar ${rate} -f ${FFMPEG_FORMAT[type]} speech.raw`,
    bytesPerSecond,
    silenceBytes: Math.round(silence_s * (bytesPerSecond / 2)) * 2,
    silenceByte: SILENCE_BYTE[type],
  };
}

/** A JSON value as a Python literal. @param {unknown} value @param {string} [indent] */
export function pythonLiteral(value, indent = '') {
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value !== 'object') return JSON.stringify(value);
  const inner = `${indent}    `;
  const entries = Array.isArray(value)
    ? value.map((part) => pythonLiteral(part, inner))
    : Object.entries(value).map(([name, part]) => `${JSON.stringify(name)}: ${pythonLiteral(part, inner)}`);
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  const line = `${open}${entries.join(', ')}${close}`;
  if (line.length + indent.length <= LINE_LENGTH && !line.includes('\n')) return line;
  return `${open}\n${entries.map((entry) => `${inner}${entry},\n`).join('')}${indent}${close}`;
}

/** A JSON value as a JavaScript literal. @param {unknown} value @param {string} [indent] */
export function javascriptLiteral(value, indent = '') {
  if (typeof value === 'string') return `'${JSON.stringify(value).slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const inner = `${indent}  `;
  const entries = Array.isArray(value)
    ? value.map((part) => javascriptLiteral(part, inner))
    : Object.entries(value).map(([name, part]) => `${name}: ${javascriptLiteral(part, inner)}`);
  if (!entries.length) return Array.isArray(value) ? '[]' : '{}';
  const [open, close] = Array.isArray(value) ? ['[', ']'] : ['{ ', ' }'];
  const line = `${open}${entries.join(', ')}${close}`;
  if (line.length + indent.length <= LINE_LENGTH && !line.includes('\n')) return line;
  return `${open.trim()}\n${entries.map((entry) => `${inner}${entry},\n`).join('')}${indent}${close.trim()}`;
}

const apiKey = (place) => (place.wantsKey ? 'YOUR_API_KEY' : 'any');

/** A program for the official SDK. @param {import('./session-object.js').Settings} settings @param {Place} place */
export function pythonSample(settings, place) {
  const beta = settings.dialect === 'beta';
  const facts = audioFacts(settings);
  const fill = facts.silenceByte ? `b"\\x${facts.silenceByte.toString(16)}" * ${facts.silenceBytes}` : `bytes(${facts.silenceBytes})`;
  const socket = beta ? `\n    websocket_base_url="${place.origin.replace(/^http/, 'ws')}/v1",` : '';
  const model = settings.model && settings.model !== 'none' ? settings.model : place.defaultModel;
  const [namespace, query, update] = beta
    ? ['beta.realtime', `model="${model}", extra_query={"intent": "transcription"}`, 'transcription_session']
    : ['realtime', 'extra_query={"intent": "transcription"}', 'session'];
  const expectsText = settings.model !== 'none';
  return `# pip install "openai[realtime]"
# Audio in this session's format:
#   ${facts.ffmpeg}
import base64

from openai import OpenAI

session = ${pythonLiteral(sessionObject(settings))}

with open("speech.raw", "rb") as file:
    audio = file.read()${facts.silenceBytes ? ` + ${fill}  # silence ends the last turn` : ''}

client = OpenAI(
    base_url="${place.origin}/v1",${socket}
    api_key="${apiKey(place)}",
)
with client.${namespace}.connect(${query}) as connection:
    connection.${update}.update(session=session)
    for start in range(0, len(audio), ${facts.bytesPerSecond}):
        chunk = base64.b64encode(audio[start : start + ${facts.bytesPerSecond}]).decode()
        connection.input_audio_buffer.append(audio=chunk)
${facts.silenceBytes ? '' : '    connection.input_audio_buffer.commit()\n'}    # Answered once all audio before it was heard: then no further item begins.
    connection.${update}.update(session=${beta ? '{}' : '{"type": "transcription"}'})

    updates = waiting = 0
    for event in connection:
        if event.type == "${updateType(settings.dialect)}d":
            updates += 1
        elif event.type == "input_audio_buffer.committed":
            ${expectsText ? 'waiting += 1' : 'print(event.item_id)'}
        elif event.type == "${TEXT}.completed":
            waiting -= 1
            print(event.transcript)
        elif event.type == "${TEXT}.failed":
            waiting -= 1
        elif event.type == "error":
            raise SystemExit(event.error.message)
        if updates == 2 and waiting == 0:
            break
`;
}

/** A program for Node over WebSocket, or for a browser over WebRTC. */
export function javascriptSample(settings, place) {
  return place.transport === 'webrtc' ? browserSample(settings, place) : nodeSample(settings, place);
}

/** How a key for one session is made; the same in both programs. */
function keySample(settings, place) {
  const { path } = keyRequest(settings);
  const beta = settings.dialect === 'beta';
  return `const base = '${place.origin}';
const session = ${javascriptLiteral(sessionObject(settings))};

// A short-lived key that carries these settings.
// Make it on your own server: the API key is not for browsers.
const response = await fetch(\`\${base}${path}\`, {
  method: 'POST',
  headers: { Authorization: 'Bearer ${apiKey(place)}', 'Content-Type': 'application/json' },
  body: JSON.stringify(${beta ? 'session' : '{ session }'}),
});
if (!response.ok) throw new Error(await response.text());
const ${beta ? '{ client_secret: { value: key } }' : '{ value: key }'} = await response.json();
`;
}

function nodeSample(settings, place) {
  const facts = audioFacts(settings);
  const beta = settings.dialect === 'beta';
  const expectsText = settings.model !== 'none';
  const protocols = ["'realtime'", '`openai-insecure-api-key.${key}`', ...(beta ? ["'openai-beta.realtime-v1'"] : [])];
  const silence = `Buffer.alloc(${facts.silenceBytes}, ${facts.silenceByte})`;
  const read = facts.silenceBytes
    ? `Buffer.concat([await readFile('speech.raw'), ${silence}]); // silence ends the last turn`
    : "await readFile('speech.raw');";
  return `// Save as transcribe.mjs, then: node transcribe.mjs (Node 22 or newer)
// Audio in this session's format:
//   ${facts.ffmpeg}
import { readFile } from 'node:fs/promises';

${keySample(settings, place)}
const audio = ${read}
const url = \`\${base.replace('http', 'ws')}/v1/realtime?intent=transcription\`;
const socket = new WebSocket(url, [${protocols.join(', ')}]);
const send = (event) => socket.send(JSON.stringify(event));

socket.onopen = () => {
  for (let start = 0; start < audio.length; start += ${facts.bytesPerSecond}) {
    const chunk = audio.subarray(start, start + ${facts.bytesPerSecond});
    send({ type: 'input_audio_buffer.append', audio: chunk.toString('base64') });
  }
${facts.silenceBytes ? '' : "  send({ type: 'input_audio_buffer.commit' });\n"}  // Answered once all audio before it was heard: then no further item begins.
  send({ type: '${updateType(settings.dialect)}', session: ${beta ? '{}' : "{ type: 'transcription' }"} });
};

let heard = false;
let waiting = 0;
socket.onmessage = ({ data }) => {
  const event = JSON.parse(data);
  if (event.type === '${updateType(settings.dialect)}d') heard = true;
  if (event.type === 'input_audio_buffer.committed') ${expectsText ? 'waiting += 1' : 'console.log(event.item_id)'};
  if (event.type === '${TEXT}.completed') console.log(event.transcript);
  if (/input_audio_transcription\\.(completed|failed)$/.test(event.type)) waiting -= 1;
  if (event.type === 'error') console.error(event.error.message);
  if (heard && waiting === 0) socket.close();
};
`;
}

function browserSample(settings, place) {
  const beta = settings.dialect === 'beta';
  const path = beta ? '/v1/realtime?intent=transcription' : '/v1/realtime/calls';
  return `// In a page's module: the microphone over WebRTC.
${keySample(settings, place)}
const connection = new RTCPeerConnection();
const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
connection.addTrack(microphone.getAudioTracks()[0], microphone);

const events = connection.createDataChannel('oai-events');
events.onmessage = ({ data }) => {
  const event = JSON.parse(data);
  if (event.type === '${TEXT}.completed') console.log(event.transcript);
  if (event.type === 'error') console.error(event.error.message);
};

await connection.setLocalDescription();
const answer = await fetch(\`\${base}${path}\`, {
  method: 'POST',
  headers: { Authorization: \`Bearer \${key}\`, 'Content-Type': 'application/sdp' },
  body: connection.localDescription.sdp,
});
if (!answer.ok) throw new Error(await answer.text());
await connection.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
${
  settings.turn_detection === 'none'
    ? "\n// Whenever an utterance is over:\n// events.send(JSON.stringify({ type: 'input_audio_buffer.commit' }));\n"
    : ''
}`;
}

/** Makes an ephemeral key that carries these settings. */
export function curlSample(settings, place) {
  const { path, body } = keyRequest(settings);
  // In a shell's single quotes everything stands for itself but the quote.
  const json = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  return `# Makes a short-lived key that carries these settings,
# with which a browser opens a session.
curl ${place.origin}${path} \\
  -H 'Authorization: Bearer ${apiKey(place)}' \\
  -H 'Content-Type: application/json' \\
  -d '${json}'
`;
}

/** All samples by the name of their tab. */
export const SAMPLES = { python: pythonSample, javascript: javascriptSample, curl: curlSample };
