/** The scrolling waveform: what is heard now at the right edge, the turns behind it. Owns the canvas. */

import { byId } from './dom.js';
import { clockTime } from './transcript-files.js';

/** Sound under one bar. */
const BAR_MS = 50;
const BAR_PX = 2;
const PITCH_PX = 4;
const AXIS_PX = 22;
const LABEL_PX = 22;
/** Distance of "now" from the right edge. */
const NOW_PX = 20;
/** Quiet speech is drawn up to this much taller. */
const LARGEST_GAIN = 4;
/** What is kept: more than the widest screen shows. */
const MAX_BARS = 20 * 60 * 4;
/** How often it is drawn where motion is not wanted. */
const CALM_MS = 250;

/** Draws a run's sound. `show(run)` each time one begins. */
export class Waveform {
  constructor() {
    this._canvas = byId('waveform');
    this._brush = this._canvas.getContext('2d');
    this._run = null;
    this._reset();
    this._calm = matchMedia('(prefers-reduced-motion: reduce)');
    new ResizeObserver(() => this._fit()).observe(this._canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.recolour());
    this.recolour();
  }

  _reset() {
    this._bars = []; // loudness of each bar, 0…1
    this._firstBar = 0; // index of the first that is kept
    this._open = { samples: 0, peak: 0 };
    this._shown_ms = 0;
    this._heardAt = 0;
    this._gain = LARGEST_GAIN;
  }

  /** @param {import('./run.js').Run} run */
  show(run) {
    this._run = run;
    this._reset();
    this._animate();
  }

  /** @param {Float32Array} samples @param {number} rate */
  push(samples, rate) {
    const perBar = (rate * BAR_MS) / 1000;
    for (const sample of samples) {
      this._open.peak = Math.max(this._open.peak, Math.abs(sample));
      this._open.samples += 1;
      if (this._open.samples >= perBar) {
        this._bars.push(loudness(this._open.peak));
        this._open = { samples: this._open.samples - perBar, peak: 0 };
      }
    }
    if (this._bars.length > MAX_BARS) {
      this._firstBar += this._bars.length - MAX_BARS;
      this._bars.splice(0, this._bars.length - MAX_BARS);
    }
    this._heardAt = performance.now();
  }

  /** Take the theme's colours. */
  recolour() {
    const style = getComputedStyle(document.documentElement);
    // Of a variable the browser tells both themes' colours; of a property, the one that holds.
    const colour = (name) => {
      this._canvas.style.color = `var(--${name})`;
      return getComputedStyle(this._canvas).color;
    };
    this._colours = {
      quiet: colour('wave-quiet'),
      speech: colour('accent'),
      turn: colour('wave-turn'),
      edge: colour('wave-edge'),
      text: colour('ink-soft'),
      line: colour('line'),
      gap: colour('wave-gap'),
    };
    this._font = `500 11px ${style.getPropertyValue('--sans')}`;
    this.draw();
  }

