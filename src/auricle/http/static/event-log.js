/** Every event both ways, bounded, and what of it a filter shows. Pure. */

export const MAX_ENTRIES = 5000;

const APPEND = 'input_audio_buffer.append';

/**
 * @typedef {object} Entry
 * @property {number} id
 * @property {'sent'|'received'} direction
 * @property {string} type
 * @property {number} time_ms      since the log began
 * @property {number} bytes        on the wire; of all events that it stands for
 * @property {number} count        events that it stands for: appends in a row are one entry
 * @property {object} event        the newest of them, its audio replaced by its size
 */

/** Events in their order; the oldest go when there are too many. */
export class EventLog {
  /** @param {number} [limit] */
  constructor(limit = MAX_ENTRIES) {
    this.limit = limit;
    /** @type {Entry[]} */
    this.entries = [];
    this.dropped = 0;
    this._nextId = 1;
  }

  /**
   * @param {'sent'|'received'} direction
   * @param {object} event
   * @param {number} bytes
   * @param {number} time_ms
   * @returns {{entry: Entry, isNew: boolean}}
   */
  add(direction, event, bytes, time_ms) {
    const last = this.entries.at(-1);
    if (event.type === APPEND && last?.type === APPEND && last.direction === direction) {
      last.count += 1;
      last.bytes += bytes;
      last.event = shown(event);
      return { entry: last, isNew: false };
    }
    const entry = { id: this._nextId, direction, type: String(event.type), time_ms, bytes, count: 1, event: shown(event) };
    this._nextId += 1;
    this.entries.push(entry);
    if (this.entries.length > this.limit) {
      this.entries.shift();
      this.dropped += 1;
    }
    return { entry, isNew: true };
  }

  clear() {
    this.entries = [];
    this.dropped = 0;
  }

  /** The entries as JSON lines. @param {(entry: Entry) => boolean} [matches] */
  toJsonLines(matches = () => true) {
    return this.entries.filter(matches).map((entry) => `${JSON.stringify(asLine(entry))}\n`).join('');
  }
}

/** An event as it is shown: audio would fill the page. */
function shown(event) {
  if (event.type !== APPEND) return event;
  return { ...event, audio: `(${event.audio.length.toLocaleString('en')} characters of base64)` };
}

const asLine = ({ direction, time_ms, count, event }) => ({
  time_ms: Math.round(time_ms),
  direction,
  ...(count > 1 ? { count } : {}),
  event,
});

/**
 * A test for entries.
 *
 * @param {{text?: string, direction?: string, type?: string}} filter   empty values match all; the text is looked for
 *     in the event's JSON, in any case of letters
 * @returns {(entry: Entry) => boolean}
 */
export function matcher({ text = '', direction = '', type = '' }) {
  const needle = text.trim().toLowerCase();
  return (entry) =>
    (!direction || entry.direction === direction) &&
    (!type || entry.type === type) &&
    (!needle || JSON.stringify(entry.event).toLowerCase().includes(needle));
}

/** @param {number} bytes @returns {string} */
export function byteSize(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1_000_000) return `${(bytes / 1000).toFixed(1)} kB`;
  return `${(bytes / 1_000_000).toFixed(1)} MB`;
}
