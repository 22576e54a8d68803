/** Samples to what goes over the wire: resampling, PCM16, G.711, base64. Pure. */

const ZERO_CROSSINGS = 24;
const TABLE_STEPS = 512;

/**
 * Half of a windowed sinc (Blackman), sampled `TABLE_STEPS` times between two zero crossings.
 *
 * @type {Float64Array}
 */
const SINC = (() => {
  const table = new Float64Array(ZERO_CROSSINGS * TABLE_STEPS + 2);
  for (let step = 0; step < ZERO_CROSSINGS * TABLE_STEPS; step += 1) {
    const x = step / TABLE_STEPS;
    const phase = (Math.PI * x) / ZERO_CROSSINGS;
    const window = 0.42 + 0.5 * Math.cos(phase) + 0.08 * Math.cos(2 * phase);
    table[step] = step === 0 ? 1 : (Math.sin(Math.PI * x) / (Math.PI * x)) * window;
  }
  return table;
})();

/**
 * Changes the rate of a stream of samples without seams between its chunks.
 *
 * We do it ourselves since not every browser lets a microphone into an AudioContext of another rate than its own.
 */
export class Resampler {
  /** @param {number} inputRate hertz @param {number} outputRate hertz */
  constructor(inputRate, outputRate) {
    this.inputRate = inputRate;
    this.outputRate = outputRate;
    this._step = inputRate / outputRate;
    // The pass band ends a little below the lower of both Nyquist frequencies.
    this._scale = Math.min(1, outputRate / inputRate) * 0.96;
    this._reach = Math.ceil(ZERO_CROSSINGS / this._scale);
    this._kept = new Float32Array(this._reach);
    this._position = this._reach; // of the next output sample, in samples of `_kept` and what follows
  }

  /** @param {Float32Array} samples @returns {Float32Array} what is complete so far */
  push(samples) {
    if (this.inputRate === this.outputRate) return samples;
    const line = new Float32Array(this._kept.length + samples.length);
    line.set(this._kept);
    line.set(samples, this._kept.length);
    const output = new Float32Array(Math.ceil(line.length / this._step));
    let count = 0;
    for (; this._position + this._reach < line.length; this._position += this._step) {
      output[count] = this._at(line, this._position);
      count += 1;
    }
    const done = Math.max(0, Math.min(line.length, Math.floor(this._position) - this._reach));
    this._kept = line.slice(done);
    this._position -= done;
    return output.subarray(0, count);
  }

  _at(line, position) {
    let sum = 0;
    const first = Math.ceil(position - this._reach);
    const last = Math.floor(position + this._reach);
    for (let index = first; index <= last; index += 1) {
      const place = Math.abs(position - index) * this._scale * TABLE_STEPS;
      const step = Math.floor(place);
      if (step >= ZERO_CROSSINGS * TABLE_STEPS) continue;
      sum += line[index] * (SINC[step] + (SINC[step + 1] - SINC[step]) * (place - step));
    }
    return sum * this._scale;
  }
}

/** @param {number} sample −1…1 @returns {number} −32,768…32,767 */
const toInt16 = (sample) => Math.max(-32_768, Math.min(32_767, Math.round(sample * 32_768)));

/** @param {Float32Array} samples @returns {Uint8Array} little-endian PCM16 */
function pcm16(samples) {
  const view = new DataView(new ArrayBuffer(samples.length * 2));
  samples.forEach((sample, index) => view.setInt16(index * 2, toInt16(sample), true));
  return new Uint8Array(view.buffer);
}

/** ITU-T G.711, µ-law. @param {number} value PCM16 */
function muLaw(value) {
  const sign = value < 0 ? 0x80 : 0;
  const magnitude = Math.min(Math.abs(value), 32_635) + 132;
  const exponent = 31 - Math.clz32(magnitude) - 7;
  return ~(sign | (exponent << 4) | ((magnitude >> (exponent + 3)) & 0x0f)) & 0xff;
}

/** ITU-T G.711, A-law. @param {number} value PCM16 */
function aLaw(value) {
  const sign = value >= 0 ? 0x80 : 0;
  const magnitude = Math.min(value >= 0 ? value : -value - 1, 32_767);
  const exponent = magnitude < 256 ? 0 : 31 - Math.clz32(magnitude) - 7;
  const mantissa = (magnitude >> (exponent === 0 ? 4 : exponent + 3)) & 0x0f;
  return (sign | (exponent << 4) | mantissa) ^ 0x55;
}

/**
 * @param {Float32Array} samples
 * @param {string} type   `audio/pcm`, `audio/pcmu` or `audio/pcma`
 * @returns {Uint8Array}
 */
export function encode(samples, type) {
  if (type === 'audio/pcm') return pcm16(samples);
  const companded = type === 'audio/pcmu' ? muLaw : aLaw;
  return Uint8Array.from(samples, (sample) => companded(toInt16(sample)));
}

/** @param {Uint8Array} bytes @returns {string} */
export function base64(bytes) {
  let text = '';
  for (let start = 0; start < bytes.length; start += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  }
  return btoa(text);
}
