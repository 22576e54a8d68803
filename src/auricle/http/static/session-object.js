/**
 * The form's settings as the session object of either dialect, and back from an error's `param` to the form's field.
 * Pure: knows neither the page nor the network.
 */

/**
 * What the form holds. Texts are as typed; an empty one leaves the field out of the session object.
 *
 * @typedef {object} Settings
 * @property {'ga'|'beta'} dialect
 * @property {'audio/pcm'|'audio/pcmu'|'audio/pcma'} format
 * @property {number} rate                Hertz; only for `audio/pcm` in GA
 * @property {string} model               empty: the server's default; `none`: no transcription at all
 * @property {string} language
 * @property {string} languages           separated by commas or spaces
 * @property {string} keywords            one a line, or separated by commas
 * @property {string} prompt
 * @property {string} delay
 * @property {'none'|'server_vad'|'semantic_vad'} turn_detection
 * @property {number} threshold
 * @property {number} prefix_padding_ms
 * @property {number} silence_duration_ms
 * @property {string} eagerness
 * @property {''|'near_field'|'far_field'} noise_reduction
 * @property {number} strength
 * @property {boolean} logprobs
 * @property {boolean} words             times of words
 */

/** @type {Readonly<Settings>} */
export const DEFAULTS = Object.freeze({
  dialect: 'ga',
  format: 'audio/pcm',
  rate: 24_000,
  model: '',
  language: '',
  languages: '',
  keywords: '',
  prompt: '',
  delay: '',
  turn_detection: 'server_vad',
  threshold: 0.5,
  prefix_padding_ms: 300,
  silence_duration_ms: 500,
  eagerness: 'auto',
  noise_reduction: '',
  strength: 1,
  logprobs: true,
  words: false,
});

export const LOGPROBS = 'item.input_audio_transcription.logprobs';
export const WORDS = 'item.input_audio_transcription.words';

const BETA_FORMATS = { 'audio/pcm': 'pcm16', 'audio/pcmu': 'g711_ulaw', 'audio/pcma': 'g711_alaw' };

/** Objects of several kinds with different fields: an update of one names its `type`. */
const TAGGED = new Set(['format', 'turn_detection']);

/** What takes back a field, where that is not `null`. */
const CLEARED = { model: '' };

/** Where each setting stands in the session object. */
const PATHS = {
  ga: paths('audio.input.transcription', 'audio.input.turn_detection', 'audio.input.noise_reduction', {
    format: 'audio.input.format.type',
    rate: 'audio.input.format.rate',
  }),
  beta: paths('input_audio_transcription', 'turn_detection', 'input_audio_noise_reduction', {
    format: 'input_audio_format',
  }),
};

function paths(transcription, turns, noise, format) {
  const found = { ...format, logprobs: 'include', words: 'include', turn_detection: `${turns}.type` };
  for (const name of ['model', 'language', 'languages', 'keywords', 'prompt', 'delay']) {
    found[name] = `${transcription}.${name}`;
  }
  for (const name of ['threshold', 'prefix_padding_ms', 'silence_duration_ms', 'eagerness']) {
    found[name] = `${turns}.${name}`;
  }
  return { ...found, noise_reduction: `${noise}.type`, strength: `${noise}.strength` };
}

/** @param {string} text @param {RegExp} separator */
const listed = (text, separator) => text.split(separator).map((part) => part.trim()).filter(Boolean);

/** The audio format on the wire: `rate` is in hertz. @param {Settings} settings */
export function audioFormat(settings) {
  if (settings.format !== 'audio/pcm') return { type: settings.format, rate: 8_000 };
  return { type: settings.format, rate: settings.dialect === 'beta' ? 24_000 : settings.rate };
}

function transcription(settings) {
  if (settings.model === 'none') return null;
  const object = {};
  if (settings.model) object.model = settings.model;
  if (settings.language.trim()) object.language = settings.language.trim();
  const languages = listed(settings.languages, /[\s,]+/);
  if (languages.length) object.languages = languages;
  const keywords = listed(settings.keywords, /[\n,]+/);
  if (keywords.length) object.keywords = keywords;
  if (settings.prompt.trim()) object.prompt = settings.prompt.trim();
  if (settings.delay) object.delay = settings.delay;
  return object;
}

