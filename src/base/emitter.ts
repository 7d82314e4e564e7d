/** Typed events. A listener that throws is reported and harms neither the sender nor the others. */
interface Entry {
  readonly listener: (...args: never[]) => unknown;
  readonly isOnce: boolean;
}

export class Emitter<Events extends { readonly [Name in keyof Events]: readonly unknown[] }> {
  readonly #entries = new Map<keyof Events, readonly Entry[]>();
  readonly #onFailure: (event: keyof Events, error: unknown) => void;

  constructor(onFailure: (event: keyof Events, error: unknown) => void) {
    this.#onFailure = onFailure;
  }

  on<Name extends keyof Events>(event: Name, listener: (...args: Events[Name]) => unknown): void {
    this.#add(event, { listener, isOnce: false });
  }

  once<Name extends keyof Events>(event: Name, listener: (...args: Events[Name]) => unknown): void {
    this.#add(event, { listener, isOnce: true });
  }

  off<Name extends keyof Events>(event: Name, listener: (...args: Events[Name]) => unknown): void {
    const entries = this.#entries.get(event) ?? [];
    const at = entries.findIndex((entry) => entry.listener === listener);
    if (at >= 0) this.#entries.set(event, entries.toSpliced(at, 1));
  }

  #add(event: keyof Events, entry: Entry): void {
    this.#entries.set(event, [...(this.#entries.get(event) ?? []), entry]);
  }

  has(event: keyof Events): boolean {
    return (this.#entries.get(event)?.length ?? 0) > 0;
  }

  emit<Name extends keyof Events>(event: Name, ...args: Events[Name]): void {
    const entries = this.#entries.get(event);
    if (entries === undefined || entries.length === 0) return;
    if (entries.some(({ isOnce }) => isOnce)) {
      this.#entries.set(
        event,
        entries.filter(({ isOnce }) => !isOnce),
      );
    }
    for (const { listener } of entries) {
      try {
        const result: unknown = Reflect.apply(listener, undefined, args);
        if (result instanceof Promise) {
          result.catch((error: unknown) => this.#onFailure(event, error));
        }
      } catch (error) {
        this.#onFailure(event, error);
      }
    }
  }
}
