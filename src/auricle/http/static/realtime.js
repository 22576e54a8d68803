/** A client of the Realtime transcription protocol, both dialects over both transports. Knows nothing of the page. */

import { base64, encode, Resampler } from './audio-encoding.js';
import { CallConnection, ConnectError, post, SocketConnection } from './connection.js';
import { audioFormat, keyRequest, sessionObject, sessionPatch, updateType } from './session-object.js';

/** Audio of one `append`. */
const APPEND_MS = 40;
const CREATED_TIMEOUT_MS = 15_000;

/**
 * @typedef {object} Callbacks
 * @property {(event: object, bytes: number) => void} onsent
 * @property {(event: object, bytes: number) => void} onreceived
 * @property {(reason: {code: number, reason: string}) => void} onclose    only after `open` has succeeded
 */

/** One session. Make a new one to connect again. */
export class RealtimeClient {
  /**
   * @param {object} options
   * @param {string} options.origin
   * @param {'websocket'|'webrtc'} options.transport
   * @param {import('./session-object.js').Settings} options.settings
   * @param {?MediaStreamTrack} options.track     what WebRTC sends
   * @param {Callbacks} callbacks
   */
  constructor({ origin, transport, settings, track }, callbacks) {
    this._origin = origin;
    this._transport = transport;
    this._track = track;
    this._callbacks = callbacks;
    this._settings = settings;
    this._dialect = settings.dialect;
    this._connection = null;
    this._isOpen = false;
    this._nextId = 1;
    this._unanswered = new Map(); // updates by event id: the settings before each
    this._barriers = []; // resolved when no update is unanswered
    this._resampler = null;
    this._chunks = [];
    this._chunkBytes = 0;
    this._held = null; // samples that wait until a change of the format is answered
  }

  /** What the session was last told. */
  get settings() {
    return this._settings;
  }

  /**
   * Make an ephemeral key, connect with it and wait for `session.created`.
   *
   * @param {string} apiKey   empty if none is known
   * @throws {ConnectError}
   */
  async open(apiKey) {
    const { key, isWhole } = await this._mint(apiKey);
    const connection =
      this._transport === 'webrtc'
        ? new CallConnection(this._origin, key, this._dialect, this._track)
        : new SocketConnection(this._origin, key, this._dialect);
    this._connection = connection;
    let timeout;
    await new Promise((resolve, reject) => {
      let refusal = null;
      const silent = () => reject(new ConnectError('network', 'The server doesn’t answer.'));
      timeout = setTimeout(silent, CREATED_TIMEOUT_MS);
      connection.onmessage = (text) => {
        const event = this._receive(text);
        if (event.type === 'error') refusal = event.error;
        if (event.type.endsWith('session.created')) resolve();
      };
      connection.onclose = ({ code, reason }) => reject(refused(code, refusal?.message ?? reason, refusal?.param));
      connection.open?.().catch(reject);
    })
      .catch((error) => {
        connection.onclose = () => {};
        connection.close();
        throw error;
      })
      .finally(() => clearTimeout(timeout));
    this._isOpen = true;
    connection.onmessage = (text) => this._receive(text);
    connection.onclose = (reason) => this._closed(reason);
    if (!isWhole) this._sendUpdate(sessionObject(this._settings), this._settings);
  }

  async _mint(apiKey) {
    const headers = { 'Content-Type': 'application/json', ...(apiKey ? { Authorization: `Bearer ${apiKey}` } : {}) };
    const mint = async ({ path, body }) => {
      const answer = await (await post(this._origin + path, headers, JSON.stringify(body))).json();
      return answer.value ?? answer.client_secret.value;
    };
    try {
      return { key: await mint(keyRequest(this._settings)), isWhole: true };
    } catch (error) {
      if (error.code !== 'string_above_max_length') throw error;
      // Too much for a key: it goes into an update once we are connected.
      const bare = this._dialect === 'beta' ? {} : { type: 'transcription' };
      return { key: await mint(keyRequest(this._settings, bare)), isWhole: false };
    }
  }

  /** When the session's audio began, on the page's clock, if it did before the first `append`. @returns {?number} */
  get audioSince() {
    return this._connection?.connectedAt ?? null;
  }

