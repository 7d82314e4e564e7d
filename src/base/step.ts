/**
 * What a pure step returns: the next state and what the world is to do about it, in order. A step
 * never acts, waits, reads a clock or draws a number: the same events give the same effects (G8).
 */
export interface Step<State, Effect> {
  readonly state: State;
  readonly effects: readonly Effect[];
}
