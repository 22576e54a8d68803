/**
 * Where sound comes from: the microphone, or a recording that is played in real time. Knows nothing of sessions.
 *
 * @typedef {object} AudioSource
 * @property {MediaStreamTrack} track    what a WebRTC connection sends
 * @property {boolean} canPause          a recording can wait while there is no session; a microphone can't
 * @property {(samples: Float32Array, rate: number) => void} onsamples   every 20 ms or so, once it has begun
 * @property {() => void} onended        once, after the last samples, unless it is stopped
 * @property {() => Promise<void>} begin
 * @property {() => Promise<void>} stop  after the last samples; the track is silent from here on
 * @property {() => Promise<void>} close
 */

const SLICE_MS = 20;

/**
 * Why there is no sound. `kind` is one of `insecure`, `denied`, `none`, `busy`, `unsupported`, `file`, `unchosen`,
 * `sample`.
 */
export class SourceError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** What the browser's names for a microphone's failures mean. */
const MICROPHONE_FAULTS = {
  NotAllowedError: 'denied',
  SecurityError: 'denied',
  NotFoundError: 'none',
  OverconstrainedError: 'none',
  NotReadableError: 'busy',
  AbortError: 'busy',
};

/** The microphone, tapped by an audio worklet. @implements {AudioSource} */
export class Microphone {
  constructor(context, stream) {
    this.onsamples = () => {};
    this.onended = () => {};
    this.canPause = false;
    [this.track] = stream.getAudioTracks();
    this.track.addEventListener('ended', () => this.onended()); // it was unplugged
    this._context = context;
    this._stream = stream;
    this._tap = null;
    this._drained = null;
  }

  /**
   * Ask for it.
   *
   * @param {{deviceId: string, processing: boolean}} choice   the device, empty for the system's default; whether the
   *     browser shall cancel echo, suppress noise and control the gain
   * @returns {Promise<Microphone>}
   * @throws {SourceError}
   */
  static async open({ deviceId, processing }) {
    if (!globalThis.isSecureContext || !navigator.mediaDevices?.getUserMedia) {
      throw new SourceError('insecure', 'Browsers give the microphone only to secure pages.');
    }
    if (!globalThis.AudioWorkletNode) throw new SourceError('unsupported', 'This browser has no AudioWorklet.');
    const audio = {
      ...(deviceId ? { deviceId: { exact: deviceId } } : {}),
      channelCount: 1,
      echoCancellation: processing,
      noiseSuppression: processing,
      autoGainControl: processing,
    };
    const stream = await navigator.mediaDevices.getUserMedia({ audio }).catch((error) => {
      throw new SourceError(MICROPHONE_FAULTS[error.name] ?? 'busy', error.message);
    });
    const context = new AudioContext();
    await context.audioWorklet.addModule(new URL('./pcm-worklet.js', import.meta.url));
    return new Microphone(context, stream);
  }

  async begin() {
    const tap = new AudioWorkletNode(this._context, 'sample-tap', { channelCount: 1, channelCountMode: 'explicit' });
    tap.port.onmessage = ({ data }) => {
      if (data) this.onsamples(data, this._context.sampleRate);
      else this._drained();
    };
    this._tap = tap;
    const input = this._context.createMediaStreamSource(this._stream);
    input.connect(tap).connect(this._context.destination); // it puts nothing out; without a way out it may rest
    await this._context.resume();
  }

  async stop() {
    if (this._tap) {
      await new Promise((resolve) => {
        this._drained = resolve;
        this._tap.port.postMessage('drain');
        setTimeout(resolve, 200); // a context that rests doesn't answer
      });
    }
    this.track.enabled = false;
  }

  async close() {
    for (const track of this._stream.getTracks()) track.stop();
    if (this._context.state !== 'closed') await this._context.close();
  }
}

/**
 * A recording, cut into slices as it plays. No worklet: pages that are not secure have none, and the samples are all
 * there already.
 *
 * @implements {AudioSource}
 */
export class Recording {
  constructor(context, buffer, isHeard) {
    this.onsamples = () => {};
    this.onended = () => {};
    this.canPause = true;
    this._context = context;
    this._rate = buffer.sampleRate;
    this._samples = mono(buffer);
    this._done = 0; // samples that were handed over
    this._player = new AudioBufferSourceNode(context, { buffer });
    this._monitor = new GainNode(context, { gain: isHeard ? 1 : 0 });
    const sink = context.createMediaStreamDestination();
    this._player.connect(sink);
    this._player.connect(this._monitor).connect(context.destination);
    [this.track] = sink.stream.getAudioTracks();
  }

  /**
   * Read a recording of any format that the browser knows.
   *
   * @param {Promise<ArrayBuffer>} bytes
   * @param {boolean} isHeard   whether it is also played aloud
   * @returns {Promise<Recording>}
   * @throws {SourceError} or what `bytes` fails with
   */
  static async open(bytes, isHeard) {
    const context = new AudioContext(); // before anything is waited for: some browsers allow sound only in a click
    try {
      return new Recording(context, await decoded(context, await bytes), isHeard);
    } catch (error) {
      await context.close();
      throw error;
    }
  }

  async begin() {
    await this._context.resume();
    this._beganAt_s = this._context.currentTime;
    this._player.start();
    this._timer = setInterval(() => this._handOver(), SLICE_MS);
  }

  /** Hold it where it is, or let it go on. @param {boolean} isPaused */
  async pause(isPaused) {
    if (this._context.state === 'closed') return;
    await (isPaused ? this._context.suspend() : this._context.resume());
  }

  /** Play it aloud, or not. @param {boolean} isHeard */
  setHeard(isHeard) {
    this._monitor.gain.value = isHeard ? 1 : 0;
  }

  async stop() {
    clearInterval(this._timer);
    this._player.disconnect();
  }

  async close() {
    clearInterval(this._timer);
    if (this._context.state !== 'closed') await this._context.close();
  }

  _handOver() {
    const played = Math.floor((this._context.currentTime - this._beganAt_s) * this._rate);
    const end = Math.min(this._samples.length, played);
    if (end > this._done) this.onsamples(this._samples.subarray(this._done, end), this._rate);
    this._done = Math.max(this._done, end);
    if (this._done < this._samples.length) return;
    clearInterval(this._timer);
    this.onended();
  }
}

async function decoded(context, bytes) {
  return context.decodeAudioData(bytes).catch(() => {
    throw new SourceError('file', 'The browser finds no audio in that file.');
  });
}

/** The mean of all channels. @param {AudioBuffer} buffer */
function mono(buffer) {
  const sum = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel += 1) {
    buffer.getChannelData(channel).forEach((sample, index) => {
      sum[index] += sample / buffer.numberOfChannels;
    });
  }
  return sum;
}

/** Microphones by name; names are empty until one was allowed. @returns {Promise<MediaDeviceInfo[]>} */
export async function microphones() {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  return devices.filter((device) => device.kind === 'audioinput' && device.deviceId);
}
