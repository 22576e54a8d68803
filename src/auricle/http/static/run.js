/** One run from Start to Stop: a source of sound, one session after the other, one transcript. Knows no page. */

import { ConnectError } from './connection.js';
import { RealtimeClient } from './realtime.js';
import { Transcript } from './transcript.js';

const FIRST_RETRY_S = 0.5;
const LONGEST_RETRY_S = 8;
const FULL_RETRY_S = 5;
/** Sound that is still on its way when a WebRTC track falls silent. */
const TRACK_TAIL_MS = 600;
/** How long the last texts may take after Stop. */
const FINISH_TIMEOUT_MS = 30_000;
/** The shortest audio that the server makes an item of. */
const SHORTEST_ITEM_MS = 100;

/**
 * @typedef {'asking'|'connecting'|'listening'|'finishing'|'reconnecting'|'full'|'done'|'failed'} Phase
 *
 * @typedef {object} PhaseDetail
 * @property {string} [kind]       of a failure: that of a SourceError or ConnectError
 * @property {string} [message]
 * @property {?string} [param]
 * @property {number} [until_ms]   when it is tried again, on the page's clock
 *
 * @typedef {object} RunOptions
 * @property {string} origin
 * @property {'websocket'|'webrtc'} transport
 * @property {import('./session-object.js').Settings} settings
 * @property {() => Promise<import('./audio-source.js').AudioSource>} openSource
 * @property {{value: string, ask: (wasWrong: boolean, message: string) => Promise<boolean>}} key
 *
 * @typedef {object} RunCallbacks
 * @property {(phase: Phase, detail: PhaseDetail) => void} onphase
 * @property {(item: import('./transcript.js').Item, event: ?object) => void} onitem
 * @property {() => void} ongap              audio is lost, or heard again
 * @property {(direction: 'sent'|'received', event: object, bytes: number) => void} onevent
 * @property {(samples: Float32Array, rate: number) => void} onsamples
 */

/** The run was stopped while it waited for something. */
class Stopped extends Error {}

export class Run {
  /** @param {RunOptions} options @param {RunCallbacks} callbacks */
  constructor(options, callbacks) {
    this._options = options;
    this._callbacks = callbacks;
    this._settings = options.settings;
    this.transcript = new Transcript();
    /** How much sound there was, ms. */
    this.clock_ms = 0;
    /** @type {?Phase} */
    this.phase = null;
    this._source = null;
    this._client = null;
    this._committed_ms = 0;
    this._wake = null;
    this._isStopped = false;
    this._onsettled = null;
  }

  /** Begin. Never throws: failures are phases. */
  async start() {
    try {
      this._enter('asking');
      this._source = await this._options.openSource();
      if (this._isStopped) throw new Stopped();
      this._source.onsamples = (samples, rate) => this._hear(samples, rate);
      this._source.onended = () => this.stop();
      this._enter('connecting');
      await this._connect();
      await this._source.begin();
      this._beginSession();
    } catch (error) {
      await this._end(error);
    }
  }

  /** End: the last words are waited for. */
  async stop() {
    if (this._isStopped) return;
    this._isStopped = true;
    this._wake?.();
    if (this.phase !== 'listening') return; // whatever waits ends by itself
    this._enter('finishing');
    const timeout = new Promise((resolve) => setTimeout(resolve, FINISH_TIMEOUT_MS));
    await Promise.race([this._finish(), timeout]);
    await this._end(null);
  }

  async _finish() {
    await this._source.stop();
    if (this._options.transport === 'webrtc') await new Promise((resolve) => setTimeout(resolve, TRACK_TAIL_MS));
    const client = this._client;
    if (this._settings.turn_detection === 'none') this.commit();
    await client.heard();
    if (this.transcript.isSpeaking) {
      this._commit(client);
      await client.heard();
    }
    if (this.transcript.pending().length && this._client) {
      await new Promise((resolve) => {
        this._onsettled = resolve;
      });
    }
  }

  /** Make an item of what was heard since the last one. */
  commit() {
    if (this.clock_ms - this._committed_ms >= SHORTEST_ITEM_MS && this._client) this._commit(this._client);
  }

  _commit(client) {
    this._committed_ms = this.clock_ms;
    this.transcript.noteCommit(this.clock_ms, performance.now());
    client.commit();
  }

  /** Settings changed: told to the session, or used for the next one. */
  update(settings) {
    this._settings = settings;
    if (this.phase === 'listening' && settings.dialect === this._client.settings.dialect) this._client.update(settings);
  }

