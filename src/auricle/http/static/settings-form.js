/** The session object as a form. Owns the form's elements; what they mean is in `session-object.js`. */

import { byId, make } from './dom.js';
import { DEFAULTS, fieldOfParam } from './session-object.js';

/**
 * @typedef {object} Field
 * @property {keyof import('./session-object.js').Settings} name
 * @property {string} label
 * @property {'text'|'area'|'number'|'range'|'select'|'check'} kind
 * @property {string} [hint]
 * @property {string} [unit]
 * @property {[string, string][]} [options]     values and what they are called
 * @property {object} [input]                   further properties of the element
 * @property {(settings: import('./session-object.js').Settings) => boolean} [shown]
 */

const isVad = (settings) => settings.turn_detection === 'server_vad';
const hasText = (settings) => settings.model !== 'none';

/** @type {{title: string, fields: Field[]}[]} */
const GROUPS = [
  {
    title: 'Transcription',
    fields: [
      { name: 'model', label: 'Model', kind: 'select', options: [['', 'Server’s default'], ['none', 'None: no text']] },
      { name: 'delay', label: 'Delay', kind: 'select', hint: 'How sure a word must be before it is shown.', shown: hasText, options: [['', 'Server’s default'], ['minimal', 'Minimal: soonest'], ['low', 'Low'], ['medium', 'Medium'], ['high', 'High'], ['xhigh', 'Extra high: surest']] },
      { name: 'language', label: 'Language', kind: 'text', shown: hasText, input: { placeholder: 'en' } },
      { name: 'languages', label: 'Languages', kind: 'text', shown: hasText, input: { placeholder: 'en, de' } },
      { name: 'keywords', label: 'Keywords', kind: 'area', hint: 'Names and terms to prefer, one a line.', shown: hasText, input: { rows: 3 } },
      { name: 'prompt', label: 'Prompt', kind: 'area', hint: 'What the talk is about; names and terms in it are preferred.', shown: hasText, input: { rows: 2 } },
      { name: 'logprobs', label: 'Log-probabilities', kind: 'check', hint: 'Doubtful words are underlined with dots.', shown: hasText },
      { name: 'words', label: 'Times of words', kind: 'check', hint: 'Subtitles follow the words; not every model knows them.', shown: hasText },
    ],
  },
  {
    title: 'Turns',
    fields: [
      { name: 'turn_detection', label: 'A turn ends', kind: 'select', options: [['server_vad', 'After silence'], ['semantic_vad', 'When it sounds complete'], ['none', 'By hand, with Commit']] },
      { name: 'silence_duration_ms', label: 'Silence', kind: 'number', unit: 'ms', shown: isVad, input: { min: 0, max: 60_000, step: 1 } },
      { name: 'prefix_padding_ms', label: 'Kept before speech', kind: 'number', unit: 'ms', shown: isVad, input: { min: 0, max: 10_000, step: 1 } },
      { name: 'threshold', label: 'Threshold', kind: 'range', shown: isVad, input: { min: 0, max: 1, step: 0.05 } },
      { name: 'eagerness', label: 'Eagerness', kind: 'select', shown: (settings) => settings.turn_detection === 'semantic_vad', options: [['auto', 'Auto'], ['low', 'Low: lets you finish'], ['medium', 'Medium'], ['high', 'High: soonest']] },
    ],
  },
  {
    title: 'Audio',
    fields: [
      { name: 'format', label: 'Format', kind: 'select', hint: 'Of the WebSocket’s audio. WebRTC sends Opus.', options: [['audio/pcm', 'PCM, 16 bit'], ['audio/pcmu', 'G.711 µ-law'], ['audio/pcma', 'G.711 A-law']] },
      { name: 'rate', label: 'Rate', kind: 'number', unit: 'Hz', shown: (settings) => settings.format === 'audio/pcm' && settings.dialect === 'ga', input: { min: 8000, max: 48_000, step: 1 } },
      { name: 'noise_reduction', label: 'Noise reduction', kind: 'select', options: [['', 'Off'], ['near_field', 'Near field: a headset'], ['far_field', 'Far field: a room']] },
      { name: 'strength', label: 'Strength', kind: 'range', shown: (settings) => settings.noise_reduction !== '', input: { min: 0, max: 1, step: 0.05 } },
    ],
  },
];

const FIELDS = GROUPS.flatMap((group) => group.fields);

/** The form of the Session tab. */
export class SettingsForm {
  /** @param {(settings: import('./session-object.js').Settings) => void} onchange */
  constructor(onchange) {
    this._form = byId('settings');
    this._dialect = byId('dialect');
    this._rows = new Map();
    for (const group of GROUPS) {
      const legend = make('legend', {}, group.title);
      this._form.append(make('fieldset', { className: 'group' }, legend, ...group.fields.map((field) => this._row(field))));
    }
    this._form.append(this._microphone());
    const changed = () => {
      this._arrange();
      onchange(this.settings);
    };
    // A text is told to the session when it is finished, not letter by letter.
    this._form.addEventListener('change', changed);
    this._form.addEventListener('input', ({ target }) => target.type === 'range' && this._showValue(target));
    this._form.addEventListener('submit', (event) => event.preventDefault());
    this._dialect.addEventListener('change', changed);
    byId('reset').addEventListener('click', () => {
      this._fill(DEFAULTS);
      changed();
    });
    this._fill(DEFAULTS);
    this._arrange();
  }

