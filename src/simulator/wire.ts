/**
 * Links with delay and faults. Grants and heartbeats may be lost, doubled, late and out of order; the
 * other frames come late, in order, and are lost only with their process. What is granted and spent is
 * told to the history, whichever kind of link carries it.
 */
import type { Links } from "../spillway.ts";
import { directLink } from "../protocol/index.ts";
import type {
  ConsumerFrame,
  Delivered,
  Link,
  ProducerFrame,
  ToConsumerFrame,
  ToProducerFrame,
} from "../protocol/index.ts";
import type { Draw } from "./draw.ts";
import type { Life, LifeClock } from "./time.ts";
import type { World } from "./world.ts";

type Frame = ConsumerFrame | ProducerFrame | ToConsumerFrame | ToProducerFrame;
const loose: ReadonlySet<Frame["kind"]> = new Set(["grant", "beat", "credit", "want"]);
const beatGapMs = 20;

/** What those who watch the links know of the rest. */
export interface House {
  /** On the wall, as it is stored; Infinity: none. */
  deadlineOf(id: string): number;
  isPaused(flow: string, partition: number): boolean;
}

export function layLinks(world: World, life: Life, clock: LifeClock, house: House): Links {
  const told = new Told(world, life, clock, house);
  const draw = world.draw(`wire ${life.name}`);
  const pair = <A extends Frame, B extends Frame>(
    flow: string,
    hop: string,
  ): [Link<A, B>, Link<B, A>] => {
    const [left, right] =
      world.plan.link === undefined ? directLink<A, B>() : simulated<A, B>(world, life, draw);
    return [told.tap(left, flow, hop), told.tap(right, flow, hop)];
  };
  return {
    producer: (flow) => pair(flow, "producer"),
    consumer: (flow) => pair(flow, "consumer"),
    beatGapMs: world.plan.link === undefined ? 0 : beatGapMs,
  };
}

function simulated<A extends Frame, B extends Frame>(
  world: World,
  life: Life,
  draw: Draw,
): [Link<A, B>, Link<B, A>] {
  const left: Link<A, B> = { send: () => {}, onFrame: () => {} };
  const right: Link<B, A> = { send: () => {}, onFrame: () => {} };
  left.send = oneWay(world, life, draw, (frame) => right.onFrame(frame));
  right.send = oneWay(world, life, draw, (frame) => left.onFrame(frame));
  return [left, right];
}

function oneWay<F extends Frame>(
  world: World,
  life: Life,
  draw: Draw,
  arrive: (frame: F) => void,
): (frame: F) => void {
  const { delayMs, troubles } = world.plan.link!;
  let lastMs = 0;
  const later = (atMs: number, frame: F): void => {
    world.at(atMs, () => life.pass(() => arrive(frame)));
  };
  return (frame) => {
    const { nowMs } = world.time;
    const usualMs = nowMs + delayMs * (0.5 + draw.share());
    if (!loose.has(frame.kind) || world.isHealing) {
      lastMs = Math.max(lastMs, usualMs);
      later(lastMs, frame);
      return;
    }
    if (troubles.has("loss") && draw.chance(0.2)) {
      world.sometimes("a grant or heartbeat was lost");
      return;
    }
    const isLate = troubles.has("disorder") && draw.chance(0.2);
    if (isLate) world.sometimes("a grant or heartbeat came out of order");
    // In order unless disorder is on: what comes after the frames before it.
    if (!isLate) lastMs = Math.max(lastMs, usualMs);
    later(isLate ? usualMs + draw.log(1, 3_000) : lastMs, frame);
    if (troubles.has("doubling") && draw.chance(0.2)) {
      world.sometimes("a grant or heartbeat came twice");
      later(usualMs + draw.log(1, 1_000), frame);
    }
  };
}

/** Tells what passes: grants as they are sent, and what is spent on them. */
class Told {
  readonly #world: World;
  readonly #life: Life;
  readonly #clock: LifeClock;
  readonly #house: House;

  constructor(world: World, life: Life, clock: LifeClock, house: House) {
    this.#house = house;
    this.#world = world;
    this.#life = life;
    this.#clock = clock;
  }

  tap<A extends Frame, B extends Frame>(link: Link<A, B>, flow: string, hop: string): Link<A, B> {
    const send = link.send.bind(link);
    link.send = (frame) => {
      this.#tell(frame, flow, hop);
      send(frame);
    };
    return link;
  }

  /** What is handed out can still be done in time, and its partition is not paused. */
  #checkHandedOut(messages: readonly Delivered[], flow: string): void {
    for (const { partition, seq } of messages) {
      const id = `${flow}/${partition}/${seq}`;
      if (this.#house.deadlineOf(id) < this.#clock.now() - 1) {
        this.#world.broke("G11.expired", `${id} is handed out after its deadline`);
      }
      if (this.#house.isPaused(flow, partition)) {
        this.#world.broke("G7.paused", `${id} is handed out though its partition is paused`);
      }
    }
  }

  #tell(frame: Frame, flow: string, hop: string): void {
    const { name } = this.#life;
    if (frame.kind === "grant" || frame.kind === "credit") {
      const { epoch, grantId, limitMessages: limit, echoHeartbeatMs, leaseMs } = frame.grant;
      const part = frame.kind === "grant" ? `/${frame.partition}` : "";
      this.#world.record({
        kind: "grant",
        receiver: `${name} ${hop} ${flow}${part}`,
        sender: name,
        epoch,
        grantId,
        limit,
        heartbeatAt: echoHeartbeatMs,
        leaseMs,
      });
    } else if (frame.kind === "send" || frame.kind === "deliver") {
      if (frame.kind === "deliver") this.#checkHandedOut(frame.messages, flow);
      const part = frame.kind === "send" ? `/${frame.partition}` : "";
      this.#world.record({
        kind: "spend",
        receiver: `${name} ${hop} ${flow}${part}`,
        sender: name,
        epoch: frame.stamp.epoch,
        position: frame.beat.position,
        clock: this.#clock.now(),
      });
    }
  }
}
