/** The Events tab: what `event-log.js` keeps, as a list that can be filtered, opened and copied. */

import { byId, copyFrom, icon, make } from './dom.js';
import { byteSize, EventLog, matcher } from './event-log.js';

/** A type in two parts: where it is too long, its last word stays in sight. @param {string} type */
function typeParts(type) {
  const dot = type.lastIndexOf('.') + 1;
  return [
    dot > 0 && make('span', { className: 'event-family' }, type.slice(0, dot)),
    make('span', { className: 'event-name' }, type.slice(dot)),
  ];
}

/** Owns the list. Called with each event. */
export class Inspector {
  constructor() {
    this.log = new EventLog();
    this._list = byId('event-list');
    this._count = byId('event-count');
    this._none = byId('event-none');
    this._shown = byId('event-shown');
    this._type = byId('event-type');
    this._pause = byId('event-pause');
    this._rows = new Map();
    this._waiting = [];
    this._isPaused = false;
    this._total = 0;
    this._began = null;
    for (const id of ['event-filter', 'event-direction', 'event-type']) {
      byId(id).addEventListener('input', () => this._rebuild());
    }
    this._pause.addEventListener('click', () => this._setPaused(!this._isPaused));
    byId('event-copy').addEventListener('click', ({ currentTarget }) => copyFrom(currentTarget, this.log.toJsonLines(this._matches)));
    byId('event-clear').addEventListener('click', () => this.clear());
    this._list.addEventListener('toggle', (event) => this._fill(event.target), true);
  }

  clear() {
    this.log.clear();
    this._total = 0;
    this._began = null;
    this._count.textContent = '0';
    this._rebuild();
  }

  /** @param {'sent'|'received'} direction @param {object} event @param {number} bytes */
  add(direction, event, bytes) {
    this._began ??= performance.now();
    const { entry } = this.log.add(direction, event, bytes, performance.now() - this._began);
    this._total += 1;
    if (!this._waiting.includes(entry)) this._waiting.push(entry);
    // Events come in bursts: the page is touched once a frame.
    this._frame ??= requestAnimationFrame(() => this._flush());
  }

  /** The tab is looked at: a hidden list can't be scrolled, so it is now. */
  scrollToEnd() {
    this._list.scrollTop = this._list.scrollHeight;
  }

  get _matches() {
    return matcher({
      text: byId('event-filter').value,
      direction: byId('event-direction').value,
      type: this._type.value,
    });
  }

  _setPaused(isPaused) {
    this._isPaused = isPaused;
    this._pause.setAttribute('aria-pressed', String(isPaused));
    this._pause.textContent = isPaused ? 'Resume' : 'Pause';
    if (!isPaused) this._rebuild();
  }

  _flush() {
    this._frame = null;
    this._count.textContent = this._total.toLocaleString('en');
    const waiting = this._waiting.splice(0);
    if (this._isPaused) return;
    const isAtEnd = this._list.scrollHeight - this._list.scrollTop - this._list.clientHeight < 40;
    for (const entry of waiting) this._show(entry);
    while (this._rows.size && !this._isKept(this._rows.keys().next().value)) this._dropFirst();
    if (isAtEnd) this.scrollToEnd();
    this._summarise();
  }

  _isKept(id) {
    return this.log.entries.length > 0 && id >= this.log.entries[0].id;
  }

  _dropFirst() {
    const [id, row] = this._rows.entries().next().value;
    row.element.remove();
    this._rows.delete(id);
  }

  _rebuild() {
    this._rows.clear();
    this._list.replaceChildren();
    this._waiting = [];
    for (const entry of this.log.entries) this._show(entry);
    this.scrollToEnd();
    this._summarise();
  }

  _summarise() {
    const { entries, dropped } = this.log;
    this._none.hidden = entries.length > 0;
    this._shown.textContent =
      (this._rows.size === entries.length ? '' : `${this._rows.size} of ${entries.length} shown`) +
      (dropped ? ` ${dropped} older ones dropped` : '');
    const known = new Set([...this._type.options].map((option) => option.value));
    for (const type of new Set(entries.map((entry) => entry.type))) {
      if (!known.has(type)) this._type.append(make('option', { value: type }, type));
    }
  }

  _show(entry) {
    let row = this._rows.get(entry.id);
    if (!row) {
      if (!this._matches(entry)) return;
      row = this._row(entry);
      this._rows.set(entry.id, row);
      this._list.append(row.element);
    }
    row.count.textContent = entry.count > 1 ? `× ${entry.count}` : '';
    row.size.textContent = byteSize(entry.bytes);
    if (row.details.open) this._fill(row.details);
  }

  _row(entry) {
    const count = make('span', { className: 'event-times' });
    const size = make('span', { className: 'event-size' });
    const details = make(
      'details',
      {},
      make(
        'summary',
        {},
        make('span', { className: 'event-time' }, `${(entry.time_ms / 1000).toFixed(3)}`),
        make('span', { className: 'event-arrow', 'aria-hidden': 'true' }, entry.direction === 'sent' ? '↑' : '↓'),
        make('span', { className: 'visually-hidden' }, entry.direction),
        make('span', { className: 'event-type' }, ...typeParts(entry.type), count),
        size,
      ),
    );
    details.dataset.entry = entry.id;
    const element = make('li', { className: `event event-${entry.direction}` }, details);
    if (entry.type === 'error' || entry.type.endsWith('.failed')) element.classList.add('event-error');
    return { element, details, count, size, entry };
  }

  /** An event's JSON is written when it is looked at. */
  _fill(details) {
    const row = this._rows.get(Number(details.dataset.entry));
    if (!row || !details.open) return;
    const text = JSON.stringify(row.entry.event, null, 2);
    let block = details.querySelector('pre');
    if (!block) {
      const copy = make('button', { type: 'button', className: 'copy', 'aria-label': 'Copy this event' }, icon('copy'));
      copy.addEventListener('click', () => copyFrom(copy, JSON.stringify(row.entry.event, null, 2)));
      block = make('pre', { tabIndex: 0, role: 'region', 'aria-label': `Event ${row.entry.type}` });
      details.append(make('div', { className: 'code-block' }, copy, block));
    }
    block.textContent = text;
  }
}