  /** @returns {import('./session-object.js').Settings} */
  get settings() {
    const settings = { ...DEFAULTS, dialect: this._dialect.querySelector(':checked').value };
    for (const field of FIELDS) {
      const { input } = this._rows.get(field.name);
      const isNumber = field.kind === 'number' || field.kind === 'range';
      settings[field.name] = field.kind === 'check' ? input.checked : isNumber ? this._number(field, input) : input.value;
    }
    return settings;
  }

  /** An empty number is the default; everything else goes to the server, which knows what is allowed. */
  _number(field, input) {
    return input.value === '' || Number.isNaN(Number(input.value)) ? DEFAULTS[field.name] : Number(input.value);
  }

  /** Whether the browser shall process the microphone's sound. */
  get processing() {
    return byId('processing').checked;
  }

  /** Offer the server's models. @param {string[]} names */
  setModels(names) {
    const { input } = this._rows.get('model');
    for (const option of [...input.options]) if (!['', 'none'].includes(option.value)) option.remove();
    input.options[0].after(...names.map((name) => make('option', { value: name }, name)));
  }

  /** Show an error at the field that `param` names. @returns {boolean} whether there is one */
  showError(param, message) {
    const name = fieldOfParam(param, this.settings.dialect, message);
    const row = name && this._rows.get(name);
    if (!row) return false;
    row.error.textContent = message;
    row.error.hidden = false;
    row.input.setAttribute('aria-invalid', 'true');
    return true;
  }

  clearErrors() {
    for (const { error, input } of this._rows.values()) {
      error.hidden = true;
      input.removeAttribute('aria-invalid');
    }
  }

  _row(field) {
    const id = `setting-${field.name}`;
    const notes = [field.hint && `${id}-hint`, `${id}-error`].filter(Boolean).join(' ');
    const input = this._input(field, { id, name: field.name, 'aria-describedby': notes, ...field.input });
    const error = make('p', { className: 'field-error', id: `${id}-error`, role: 'alert', hidden: true });
    const hint = field.hint ? make('p', { className: 'field-hint', id: `${id}-hint` }, field.hint) : null;
    const label = make('label', { className: 'field-label', for: id }, field.label);
    const output = field.kind === 'range' ? make('output', { for: id }) : null;
    const control = field.unit || output
      ? make('div', { className: 'field-control' }, input, output, field.unit ? make('span', { className: 'unit', 'aria-hidden': 'true' }, field.unit) : null)
      : input;
    const element = make('div', { className: `field field-${field.kind}` }, label, control, hint, error);
    this._rows.set(field.name, { element, input, error, output, field });
    return element;
  }

  _input(field, properties) {
    switch (field.kind) {
      case 'select':
        return make('select', properties, ...field.options.map(([value, text]) => make('option', { value }, text)));
      case 'area':
        return make('textarea', { ...properties, spellcheck: false });
      case 'check':
        return make('input', { ...properties, type: 'checkbox' });
      default:
        return make('input', { ...properties, type: field.kind, autocomplete: 'off', spellcheck: false });
    }
  }

  /** Not a part of the session, but of what the session hears. */
  _microphone() {
    const input = make('input', { type: 'checkbox', id: 'processing', 'aria-describedby': 'processing-hint' });
    const hint = 'The browser’s echo cancellation, noise suppression and gain control. Recognisers hear plain sound better; switch it on when loudspeakers play.';
    return make(
      'fieldset',
      { className: 'group' },
      make('legend', {}, 'Microphone'),
      make(
        'div',
        { className: 'field field-check' },
        make('label', { className: 'field-label', for: 'processing' }, 'Browser processing'),
        input,
        make('p', { className: 'field-hint', id: 'processing-hint' }, hint),
      ),
    );
  }

  _fill(settings) {
    for (const { input, field } of this._rows.values()) {
      if (field.kind === 'check') input.checked = settings[field.name];
      else input.value = settings[field.name];
      this._showValue(input);
    }
    this._dialect.querySelector(`[value=${settings.dialect}]`).checked = true;
  }

  _showValue(input) {
    const row = this._rows.get(input.name);
    if (row?.output) row.output.textContent = Number(input.value).toFixed(2);
  }

  /** Show the fields that have a meaning beside the others. */
  _arrange() {
    const { settings } = this;
    for (const { element, field } of this._rows.values()) element.hidden = !(field.shown?.(settings) ?? true);
  }
}
