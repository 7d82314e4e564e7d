/**
 * Chance as a function of names: the same seed and the same words give the same number, on every
 * machine (G8). There is no hidden state, so decisions can be replayed and computed in any order.
 */

/** FNV-1a over UTF-16 code units, then the finaliser of MurmurHash3: 32 bits. */
export function hash32(seed: number, ...words: readonly (number | string)[]): number {
  let h = (seed ^ 0x811c9dc5) >>> 0;
  for (const word of words) {
    if (typeof word === "number") {
      h = Math.imul(h ^ (word >>> 0), 0x01000193);
      h = Math.imul(h ^ Math.floor(word / 4294967296), 0x01000193);
    } else {
      for (let i = 0; i < word.length; i++) h = Math.imul(h ^ word.charCodeAt(i), 0x01000193);
    }
    h = Math.imul(h ^ 0xff, 0x01000193); // Words do not run into each other.
  }
  return finalise(h);
}

/** `hash32` of one number that is no text, for what is done for every message. */
export function hashNumber(seed: number, word: number): number {
  let h = (seed ^ 0x811c9dc5) >>> 0;
  h = Math.imul(h ^ (word >>> 0), 0x01000193);
  h = Math.imul(h ^ Math.floor(word / 4294967296), 0x01000193);
  return finalise(Math.imul(h ^ 0xff, 0x01000193));
}

/** A number in [0, 1), evenly spread, from the seed and the words. */
export function chance(seed: number, ...words: readonly (number | string)[]): number {
  return hash32(seed, ...words) / 4294967296;
}

/** Hash of a string as a safe integer (53 bits) above 0: the identity of a key or a group. */
export function hash53(text: string): number {
  const high = hash32(0x9e3779b9, text) & 0x1fffff;
  return high * 4294967296 + hash32(0x85ebca6b, text) + 1;
}

/** A seeded sequence (mulberry32) for places that want one: simulations, samples, request ids. */
export function sequence(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function finalise(hash: number): number {
  let h = hash;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
