/** Puts the page together: the controls, the run that they start, and who shows what of it. */

import { Microphone, microphones, Recording, SourceError } from './audio-source.js';
import { Captions, latency } from './captions.js';
import { SAMPLES } from './code-samples.js';
import { announce, byId, copyFrom, icon, make, wireTabs } from './dom.js';
import { Inspector } from './inspector.js';
import { noticeFor, PHASE_TEXT } from './notices.js';
import { Run } from './run.js';
import { sessionObject } from './session-object.js';
import { SettingsForm } from './settings-form.js';
import { median } from './transcript.js';
import { clockTime, FILES } from './transcript-files.js';
import { Waveform } from './waveform.js';

const SAMPLE_URL = '/playground/sample.wav';
const RUNNING = new Set(['asking', 'connecting', 'listening', 'reconnecting', 'full']);

const page = {
  controls: byId('controls'),
  start: byId('start'),
  commit: byId('commit'),
  state: byId('state'),
  stateText: byId('state-text'),
  notice: byId('notice'),
  device: byId('device'),
  file: byId('file'),
};

const captions = new Captions();
const inspector = new Inspector();
const waveform = new Waveform();
const form = new SettingsForm(settingsChanged);

/** The API key, once it was asked for. In memory only. */
const key = { value: '', isWanted: false, ask: askForKey };
let defaultModel = 'gpt-4o-transcribe';
/** @type {?Run} */
let run = null;
/** @type {?File} */
let chosenFile = null;

const chosen = (name) => page.controls.elements[name].value;
const isRunning = () => run !== null && RUNNING.has(run.phase);

// Starting and stopping

async function openSource() {
  switch (chosen('source')) {
    case 'microphone': {
      const source = await Microphone.open({ deviceId: page.device.value, processing: form.processing });
      await listMicrophones(); // they have names only now
      return source;
    }
    case 'file':
      if (!chosenFile) throw new SourceError('unchosen', 'Choose a file first.');
      return Recording.open(chosenFile.arrayBuffer(), isHeard());
    default:
      return Recording.open(sampleBytes(), isHeard());
  }
}

async function sampleBytes() {
  const response = await fetch(SAMPLE_URL).catch(() => null);
  if (!response?.ok) throw new SourceError('sample', 'The server has no sample.');
  return response.arrayBuffer();
}

const isHeard = () => document.querySelector(`[data-source=${chosen('source')}] .heard`).checked;

function start() {
  captions.clear();
  inspector.clear();
  form.clearErrors();
  showNotice(null);
  run = new Run(
    { origin: location.origin, transport: chosen('transport'), settings: form.settings, openSource, key },
    {
      onphase: showPhase,
      onitem: (item, event) => {
        captions.show(item, event);
        showFigures();
        waveform.describe();
      },
      ongap: () => captions.showGaps(run.transcript.gaps, chosen('source') !== 'microphone'),
      onevent: showEvent,
      onsamples: (samples, rate) => {
        waveform.push(samples, rate);
        byId('elapsed').textContent = clockTime(run.clock_ms);
      },
    },
  );
  byId('elapsed').textContent = clockTime(0);
  showFigures();
  waveform.show(run);
  run.start();
}

page.controls.addEventListener('submit', (event) => {
  event.preventDefault();
  if (isRunning()) run.stop();
  else if (run?.phase !== 'finishing') start();
});
page.commit.addEventListener('click', () => run?.commit());

// What is shown of a run

function showPhase(phase, detail) {
  page.state.dataset.phase = phase;
  document.body.dataset.phase = phase;
  showStateText(phase, detail);
  const [name, label] = isRunning() ? ['stop', 'Stop'] : ['play', 'Start'];
  page.start.replaceChildren(icon(name), make('span', {}, label));
  page.start.classList.toggle('primary', !isRunning());
  // Not `disabled`, which would take the focus from whoever pressed it by key.
  page.start.setAttribute('aria-disabled', String(phase === 'finishing'));
  for (const input of page.controls.querySelectorAll('fieldset, select, input[type=file]')) input.disabled = isRunning() || phase === 'finishing';
  arrangeCommit();
  showNotice(noticeFor(phase, detail, actions()));
  if (phase === 'failed' && detail.param) form.showError(detail.param, detail.message);
  if (phase === 'done' && run.transcript.items.length === 0) page.stateText.textContent = 'Done: nothing was said';
  if (phase === 'done') announce('Transcription ended');
  if (phase === 'connecting' || phase === 'done') loadModels();
  settingsNote();
}

