/** Runs on the audio thread: hands the microphone's samples to the page, 20 ms at a time. */

const CHUNK_S = 0.02;

class SampleTap extends AudioWorkletProcessor {
  constructor() {
    super();
    this._chunk = new Float32Array(Math.round(sampleRate * CHUNK_S));
    this._length = 0;
    this._isOn = true;
    // The page asks for what is left, and for the end, in one.
    this.port.onmessage = () => {
      this._isOn = false;
      this._post();
      this.port.postMessage(null);
    };
  }

  _post() {
    if (!this._length) return;
    const samples = this._chunk.slice(0, this._length);
    this._length = 0;
    this.port.postMessage(samples, [samples.buffer]);
  }

  process([input]) {
    const samples = input[0]; // one channel: the node mixes down
    if (this._isOn && samples) {
      for (let start = 0; start < samples.length; ) {
        const part = samples.subarray(start, start + this._chunk.length - this._length);
        this._chunk.set(part, this._length);
        this._length += part.length;
        start += part.length;
        if (this._length === this._chunk.length) this._post();
      }
    }
    return this._isOn;
  }
}

registerProcessor('sample-tap', SampleTap);