  _fit() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this._canvas;
    this._canvas.width = Math.round(clientWidth * ratio);
    this._canvas.height = Math.round(clientHeight * ratio);
    this._brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.draw();
  }

  _animate() {
    cancelAnimationFrame(this._frame);
    let drawnAt = 0;
    const step = (now) => {
      if (!this._calm.matches || now - drawnAt >= CALM_MS) {
        drawnAt = now;
        this._advance(now);
        this.draw();
      }
      const isOver = ['done', 'failed'].includes(this._run.phase);
      if (isOver) this._shown_ms = this._run.clock_ms;
      if (isOver) this.draw();
      else this._frame = requestAnimationFrame(step);
    };
    this._frame = requestAnimationFrame(step);
  }

  /** The edge glides between the chunks of sound, which come every 20 ms, and never goes back. */
  _advance(now) {
    const since_ms = this._run.phase === 'listening' ? Math.min(now - this._heardAt, 40) : 0;
    const aim_ms = this._run.clock_ms + Math.max(0, since_ms) - 40;
    if (Math.abs(aim_ms - this._shown_ms) > 300) this._shown_ms = Math.max(0, aim_ms);
    else this._shown_ms = Math.max(this._shown_ms, this._shown_ms + (aim_ms - this._shown_ms) * 0.25);
  }

  /** Say in words what is drawn, for those who don't see it. */
  describe() {
    const { clock_ms, transcript } = this._run;
    const turns = transcript.items.length;
    const text = `Waveform: ${Math.round(clock_ms / 1000)} seconds of sound, ${turns} ${turns === 1 ? 'turn' : 'turns'}`;
    this._canvas.setAttribute('aria-label', text);
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this._canvas;
    if (!width || !this._colours) return;
    this._brush.clearRect(0, 0, width, height);
    const view = { width, height, top: LABEL_PX, bottom: height - AXIS_PX, now: width - NOW_PX };
    const x = (ms) => view.now - ((this._shown_ms - ms) / BAR_MS) * PITCH_PX;
    this._drawAxis(view, x);
    const turns = (this._run?.transcript.items ?? []).filter((item) => item.start_ms !== null && item.text !== null);
    for (const gap of this._run?.transcript.gaps ?? []) this._drawGap(view, x, gap);
    for (const item of turns) this._drawTurn(view, x, item);
    this._drawBars(view, x, turns);
  }

  _drawAxis(view, x) {
    const brush = this._brush;
    brush.font = this._font;
    brush.textBaseline = 'middle';
    brush.textAlign = 'center';
    const span_ms = (view.now / PITCH_PX) * BAR_MS;
    const every_ms = 5000;
    brush.fillStyle = this._colours.line;
    brush.fillRect(0, view.bottom, view.width, 1);
    for (let ms = Math.max(0, Math.ceil((this._shown_ms - span_ms) / every_ms) * every_ms); ms <= this._shown_ms; ms += every_ms) {
      const place = x(ms);
      brush.fillStyle = this._colours.line;
      brush.fillRect(Math.round(place), view.bottom, 1, 5);
      brush.fillStyle = this._colours.text;
      if (place > 24) brush.fillText(clockTime(ms).slice(0, -2), place, view.bottom + 13);
    }
  }

  /** Dots where there was no sound yet. */
  _drawRest(view, x) {
    const brush = this._brush;
    brush.fillStyle = this._colours.quiet;
    const middle = (view.top + view.bottom) / 2;
    for (let place = x(this._firstBar * BAR_MS) - PITCH_PX; place > -BAR_PX; place -= PITCH_PX) {
      if (place <= view.now) brush.fillRect(place, middle - 1, BAR_PX, 2);
    }
  }

  _drawTurn(view, x, item) {
    const brush = this._brush;
    const from = x(item.start_ms);
    const to = Math.min(x(item.end_ms ?? Infinity), view.now);
    if (to < 0 || to <= from) return;
    brush.fillStyle = this._colours.turn;
    brush.fillRect(from, 0, to - from, view.bottom);
    brush.fillStyle = this._colours.edge;
    brush.fillRect(from, 0, 1, view.bottom);
    if (item.end_ms !== null) brush.fillRect(to - 1, 0, 1, view.bottom);
    brush.fillStyle = this._colours.speech;
    brush.textAlign = 'left';
    const label = String(item.number);
    // The number stays in sight as long as its turn does.
    const place = Math.max(from, 0) + 8;
    if (place + brush.measureText(label).width + 4 < to) brush.fillText(label, place, LABEL_PX / 2 + 1);
  }

  _drawGap(view, x, gap) {
    const from = x(gap.start_ms);
    const to = Math.min(x(gap.end_ms ?? Infinity), view.now);
    const brush = this._brush;
    brush.fillStyle = this._colours.gap;
    if (to - from < 3) brush.fillRect(from - 1, 0, 2, view.bottom);
    for (let place = from - ((from - 0) % 6); place < to; place += 6) {
      if (place >= from) brush.fillRect(place, 0, 1.5, view.bottom);
    }
  }

  _drawBars(view, x, turns) {
    const brush = this._brush;
    const middle = (view.top + view.bottom) / 2;
    const tallest = (view.bottom - view.top) / 2 - 6;
    const first = Math.max(0, Math.floor(this._shown_ms / BAR_MS - view.now / PITCH_PX) - 1 - this._firstBar);
    this._drawRest(view, x);
    const loudest = Math.max(0.1, ...this._bars.slice(first));
    const gain = Math.min(LARGEST_GAIN, 0.94 / loudest);
    // Down at once, so that nothing is cut off, and up again slowly.
    this._gain = gain < this._gain ? gain : this._gain + (gain - this._gain) * 0.02;
    let turn = 0;
    for (let index = first; index < this._bars.length; index += 1) {
      const ms = (this._firstBar + index) * BAR_MS;
      const place = x(ms);
      if (place > view.now - BAR_PX) break;
      while (turn < turns.length && (turns[turn].end_ms ?? Infinity) <= ms) turn += 1;
      const isSpeech = turn < turns.length && turns[turn].start_ms <= ms;
      const half = Math.max(1, Math.min(1, this._bars[index] * this._gain) * tallest);
      brush.fillStyle = isSpeech ? this._colours.speech : this._colours.quiet;
      brush.beginPath();
      brush.roundRect(place, middle - half, BAR_PX, half * 2, BAR_PX / 2);
      brush.fill();
    }
    if (this._run?.phase === 'listening') {
      brush.fillStyle = this._colours.speech;
      brush.fillRect(view.now, 0, 1.5, view.bottom);
    }
  }
}

/** A peak as the ear takes it: quiet speech is still seen. @param {number} peak 0…1 */
const loudness = (peak) => Math.min(1, peak ** 0.8);
