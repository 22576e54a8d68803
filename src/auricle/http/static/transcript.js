/**
 * A run's transcript, made of the server's events. Pure: times are arguments.
 *
 * Two clocks: `now_ms` is the page's own, for latencies; `clock_ms` is that of the audio since the run began, for
 * where an item lies. A run may span several sessions, whose times begin at 0 each.
 */

/**
 * @typedef {object} Item
 * @property {string} id
 * @property {number} number              from 1 on, in the order of the items
 * @property {?number} start_ms           on the audio's clock
 * @property {?number} end_ms
 * @property {string} text                deltas joined, or the final transcript
 * @property {{token: string, logprob: number}[]} logprobs
 * @property {{word: string, start: number, end: number}[]} words   with times in seconds on the audio's clock, if asked for
 * @property {'open'|'committed'|'completed'|'failed'|'cut'} status   `cut`: its session ended before its text came
 * @property {?string} error
 * @property {?number} firstWordMs        latency of the first delta after `speech_started`
 * @property {?number} finalMs            latency of `completed` after `speech_stopped`, or after the commit by hand
 * @property {number} session             index of its session
 */

const TEXT = 'conversation.item.input_audio_transcription.';

/** Items and gaps of one run, in their order. */
export class Transcript {
  constructor() {
    /** @type {Item[]} */
    this.items = [];
    /** Audio that no session heard. @type {{start_ms: number, end_ms: ?number}[]} */
    this.gaps = [];
    this._byId = new Map();
    this._session = -1;
    this._offset_ms = 0;
    this._boundary_ms = 0; // end of the newest committed item
    this._commits = []; // by hand, and not answered yet
  }

  /** A session begins with the audio at `clock_ms`. */
  beginSession(clock_ms) {
    this._session += 1;
    this._offset_ms = clock_ms;
    this._boundary_ms = clock_ms;
    this._commits = [];
    const gap = this.gaps.at(-1);
    if (gap && gap.end_ms === null) gap.end_ms = clock_ms;
  }

  /**
   * The session is over before its time: what is open gets no more text.
   *
   * @param {number} clock_ms
   * @returns {Item[]} the items that changed
   */
  loseSession(clock_ms) {
    const cut = this.pending();
    for (const item of cut) {
      item.status = 'cut';
      item.end_ms ??= clock_ms;
    }
    this.gaps.push({ start_ms: clock_ms, end_ms: null });
    return cut;
  }

  /**
   * The client commits by hand.
   *
   * @param {number} clock_ms   how much audio it has sent
   * @param {number} now_ms
   */
  noteCommit(clock_ms, now_ms) {
    this._commits.push({ end_ms: clock_ms, stoppedAt: now_ms });
  }

  /** Items whose text is not final yet. */
  pending() {
    return this.items.filter((item) => item.status === 'open' || item.status === 'committed');
  }

  /** Whether speech is being heard whose end is not known. */
  get isSpeaking() {
    return this.items.some((item) => item.status === 'open');
  }

  /**
   * Take in one event of the server.
   *
   * @param {object} event
   * @param {number} now_ms
   * @param {boolean} expectsText   whether committed items will be transcribed
   * @returns {?Item} the item that changed
   */
  apply(event, now_ms, expectsText = true) {
    switch (event.type) {
      case 'input_audio_buffer.speech_started':
        return this._change(event.item_id, { start_ms: this._onClock(event.audio_start_ms), startedAt: now_ms });
      case 'input_audio_buffer.speech_stopped':
        return this._change(event.item_id, { end_ms: this._onClock(event.audio_end_ms), stoppedAt: now_ms });
      case 'input_audio_buffer.committed':
        return this._commit(event.item_id, expectsText);
      case 'input_audio_buffer.cleared':
        return this._clear();
      case `${TEXT}delta`:
        return this._delta(event, now_ms);
      case `${TEXT}completed`:
        return this._complete(event, now_ms);
      case `${TEXT}failed`:
        return this._change(event.item_id, { status: 'failed', error: event.error?.message ?? 'No text.' });
      case 'error':
        if (event.error.code === 'input_audio_buffer_commit_empty') this._commits.shift();
        return null;
      default:
        return null;
    }
  }

  /** A session's time on the run's clock. Over WebRTC a session hears a little more than the run. */
  _onClock(session_ms) {
    return Math.max(0, this._offset_ms + session_ms);
  }

  _item(id) {
    let item = this._byId.get(id);
    if (!item) {
      item = {
        id,
        number: this.items.length + 1,
        start_ms: null,
        end_ms: null,
        text: '',
        logprobs: [],
        words: [],
        status: 'open',
        error: null,
        firstWordMs: null,
        finalMs: null,
        session: this._session,
        startedAt: null,
        stoppedAt: null,
      };
      this._byId.set(id, item);
      this.items.push(item);
    }
    return item;
  }

  _change(id, fields) {
    return Object.assign(this._item(id), fields);
  }

  _commit(id, expectsText) {
    const item = this._item(id);
    // A commit by hand has no `speech_stopped`: the item ends where the audio stood when it was asked for.
    if (item.stoppedAt === null) Object.assign(item, this._commits.shift());
    item.start_ms ??= this._boundary_ms;
    this._boundary_ms = item.end_ms ?? this._boundary_ms;
    if (item.status === 'open') item.status = expectsText ? 'committed' : 'completed';
    return item;
  }

  _clear() {
    const open = this.items.find((item) => item.status === 'open');
    if (open) open.status = 'cut';
    return open ?? null;
  }

  _delta(event, now_ms) {
    const item = this._item(event.item_id);
    item.start_ms ??= this._boundary_ms;
    if (item.text === '' && item.startedAt !== null) item.firstWordMs = now_ms - item.startedAt;
    item.text += event.delta;
    item.logprobs.push(...(event.logprobs ?? []));
    return item;
  }

  _complete(event, now_ms) {
    const item = this._item(event.item_id);
    item.text = event.transcript;
    item.logprobs = event.logprobs ?? [];
    const onClock = (seconds) => this._onClock(seconds * 1000) / 1000;
    item.words = (event.words ?? []).map((word) => ({ ...word, start: onClock(word.start), end: onClock(word.end) }));
    item.status = 'completed';
    if (item.stoppedAt !== null) item.finalMs = now_ms - item.stoppedAt;
    return item;
  }
}

/** @param {number[]} values @returns {?number} the middle one; the lower of two */
export function median(values) {
  if (!values.length) return null;
  return [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)];
}

/** Below this probability a word counts as unsure. */
export const UNSURE_BELOW = 0.5;

/**
 * A text's words, each with the probability of its least sure token, or `null` where tokens and text don't match.
 *
 * @param {string} text
 * @param {{token: string, logprob: number}[]} logprobs
 * @returns {{text: string, probability: ?number}[]} pieces that make up the text when joined
 */
export function words(text, logprobs) {
  const joined = logprobs.map(({ token }) => token).join('');
  if (!logprobs.length || joined.trim() !== text.trim()) return [{ text, probability: null }];
  const found = [];
  for (const { token, logprob } of logprobs) {
    if (!found.length || /^\s/.test(token)) found.push({ text: '', logprob: 0 });
    const word = found.at(-1);
    word.text += token;
    word.logprob = Math.min(word.logprob, logprob);
  }
  if (!/^\s/.test(text)) found[0].text = found[0].text.trimStart();
  return found.map((word) => ({ text: word.text, probability: Math.exp(word.logprob) }));
}
