/** The transcript on the page: an entry for each item, growing while it is spoken. */

import { announce, byId, copyFrom, icon, make } from './dom.js';
import { UNSURE_BELOW, words } from './transcript.js';
import { clockTime } from './transcript-files.js';

/** How far from its end the list may be scrolled and still follow. */
const FOLLOW_PX = 80;

/** Milliseconds for reading. @param {?number} ms */
export function latency(ms) {
  if (ms === null) return '–';
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

const STATES = { failed: 'No text', cut: 'Cut off: the session ended first' };

/** Owns the list of items. Called with each item that changes. */
export class Captions {
  constructor() {
    this._list = byId('transcript');
    this._scroll = byId('captions-scroll');
    this._latest = byId('latest');
    this._blank = byId('blank');
    this._rows = new Map();
    this._gaps = [];
    this._latest.addEventListener('click', () => this._follow(true));
    this._scroll.addEventListener('scroll', () => {
      this._latest.hidden = this._isAtEnd;
    });
  }

  clear() {
    this._list.replaceChildren();
    this._rows.clear();
    this._gaps = [];
    this._blank.hidden = false;
    this._latest.hidden = true;
  }

  get _isAtEnd() {
    const { scrollTop, clientHeight, scrollHeight } = this._scroll;
    return scrollHeight - scrollTop - clientHeight < FOLLOW_PX;
  }

  _follow(force = false) {
    if (force || this._isAtEnd) this._scroll.scrollTop = this._scroll.scrollHeight;
    this._latest.hidden = this._isAtEnd;
  }

  /**
   * Show an item as it is now.
   *
   * @param {import('./transcript.js').Item} item
   * @param {?object} event   what changed it
   */
  show(item, event) {
    const wasAtEnd = this._isAtEnd;
    this._blank.hidden = true;
    let row = this._rows.get(item.id);
    if (!row) {
      row = this._row(item);
      this._rows.set(item.id, row);
      this._list.append(row.element);
    }
    row.element.dataset.status = item.status;
    row.times.textContent = item.start_ms === null ? '' : clockTime(item.start_ms);
    row.end.textContent = item.end_ms === null ? '' : clockTime(item.end_ms);
    if (event?.type.endsWith('.delta')) this._grow(row, event);
    else if (event?.type.endsWith('.completed') || item.status === 'completed') this._settle(row, item);
    row.facts.replaceChildren(...facts(item));
    row.copy.hidden = !item.text || item.status === 'open';
    if (event?.type.endsWith('.completed') && item.text) announce(item.text);
    if (wasAtEnd) this._follow(true);
    else this._latest.hidden = false;
  }

  /** Say where no session listened. @param {{start_ms: number, end_ms: ?number}[]} gaps */
  showGaps(gaps, isPaused) {
    while (this._gaps.length < gaps.length) {
      const element = make('li', { className: 'gap' });
      this._gaps.push(element);
      this._list.append(element);
    }
    gaps.forEach((gap, index) => {
      this._gaps[index].textContent = gapText(gap, isPaused);
    });
    this._follow();
  }

  _row(item) {
    const times = make('time', { className: 'item-start' });
    const end = make('time', { className: 'item-end' });
    const text = make('p', { className: 'item-text' });
    const list = make('ul', { className: 'item-facts', role: 'list' });
    const copy = make('button', { type: 'button', className: 'copy', 'aria-label': `Copy item ${item.number}`, hidden: true }, icon('copy'));
    copy.addEventListener('click', () => copyFrom(copy, item.text));
    const element = make(
      'li',
      { className: 'item', id: `item-${item.id}` },
      make('div', { className: 'item-times' }, times, end),
      make('div', { className: 'item-body' }, text, make('div', { className: 'item-foot' }, list, copy)),
    );
    return { element, times, end, text, facts: list, copy };
  }

  /** More settled words. */
  _grow(row, event) {
    for (const word of words(event.delta, event.logprobs ?? [])) row.text.append(wordElement(word, 'fresh'));
  }

  /** The whole text. It is what its deltas were, so nothing moves. */
  _settle(row, item) {
    const pieces = words(item.text, item.logprobs).map((word) => wordElement(word, ''));
    row.text.replaceChildren(...(item.text ? pieces : [make('span', { className: 'no-words' }, 'No words')]));
  }
}

function wordElement({ text, probability }, className) {
  const isUnsure = probability !== null && probability < UNSURE_BELOW;
  if (!isUnsure) return make('span', { className }, text);
  const space = text.match(/^\s*/)[0];
  const word = make('span', { className: 'unsure', title: `${Math.round(probability * 100)} % sure` }, text.slice(space.length));
  return make('span', { className }, space, word);
}

function facts(item) {
  const found = [];
  if (item.firstWordMs !== null) found.push(['First word', latency(item.firstWordMs)]);
  if (item.finalMs !== null) found.push(['Final', latency(item.finalMs)]);
  if (STATES[item.status]) found.push([STATES[item.status], item.error ?? '']);
  return found.map(([name, value]) => make('li', {}, `${name} `, make('b', {}, value)));
}

function gapText(gap, isPaused) {
  const start = clockTime(gap.start_ms);
  if (gap.end_ms === null) return `Connection lost at ${start}`;
  if (isPaused || gap.end_ms - gap.start_ms < 100) return `Connection lost at ${start}; the rest is heard in a new session`;
  return `Connection lost: nothing was heard from ${start} to ${clockTime(gap.end_ms)}`;
}
