/**
 * The two ways to a session: WebSocket and WebRTC, with one face: `send(text)`, `close()`, and the callbacks
 * `onmessage(text)` and `onclose({code, reason})`. They know neither events nor audio.
 */

const OPEN_TIMEOUT_MS = 10_000;
/** How long to look for network addresses before the offer is sent; those of the machine itself come at once. */
const GATHERING_TIMEOUT_MS = 1000;

/**
 * Why there is no session. `kind` is one of `key` (wanted or wrong), `full`, `refused` (the request is wrong),
 * `network` (nobody answered), `webrtc` (no media connection), `no-webrtc` (the server takes no calls).
 */
export class ConnectError extends Error {
  constructor(kind, message, { retryAfter_s = null, param = null, code = null } = {}) {
    super(message);
    Object.assign(this, { kind, retryAfter_s, param, code });
  }
}

/** POST to the server. @returns {Promise<Response>} @throws {ConnectError} */
export async function post(url, headers, body) {
  let response;
  try {
    response = await fetch(url, { method: 'POST', headers, body });
  } catch {
    throw new ConnectError('network', 'The server can’t be reached.');
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: null }));
  const message = error?.message ?? `The server answered ${response.status}.`;
  const kinds = { 401: 'key', 503: 'full' };
  const byStatus = kinds[response.status] ?? (response.status >= 500 ? 'network' : 'refused');
  const kind = error?.code === 'webrtc_disabled' ? 'no-webrtc' : byStatus;
  const retryAfter_s = Number(response.headers.get('Retry-After')) || null;
  throw new ConnectError(kind, message, { retryAfter_s, param: error?.param, code: error?.code });
}

/** A session over a WebSocket. */
export class SocketConnection {
  /** @param {string} origin of the server @param {string} key an ephemeral one @param {'ga'|'beta'} dialect */
  constructor(origin, key, dialect) {
    // Browsers can't set headers on a socket, so the key travels as a subprotocol.
    const protocols = ['realtime', `openai-insecure-api-key.${key}`];
    if (dialect === 'beta') protocols.push('openai-beta.realtime-v1');
    this._socket = new WebSocket(`${origin.replace(/^http/, 'ws')}/v1/realtime?intent=transcription`, protocols);
    this.onmessage = () => {};
    this.onclose = () => {};
    this._socket.onmessage = ({ data }) => this.onmessage(data);
    this._socket.onclose = ({ code, reason }) => this.onclose({ code, reason });
  }

  send(text) {
    if (this._socket.readyState === WebSocket.OPEN) this._socket.send(text);
  }

  close() {
    this._socket.close(1000);
  }
}

/** A session over WebRTC: events on a data channel, sound on a track. */
export class CallConnection {
  /** @param {string} origin @param {string} key @param {'ga'|'beta'} dialect @param {MediaStreamTrack} track */
  constructor(origin, key, dialect, track) {
    this.onmessage = () => {};
    this.onclose = () => {};
    this._isClosed = false;
    /** When sound began to flow, on the page's clock. @type {?number} */
    this.connectedAt = null;
    this._peer = new RTCPeerConnection();
    this._sender = this._peer.addTrack(track, new MediaStream([track]));
    this._channel = this._peer.createDataChannel('oai-events');
    this._channel.onmessage = ({ data }) => this.onmessage(data);
    this._channel.onclose = () => this._end('The call ended.');
    this._peer.onconnectionstatechange = () => {
      if (this._peer.connectionState === 'connected') this.connectedAt ??= performance.now();
      if (this._peer.connectionState === 'failed') this._end('The media connection failed.');
    };
    this._path = dialect === 'beta' ? '/v1/realtime?intent=transcription' : '/v1/realtime/calls';
    this._origin = origin;
    this._key = key;
  }

  /** Exchange offer and answer, and wait until the data channel is open. @throws {ConnectError} */
  async open() {
    await this._peer.setLocalDescription();
    await gathered(this._peer);
    const headers = { Authorization: `Bearer ${this._key}`, 'Content-Type': 'application/sdp' };
    const response = await post(this._origin + this._path, headers, this._peer.localDescription.sdp);
    await this._peer.setRemoteDescription({ type: 'answer', sdp: await response.text() });
    if (this._channel.readyState === 'open') return;
    await new Promise((resolve, reject) => {
      const fail = () => reject(new ConnectError('webrtc', 'The server answers, but no media connection comes about.'));
      this._channel.addEventListener('open', resolve, { once: true });
      this._channel.addEventListener('close', fail, { once: true });
      setTimeout(fail, OPEN_TIMEOUT_MS);
    });
  }

  send(text) {
    if (this._channel.readyState === 'open') this._channel.send(text);
  }

  close() {
    this._end('');
  }

  _end(reason) {
    if (this._isClosed) return;
    this._isClosed = true;
    this._peer.close();
    this.onclose({ code: 1000, reason });
  }
}

async function gathered(peer) {
  if (peer.iceGatheringState === 'complete') return;
  await new Promise((resolve) => {
    peer.addEventListener('icegatheringstatechange', () => {
      if (peer.iceGatheringState === 'complete') resolve();
    });
    setTimeout(resolve, GATHERING_TIMEOUT_MS);
  });
}
