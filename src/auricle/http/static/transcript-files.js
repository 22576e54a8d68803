/** Transcripts as files: txt, srt, vtt, json. Pure. */

const MIN_CUE_MS = 200;
const MAX_CUE_LENGTH = 84; // characters: two lines of 42, as broadcasters have them

/**
 * @param {number} ms
 * @param {string} separator   of the milliseconds: `,` in SubRip, `.` in WebVTT
 */
export function cueTime(ms, separator) {
  const whole = Math.max(0, Math.round(ms));
  const two = (value) => String(Math.floor(value)).padStart(2, '0');
  const hours = two(whole / 3_600_000);
  const minutes = two((whole / 60_000) % 60);
  const seconds = two((whole / 1000) % 60);
  return `${hours}:${minutes}:${seconds}${separator}${String(whole % 1000).padStart(3, '0')}`;
}

/** A time for reading: `01:02.3`, from an hour on `1:01:02.3`. @param {number} ms */
export function clockTime(ms) {
  const tenths = Math.max(0, Math.floor(ms / 100));
  const two = (value) => String(Math.floor(value)).padStart(2, '0');
  const hours = Math.floor(tenths / 36_000);
  return `${hours ? `${hours}:` : ''}${two((tenths / 600) % 60)}:${two((tenths / 10) % 60)}.${tenths % 10}`;
}

/** Items that have text, without the text's outer space. */
const spoken = (items) =>
  items.map((item) => ({ ...item, text: item.text.replace(/\s+/g, ' ').trim() })).filter((item) => item.text);

/** An item's cues: one, or where the times of its words are known, as many as its length asks for. */
const cues = (items) => spoken(items).flatMap((item) => (item.words.length ? cuesOfWords(item.words) : [cueOfItem(item)]));

function cueOfItem(item) {
  const start_ms = item.start_ms ?? 0;
  return { start_ms, end_ms: Math.max(item.end_ms ?? start_ms, start_ms + MIN_CUE_MS), text: item.text };
}

function cuesOfWords(words) {
  const found = [];
  for (const { word, start, end } of words) {
    const cue = found.at(-1);
    if (cue && cue.text.length + 1 + word.length <= MAX_CUE_LENGTH) {
      cue.text += ` ${word}`;
      cue.end_ms = end * 1000;
    } else {
      found.push({ start_ms: start * 1000, end_ms: end * 1000, text: word });
    }
  }
  return found;
}

/** A line an item. */
export const toTxt = (items) => spoken(items).map((item) => `${item.text}\n`).join('');

/** SubRip. */
export const toSrt = (items) =>
  cues(items)
    .map((cue, index) => `${index + 1}\n${cueTime(cue.start_ms, ',')} --> ${cueTime(cue.end_ms, ',')}\n${cue.text}\n`)
    .join('\n');

/** WebVTT; `&`, `<` and `>` begin markup there. */
export const toVtt = (items) =>
  `WEBVTT\n${cues(items)
    .map((cue) => {
      const text = cue.text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
      return `\n${cueTime(cue.start_ms, '.')} --> ${cueTime(cue.end_ms, '.')}\n${text}\n`;
    })
    .join('')}`;

/** Everything that is known, with the session object that led to it. */
export function toJson(items, session, gaps = []) {
  const listed = items.map((item) => ({
    id: item.id,
    start_ms: rounded(item.start_ms),
    end_ms: rounded(item.end_ms),
    text: item.text,
    status: item.status,
    ...(item.error ? { error: item.error } : {}),
    first_word_latency_ms: rounded(item.firstWordMs),
    final_latency_ms: rounded(item.finalMs),
    ...(item.logprobs.length ? { logprobs: item.logprobs } : {}),
    ...(item.words.length ? { words: item.words } : {}),
  }));
  const lost = gaps.map((gap) => ({ start_ms: rounded(gap.start_ms), end_ms: rounded(gap.end_ms) }));
  return `${JSON.stringify({ session, items: listed, ...(lost.length ? { not_heard: lost } : {}) }, null, 2)}\n`;
}

const rounded = (ms) => (ms === null || ms === undefined ? null : Math.round(ms));

/** How each kind of file is written. */
export const FILES = {
  txt: { type: 'text/plain', write: (items) => toTxt(items) },
  srt: { type: 'application/x-subrip', write: (items) => toSrt(items) },
  vtt: { type: 'text/vtt', write: (items) => toVtt(items) },
  json: { type: 'application/json', write: toJson },
};