  /** Send samples. Over WebRTC the track does. @param {Float32Array} samples @param {number} rate hertz */
  append(samples, rate) {
    if (this._transport === 'webrtc') return;
    if (this._held) {
      this._held.push([samples, rate]);
      return;
    }
    const format = audioFormat(this._settings);
    if (this._resampler?.inputRate !== rate || this._resampler.outputRate !== format.rate) {
      this._resampler = new Resampler(rate, format.rate);
    }
    const bytes = encode(this._resampler.push(samples), format.type);
    this._chunks.push(bytes);
    this._chunkBytes += bytes.length;
    const bytesPerMs = (format.rate * (format.type === 'audio/pcm' ? 2 : 1)) / 1000;
    if (this._chunkBytes >= APPEND_MS * bytesPerMs) this._flush();
  }

  _flush() {
    if (!this._chunkBytes) return;
    const whole = new Uint8Array(this._chunkBytes);
    let place = 0;
    for (const chunk of this._chunks) {
      whole.set(chunk, place);
      place += chunk.length;
    }
    this._chunks = [];
    this._chunkBytes = 0;
    this._send({ type: 'input_audio_buffer.append', audio: base64(whole) });
  }

  /** Make an item of what was sent. */
  commit() {
    this._flush();
    this._send({ type: 'input_audio_buffer.commit' });
  }

  /** Forget what was sent and not committed. */
  clear() {
    this._flush();
    this._send({ type: 'input_audio_buffer.clear' });
  }

  /** Tell the session what changed. @param {import('./session-object.js').Settings} settings of the same dialect */
  update(settings) {
    const patch = sessionPatch(sessionObject(this._settings), sessionObject(settings));
    if (!patch) return;
    this._flush();
    const [before, after] = [audioFormat(this._settings), audioFormat(settings)];
    // Until the answer comes we don't know in which format the next samples will be read.
    if (before.type !== after.type || before.rate !== after.rate) this._held ??= [];
    this._sendUpdate(patch, settings);
  }

  _sendUpdate(session, settings) {
    const event_id = `update_${this._nextId}`;
    this._nextId += 1;
    this._unanswered.set(event_id, this._settings);
    this._settings = settings;
    this._send({ type: updateType(this._dialect), event_id, session });
  }

  /**
   * Wait until the server has heard everything that was sent: events are taken in their order, so the answer to an
   * update that changes nothing comes after those to all audio before it.
   */
  async heard() {
    this._flush();
    this._sendUpdate(this._dialect === 'beta' ? {} : { type: 'transcription' }, this._settings);
    await new Promise((resolve) => this._barriers.push(resolve));
  }

  close() {
    if (!this._connection) return;
    this._connection.onclose = () => {};
    this._connection.close();
    this._closed(null);
  }

  _closed(reason) {
    const wasOpen = this._isOpen;
    this._isOpen = false;
    this._answered(null);
    if (wasOpen && reason) this._callbacks.onclose(reason);
  }

  _send(event) {
    if (!this._isOpen) return;
    const text = JSON.stringify(event);
    this._connection.send(text);
    this._callbacks.onsent(event, text.length);
  }

  _receive(text) {
    const event = JSON.parse(text);
    if (event.type.endsWith('session.updated')) this._answered(this._unanswered.keys().next().value);
    const refusedUpdate = event.type === 'error' ? event.error.event_id : null;
    if (this._unanswered.has(refusedUpdate)) {
      this._settings = this._unanswered.get(refusedUpdate);
      this._answered(refusedUpdate);
    }
    this._callbacks.onreceived(event, new Blob([text]).size);
    return event;
  }

  /** An update has its answer; `null`: there will be none any more. */
  _answered(event_id) {
    if (event_id === null) this._unanswered.clear();
    else this._unanswered.delete(event_id);
    if (this._unanswered.size) return;
    const held = this._held ?? [];
    this._held = null;
    for (const [samples, rate] of held) this.append(samples, rate);
    for (const resolve of this._barriers.splice(0)) resolve();
  }
}

/** What a connection that closes before its session says about the reason. */
function refused(code, message, param) {
  const kinds = { 1013: 'full', 3000: 'key', 4000: 'refused' };
  return new ConnectError(kinds[code] ?? 'network', message || 'The server closed the connection.', { param });
}