  /** Play a recording aloud, or not. */
  setHeard(isHeard) {
    this._source?.setHeard?.(isHeard);
  }

  /** Don't wait any longer before the next try. */
  retryNow() {
    this._wake?.();
  }

  /** The dialect of the session that is open, or of the next one. */
  get dialect() {
    return (this._client?.settings ?? this._settings).dialect;
  }

  _enter(phase, detail = {}) {
    this.phase = phase;
    this._callbacks.onphase(phase, detail);
  }

  _hear(samples, rate) {
    this.clock_ms += (samples.length / rate) * 1000;
    this._client?.append(samples, rate);
    this._callbacks.onsamples(samples, rate);
  }

  /** Try until there is a session. @throws {ConnectError} it can't be had @throws {Stopped} */
  async _connect() {
    for (let attempt = 0; ; attempt += 1) {
      try {
        await this._tryToConnect();
        return;
      } catch (error) {
        if (this._isStopped) throw new Stopped();
        if (!(error instanceof ConnectError)) throw error;
        await this._prepareAnother(error, attempt);
      }
    }
  }

  async _tryToConnect() {
    const { origin, transport, key } = this._options;
    const client = new RealtimeClient(
      { origin, transport, settings: this._settings, track: this._source.track },
      {
        onsent: (event, bytes) => this._callbacks.onevent('sent', event, bytes),
        onreceived: (event, bytes) => this._receive(event, bytes),
        onclose: () => this._lose(),
      },
    );
    await client.open(key.value);
    if (this._isStopped) {
      client.close();
      throw new Stopped();
    }
    this._client = client;
  }

  /** After a failure: ask or wait, or give up by throwing it. */
  async _prepareAnother(error, attempt) {
    const { key } = this._options;
    const isAgain = this.transcript.gaps.length > 0;
    if (error.kind === 'key') {
      if (!(await key.ask(Boolean(key.value), error.message))) throw this._isStopped ? new Stopped() : error;
    } else if (error.kind === 'full') {
      await this._wait('full', error.retryAfter_s ?? FULL_RETRY_S, error.message);
    } else if (isAgain && !['refused', 'no-webrtc'].includes(error.kind)) {
      const longest_s = Math.min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** attempt);
      // Some chance in it, so that all the clients of a server don't come back in the same moment.
      await this._wait('reconnecting', longest_s * (0.75 + Math.random() / 4), error.message);
    } else {
      throw error;
    }
  }

  async _wait(phase, seconds, message) {
    this._enter(phase, { message, until_ms: performance.now() + seconds * 1000 });
    await new Promise((resolve) => {
      this._wake = resolve;
      setTimeout(resolve, seconds * 1000);
    });
    this._wake = null;
    if (this._isStopped) throw new Stopped();
    this._enter(phase, { message });
  }

  _beginSession() {
    const ahead_ms = this._client.audioSince === null ? 0 : performance.now() - this._client.audioSince;
    this.transcript.beginSession(this.clock_ms - ahead_ms);
    this._committed_ms = this.clock_ms;
    this._enter('listening');
    this.update(this._settings); // they may have changed meanwhile
    this._callbacks.ongap();
  }

  _receive(event, bytes) {
    const item = this.transcript.apply(event, performance.now(), this._settings.model !== 'none');
    this._callbacks.onevent('received', event, bytes);
    if (item) this._callbacks.onitem(item, event);
    if (this._onsettled && !this.transcript.pending().length) this._onsettled();
  }

  /** The connection is gone before its time. */
  async _lose() {
    this._client = null;
    for (const item of this.transcript.loseSession(this.clock_ms)) this._callbacks.onitem(item, null);
    this._onsettled?.();
    if (this.phase !== 'listening') return;
    this._enter('reconnecting');
    this._callbacks.ongap();
    try {
      if (this._source.canPause) await this._source.pause(true);
      await this._connect();
      if (this._source.canPause) await this._source.pause(false);
      this._beginSession();
    } catch (error) {
      await this._end(error);
    }
  }

  /** @param {?Error} error why, if it was not by Stop */
  async _end(error) {
    this._isStopped = true;
    this._client?.close();
    this._client = null;
    for (const item of this.transcript.pending()) this._callbacks.onitem(Object.assign(item, { status: 'cut' }), null);
    await this._source?.close();
    if (error === null || error instanceof Stopped) this._enter('done');
    else this._enter('failed', { kind: error.kind ?? 'bug', message: error.message, param: error.param });
    if (error && !error.kind && !(error instanceof Stopped)) throw error; // a bug: let it be seen
  }
}
