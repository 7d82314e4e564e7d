/**
 * One direction-pair between two machines: a function call, a WebSocket or a simulated wire. A driver
 * sends frames down it and is called with those that come back; it never learns what the link is.
 */
export interface Link<Out, In> {
  send(frame: Out): void;
  /** Set once by the end that owns this side, before the first frame. */
  onFrame: (frame: In) => void;
}

/** Two ends of a function call: what one sends, the other receives at once, in order. */
export function directLink<A, B>(): [Link<A, B>, Link<B, A>] {
  const left: Link<A, B> = { send: (frame) => right.onFrame(frame), onFrame: () => {} };
  const right: Link<B, A> = { send: (frame) => left.onFrame(frame), onFrame: () => {} };
  return [left, right];
}
