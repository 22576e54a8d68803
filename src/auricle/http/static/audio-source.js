/** Where sound comes from: the microphone, or a recording that is played in real time. Knows nothing of sessions. */

/** Why there is no sound. `kind` is one of `insecure`, `denied`, `none`, `busy`, `unsupported`, `file`. */
export class SourceError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** How a microphone's own name for a failure reads here. */
const MICROPHONE_FAULTS = {
  NotAllowedError: 'denied',
  SecurityError: 'denied',
  NotFoundError: 'none',
  OverconstrainedError: 'none',
  NotReadableError: 'busy',
  AbortError: 'busy',
};

/**
 * @typedef {object} MicrophoneChoice
 * @property {string} deviceId     empty: the system's default
 * @property {boolean} processing  the browser's echo cancellation, noise suppression and gain control
 */

/**
 * A source of sound. `onsamples(samples, rate)` is called about every 20 ms once it has begun, `onended()` once after
 * the last of them.
 */
export class AudioSource {
  constructor(context) {
    this._context = context;
    this.onsamples = () => {};
    this.onended = () => {};
    /** What a WebRTC connection sends. @type {?MediaStreamTrack} */
    this.track = null;
    this._stream = null;
    this._player = null;
    this._tap = null;
    this._monitor = null;
  }

  /** A recording can wait while there is no session; a microphone can't. */
  get canPause() {
    return this._player !== null;
  }

  /**
   * Ask for the microphone.
   *
   * @param {MicrophoneChoice} choice
   * @returns {Promise<AudioSource>}
   * @throws {SourceError}
   */
  static async microphone({ deviceId, processing }) {
    if (!globalThis.isSecureContext || !navigator.mediaDevices?.getUserMedia) {
      throw new SourceError('insecure', 'Browsers give the microphone only to secure pages.');
    }
    const audio = {
      ...(deviceId ? { deviceId: { exact: deviceId } } : {}),
      channelCount: 1,
      echoCancellation: processing,
      noiseSuppression: processing,
      autoGainControl: processing,
    };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      throw new SourceError(MICROPHONE_FAULTS[error.name] ?? 'busy', error.message);
    }
    const source = await AudioSource._opened();
    source._stream = stream;
    [source.track] = stream.getAudioTracks();
    source.track.addEventListener('ended', () => source.onended());
    source._input = source._context.createMediaStreamSource(stream);
    return source;
  }

  /**
   * Read a recording of any format that the browser knows.
   *
   * @param {ArrayBuffer} bytes
   * @param {boolean} isHeard   whether it is also played aloud
   * @returns {Promise<AudioSource>}
   * @throws {SourceError}
   */
  static async recording(bytes, isHeard) {
    const source = await AudioSource._opened();
    const context = source._context;
    try {
      const buffer = await context.decodeAudioData(bytes);
      source._player = new AudioBufferSourceNode(context, { buffer });
    } catch {
      await context.close();
      throw new SourceError('file', 'This browser can’t read that file as audio.');
    }
    source._input = source._player;
    const sink = context.createMediaStreamDestination();
    source._player.connect(sink);
    [source.track] = sink.stream.getAudioTracks();
    source._monitor = new GainNode(context, { gain: isHeard ? 1 : 0 });
    source._player.connect(source._monitor).connect(context.destination);
    return source;
  }

  static async _opened() {
    if (!globalThis.AudioContext || !globalThis.AudioWorkletNode) {
      throw new SourceError('unsupported', 'This browser has no AudioWorklet.');
    }
    const context = new AudioContext();
    await context.audioWorklet.addModule(new URL('./pcm-worklet.js', import.meta.url));
    return new AudioSource(context);
  }

  /** Let the sound flow. */
  async begin() {
    const tap = new AudioWorkletNode(this._context, 'sample-tap', { channelCount: 1, channelCountMode: 'explicit' });
    tap.port.onmessage = ({ data }) => {
      if (data) this.onsamples(data, this._context.sampleRate);
      else this._drained?.();
    };
    this._tap = tap;
    this._input.connect(tap).connect(this._context.destination); // it puts nothing out; without a way out it may rest
    await this._context.resume();
    if (this._player) {
      this._player.onended = async () => {
        await this._drain();
        this.onended();
      };
      this._player.start();
    }
  }

  /** Hold a recording where it is, or let it go on. @param {boolean} isPaused */
  async pause(isPaused) {
    if (this._context.state === 'closed') return;
    await (isPaused ? this._context.suspend() : this._context.resume());
  }

  /** Play the recording aloud, or not. */
  setHeard(isHeard) {
    if (this._monitor) this._monitor.gain.value = isHeard ? 1 : 0;
  }

  /** End, after the last samples. A WebRTC track sends silence from here on. */
  async stop() {
    await this._drain();
    if (this._player) this._player.onended = null;
    this._input.disconnect();
  }

  /** Give the microphone back. */
  async close() {
    for (const track of this._stream?.getTracks() ?? []) track.stop();
    if (this._context.state !== 'closed') await this._context.close();
  }

  async _drain() {
    if (!this._tap || this._isDrained) return;
    this._isDrained = true;
    await new Promise((resolve) => {
      this._drained = resolve;
      this._tap.port.postMessage('drain');
      setTimeout(resolve, 200); // a suspended context doesn't answer
    });
  }
}

/** Microphones by name; names are empty until one was allowed. @returns {Promise<MediaDeviceInfo[]>} */
export async function microphones() {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  return devices.filter((device) => device.kind === 'audioinput' && device.deviceId);
}