let countdown = null;

/** The phase in words; where it is tried again, with the seconds until then. */
function showStateText(phase, { until_ms }) {
  clearInterval(countdown);
  page.stateText.textContent = PHASE_TEXT[phase];
  const write = () => {
    const rest_s = Math.max(0, Math.ceil((until_ms - performance.now()) / 1000));
    byId('state-wait').textContent = until_ms ? `next try in ${rest_s} s` : '';
  };
  write();
  if (until_ms) countdown = setInterval(write, 500);
}

/** What notices offer to do. */
const actions = () => ({
  retry: () => run?.retryNow(),
  start,
  useWebSocket: () => {
    page.controls.querySelector('[value=websocket]').click();
    start();
  },
  without: (setting) => {
    byId(`setting-${setting}`).click();
    start();
  },
  useSample: () => {
    page.controls.querySelector('[value=sample]').click();
    start();
  },
});

function showNotice(notice) {
  // One that stays is left alone: a screen reader would read it again.
  const content = JSON.stringify(notice);
  if (page.notice.dataset.content === content) return;
  page.notice.dataset.content = content;
  page.notice.hidden = notice === null;
  page.notice.replaceChildren();
  if (!notice) return;
  page.notice.dataset.kind = notice.kind;
  const text = make('div', {}, make('p', { className: 'notice-title' }, notice.title), make('p', {}, notice.text));
  page.notice.append(text);
  for (const { label, act } of notice.actions ?? []) {
    const button = make('button', { type: 'button', className: 'button' }, label);
    button.addEventListener('click', act);
    page.notice.append(button);
  }
}

function showFigures() {
  const { items } = run.transcript;
  const middle = (name) => latency(median(items.map((item) => item[name]).filter((value) => value !== null)));
  byId('first-word').textContent = middle('firstWordMs');
  byId('final').textContent = middle('finalMs');
  const hasText = items.some((item) => item.text);
  for (const button of byId('files').querySelectorAll('button')) button.disabled = !hasText;
}

function showEvent(direction, event, bytes) {
  inspector.add(direction, event, bytes);
  if (direction !== 'received') return;
  if (event.type.endsWith('session.updated')) form.clearErrors();
  const model = event.session?.audio?.input?.transcription?.model ?? event.session?.input_audio_transcription?.model;
  if (model && !form.settings.model) defaultModel = model;
  if (event.type !== 'error' || !isRunning()) return;
  const isAtField = form.showError(event.error.param, event.error.message);
  if (!isAtField && event.error.code !== 'input_audio_buffer_commit_empty' && run.phase === 'listening') {
    showNotice({ kind: 'warning', title: 'The server refused an event', text: event.error.message });
  }
}

// Settings

function settingsChanged(settings) {
  form.clearErrors();
  run?.update(settings);
  showSettings();
  arrangeCommit();
  settingsNote();
}

function showSettings() {
  const { settings } = form;
  byId('json').textContent = JSON.stringify(sessionObject(settings), null, 2);
  const place = { origin: location.origin, wantsKey: key.isWanted, defaultModel, transport: chosen('transport') };
  const sample = byId('code-tabs').querySelector('[aria-selected=true]').dataset.sample;
  byId('code').textContent = SAMPLES[sample](settings, place);
}

function settingsNote() {
  const dialect = run?.dialect;
  const isOther = isRunning() && dialect !== form.settings.dialect;
  const running = isOther ? 'Another dialect begins with the next session.' : 'Changes are sent as you make them.';
  byId('settings-note').textContent = isRunning() ? running : 'These settings hold from Start on.';
}

function arrangeCommit() {
  page.commit.hidden = form.settings.turn_detection !== 'none';
  page.commit.disabled = run?.phase !== 'listening';
}

// The server

async function loadModels() {
  if (loadModels.isDone) return;
  const headers = key.value ? { Authorization: `Bearer ${key.value}` } : {};
  const response = await fetch('/v1/models', { headers }).catch(() => null);
  if (!response?.ok) return;
  const { data } = await response.json();
  loadModels.isDone = true;
  defaultModel = data[0]?.id ?? defaultModel;
  form.setModels(data.map((model) => model.id));
  showSettings();
}

