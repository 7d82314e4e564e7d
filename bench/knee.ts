/** The knee consumer of the demo in the process at hand. */
import { KneeModel } from "../src/cli/demo/knee.ts";

/** The model of the consumer, driven by the timers of this process. */
export class Knee {
  readonly #model = new KneeModel();
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  call(): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    return new Promise((resolve) => {
      this.#model.begin(performance.now(), resolve);
      this.#arm();
    });
  }

  /** Calls in progress end at once. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    for (let ms = 1e9; this.#model.parallel > 0; ms *= 2) this.#model.run(performance.now() + ms);
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const dueInMs = this.#model.dueInMs();
    if (dueInMs === undefined || this.#isClosed) return;
    this.#timer = setTimeout(
      () => {
        this.#model.run(performance.now());
        this.#arm();
      },
      Math.max(1, Math.round(dueInMs)),
    );
  }
}
