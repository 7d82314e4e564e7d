/** base: clock, chance, errors, units, heap, maps, lines, assert. Knows nothing of queues. */
export { assert } from "./assert.ts";
export type { Clock, Timer } from "./clock.ts";
export { Deque } from "./deque.ts";
export { Emitter } from "./emitter.ts";
export { catalogue, isSpillwayError, SpillwayError, textOf } from "./errors.ts";
export type { CatalogueEntry, ErrorCode, ErrorDetails } from "./errors.ts";
export { Heap } from "./heap.ts";
export { IntegerMap } from "./integer-map.ts";
export { Line } from "./line.ts";
export type { Member } from "./line.ts";
export { checkOptions, checkPlace, checkSignal, refuseOption } from "./options.ts";
export { chance, hash32, hash53, hashNumber, sequence } from "./random.ts";
export { parseBytes, parseMs } from "./units.ts";
export type { Size, Span } from "./units.ts";