function turnDetection(settings) {
  switch (settings.turn_detection) {
    case 'none':
      return null;
    case 'semantic_vad':
      return { type: 'semantic_vad', eagerness: settings.eagerness };
    default: {
      const { threshold, prefix_padding_ms, silence_duration_ms } = settings;
      return { type: 'server_vad', threshold, prefix_padding_ms, silence_duration_ms };
    }
  }
}

/**
 * The session object, as `session.update` and the endpoints for ephemeral keys take it.
 *
 * @param {Settings} settings
 * @returns {object}
 */
export function sessionObject(settings) {
  const noise = settings.noise_reduction ? { type: settings.noise_reduction, strength: settings.strength } : null;
  const included = [...(settings.logprobs ? [LOGPROBS] : []), ...(settings.words ? [WORDS] : [])];
  const include = included.length ? included : null;
  if (settings.dialect === 'beta') {
    return {
      input_audio_format: BETA_FORMATS[settings.format],
      input_audio_transcription: transcription(settings),
      turn_detection: turnDetection(settings),
      input_audio_noise_reduction: noise,
      include,
    };
  }
  const { type, rate } = audioFormat(settings);
  return {
    type: 'transcription',
    audio: {
      input: {
        format: type === 'audio/pcm' ? { type, rate } : { type },
        transcription: transcription(settings),
        turn_detection: turnDetection(settings),
        noise_reduction: noise,
      },
    },
    include,
  };
}

/**
 * What an update has to say to get from one session object to another: changed fields, and `null` (for the model an
 * empty name) for those that are gone. `null` if nothing changed.
 *
 * @param {object} before
 * @param {object} after
 * @returns {?object}
 */
export function sessionPatch(before, after) {
  const patch = difference(before, after);
  if (!patch) return null;
  return after.type ? { type: after.type, ...patch } : patch;
}

function difference(before, after) {
  const patch = {};
  for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const [old, now] = [before[name] ?? CLEARED[name] ?? null, after[name] ?? CLEARED[name] ?? null];
    if (JSON.stringify(old) === JSON.stringify(now)) continue;
    const nested = isObject(old) && isObject(now) && !(TAGGED.has(name) && old.type !== now.type);
    patch[name] = nested ? difference(old, now) : now;
    if (nested && TAGGED.has(name)) patch[name] = { type: now.type, ...patch[name] };
  }
  return Object.keys(patch).length ? patch : null;
}

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * The form's field that an error's `param` speaks of, or `null`.
 *
 * @param {?string} param   such as `session.audio.input.turn_detection.threshold`
 * @param {'ga'|'beta'} dialect
 * @param {string} [message]   the error's own
 * @returns {?keyof Settings}
 */
export function fieldOfParam(param, dialect, message = '') {
  if (!param) return null;
  const path = param.replace(/^session\./, '').replace(/\[\d+\]/g, '');
  if (path === 'include') return /\bwords\b/.test(message) ? 'words' : 'logprobs'; // one list, two settings
  const entries = Object.entries(PATHS[dialect]);
  const exact = entries.find(([, known]) => known === path);
  // An object is named where one of its fields is missing; its first field stands for it.
  const inside = entries.find(([, known]) => known.startsWith(`${path}.`));
  return (exact ?? inside)?.[0] ?? null;
}

/**
 * The request for an ephemeral key with these settings.
 *
 * @param {Settings} settings
 * @param {object} [session]   the session object that the key shall carry
 * @returns {{path: string, body: object}}
 */
export function keyRequest(settings, session = sessionObject(settings)) {
  return settings.dialect === 'beta'
    ? { path: '/v1/realtime/transcription_sessions', body: session }
    : { path: '/v1/realtime/client_secrets', body: { session } };
}

/** The type of the event that changes a session. @param {'ga'|'beta'} dialect */
export const updateType = (dialect) => (dialect === 'beta' ? 'transcription_session.update' : 'session.update');
