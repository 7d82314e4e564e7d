/** Hints within one process. A hint comes after the call that published it has returned. */
import type { Signals } from "./engine.ts";

type Listener = (body: Uint8Array) => void;

export class LocalSignals implements Signals {
  readonly #topics = new Map<string, Set<Listener>>();

  publish(topic: string, body: Uint8Array): void {
    queueMicrotask(() => {
      for (const on of this.#topics.get(topic) ?? []) on(body);
    });
  }

  subscribe(topic: string, on: Listener): Disposable {
    const listener: Listener = (body) => on(body); // The same function may subscribe twice.
    const listeners = this.#topics.get(topic) ?? new Set();
    this.#topics.set(topic, listeners.add(listener));
    return {
      [Symbol.dispose]: () => {
        listeners.delete(listener);
        if (listeners.size === 0 && this.#topics.get(topic) === listeners) {
          this.#topics.delete(topic);
        }
      },
    };
  }

  close(): void {
    this.#topics.clear();
  }
}