async function showServer() {
  const response = await fetch('/health').catch(() => null);
  if (!response?.ok) return;
  const { version } = await response.json();
  byId('server').textContent = `${location.host} · ${version}`;
}

/** Ask for the API key. @returns {Promise<boolean>} whether one was given */
function askForKey(wasWrong, message) {
  key.isWanted = true;
  const dialog = byId('key-dialog');
  byId('key-title').textContent = wasWrong ? 'That key was not accepted' : 'This server wants an API key';
  byId('key-error').hidden = !wasWrong;
  byId('key-error').textContent = wasWrong ? message : '';
  byId('key').value = '';
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      const isGiven = dialog.returnValue === 'use';
      if (isGiven) key.value = byId('key').value.trim();
      byId('key').value = '';
      showSettings();
      resolve(isGiven);
    };
  });
}

async function listMicrophones() {
  const before = page.device.value;
  const found = await microphones();
  const options = found
    .filter((device) => device.deviceId !== 'default' && device.deviceId !== 'communications')
    .map((device, index) => make('option', { value: device.deviceId }, device.label || `Microphone ${index + 1}`));
  page.device.replaceChildren(make('option', { value: '' }, 'Default microphone'), ...options);
  page.device.value = options.some((option) => option.value === before) ? before : '';
}

// Sources

function arrangeSource() {
  for (const detail of document.querySelectorAll('.source-detail')) detail.hidden = detail.dataset.source !== chosen('source');
}

function chooseFile(file) {
  chosenFile = file;
  byId('file-name').textContent = file ? file.name : 'Choose a file, or drop one here';
}

page.file.addEventListener('change', () => chooseFile(page.file.files[0] ?? null));
byId('source').addEventListener('change', arrangeSource);
byId('transport').addEventListener('change', showSettings);
for (const box of document.querySelectorAll('.heard')) box.addEventListener('change', () => run?.setHeard(box.checked));

const drop = byId('drop');
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  if (event.dataTransfer.types.includes('Files')) drop.hidden = isRunning();
});
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) drop.hidden = true;
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  drop.hidden = true;
  const [file] = event.dataTransfer.files;
  if (!file || isRunning()) return;
  page.controls.querySelector('[value=file]').click();
  chooseFile(file);
});

// Downloads, copying, tabs, theme

byId('files').addEventListener('click', ({ target }) => {
  const kind = target.dataset.file;
  if (!kind) return;
  const { type, write } = FILES[kind];
  const text = write(run.transcript.items, sessionObject(form.settings), run.transcript.gaps);
  const url = URL.createObjectURL(new Blob([text], { type }));
  make('a', { href: url, download: `transcript.${kind}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
});

for (const [id, from] of [['json-copy', 'json'], ['code-copy', 'code']]) {
  byId(id).append(icon('copy'));
  byId(id).addEventListener('click', ({ currentTarget }) => copyFrom(currentTarget, byId(from).textContent));
}
byId('view').addEventListener('change', ({ target }) => {
  byId('settings').hidden = target.value === 'json';
  byId('json-view').hidden = target.value !== 'json';
});
byId('key-cancel').addEventListener('click', () => byId('key-dialog').close(''));
wireTabs(byId('panel-tabs'), (tab) => tab.id === 'tab-events' && inspector.scrollToEnd());
wireTabs(byId('code-tabs'), showSettings);

const THEMES = { system: 'as the system', light: 'light', dark: 'dark' };

function setTheme(theme) {
  if (theme === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId('theme').setAttribute('aria-label', `Theme: ${THEMES[theme]}`);
  byId('theme').title = `Theme: ${THEMES[theme]}`;
  waveform.recolour();
}

byId('theme').addEventListener('click', () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme ?? 'system') + 1) % names.length];
  try {
    localStorage.setItem('theme', next);
  } catch {
    // Then it lasts as long as the page.
  }
  setTheme(next);
});

navigator.mediaDevices?.addEventListener?.('devicechange', listMicrophones);
setTheme(document.documentElement.dataset.theme ?? 'system');
arrangeSource();
arrangeCommit();
settingsNote();
showSettings();
showServer();
loadModels();
listMicrophones();
