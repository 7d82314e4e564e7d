/** What operators do to a flow or to one partition; every action leaves an entry in the audit log (S12). */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { isSpillwayError, SpillwayError } from "../base/index.ts";
import { changePolicy, fields } from "../flow/index.ts";
import type { Flow } from "../spillway.ts";
import type { Context } from "./app.ts";
import { audited } from "./audit.ts";
import type { AuditEntry } from "./audit.ts";
import { waitOf } from "./message-fields.ts";
import { documented, freeText, parsedBody } from "./shapes.ts";
import { flowPath, shownContract } from "./state.ts";

type Params = { readonly flow: string; readonly partition?: string };

const bodyShape = fields.section({ reason: freeText("Why; for the audit log.").optional() });

/** Does what an operator asks for, once it stands in the audit log. */
export function recorded<T>(
  { audit }: Context,
  { principal, id: requestId }: FastifyRequest,
  entry: Omit<AuditEntry, "principal" | "requestId">,
  act: () => T | Promise<T>,
): Promise<T> {
  return audited(audit, { ...entry, principal: principal.id, requestId }, async () => act());
}

interface Action {
  readonly summary: string;
  run(flow: Flow<Uint8Array>, partition?: number): Promise<void>;
}

const actions: Readonly<Record<string, Action>> = {
  pause: {
    summary: "Hand nothing out; messages are still taken in",
    run: (flow, partition) => flow.pause(partition),
  },
  resume: {
    summary: "Hand out again",
    run: (flow, partition) => flow.resume(partition),
  },
  "close-intake": {
    summary: "Take no new messages; what is stored is handed out",
    run: (flow, partition) => flow.closeIntake(partition),
  },
  "open-intake": {
    summary: "Take new messages again",
    run: (flow, partition) => flow.openIntake(partition),
  },
};
const places = { flow: flowPath, partition: `${flowPath}/partitions/:partition(^\\d{1,6})` };

export function addControls(app: FastifyInstance, context: Context): void {
  app.register((scope, _options, registered) => {
    for (const path of Object.values(places)) {
      for (const name of Object.keys(actions)) addAction(scope, context, path, name);
      addDrain(scope, context, path);
    }
    addPolicy(scope, context);
    registered();
  });
}

function addAction(scope: FastifyInstance, context: Context, path: string, name: string): void {
  const action = actions[name]!;
  scope.post<{ Params: Params }>(
    `${path}::${name}`,
    { config: { verb: "admin" }, schema: controlCall(action.summary, path) },
    async (request) => {
      const { reason } = parsedBody(bodyShape, request.body);
      const { flow, partition } = placeOf(context, request.params);
      const entry = {
        action: `flow.${name}`,
        flow: flow.name,
        ...(partition === undefined ? {} : { partition }),
        before: controlsOf(flow, partition),
        ...(reason === undefined ? {} : { reason }),
      };
      await recorded(context, request, entry, () => action.run(flow, partition));
      return controlsOf(flow, partition);
    },
  );
}

/** Answers at once that the intake is closed, or with `Prefer: wait` once nothing is pending. */
function addDrain(scope: FastifyInstance, context: Context, path: string): void {
  const waitMaxMs = context.config.limits.requestTimeoutMs;
  scope.post<{ Params: Params }>(
    `${path}::drain`,
    {
      config: { verb: "admin" },
      schema: controlCall("Take no new messages, until nothing is pending", path),
    },
    async (request, reply) => {
      const { reason } = parsedBody(bodyShape, request.body);
      const { flow, partition } = placeOf(context, request.params);
      const entry = {
        action: "flow.drain",
        flow: flow.name,
        ...(partition === undefined ? {} : { partition }),
        before: controlsOf(flow, partition),
        ...(reason === undefined ? {} : { reason }),
      };
      await recorded(context, request, entry, () => flow.closeIntake(partition));
      const waitMs = waitOf(request.headers, waitMaxMs);
      if (waitMs !== undefined) {
        reply.header("preference-applied", `wait=${Math.floor(waitMs / 1000)}`);
        await drained(reply, flow, partition, waitMs);
      }
      const now = controlsOf(flow, partition);
      return reply.code(now.depth === 0 ? 200 : 202).send(now);
    },
  );
}

async function drained(
  reply: FastifyReply,
  flow: Flow<Uint8Array>,
  partition: number | undefined,
  waitMs: number,
): Promise<void> {
  const ended = new AbortController();
  const end = (): void => ended.abort();
  const timer = setTimeout(end, waitMs);
  const { closing } = reply.server;
  reply.raw.once("close", end);
  closing.addEventListener("abort", end);
  try {
    await flow.drain({ ...(partition === undefined ? {} : { partition }), signal: ended.signal });
  } catch (error) {
    if (!isSpillwayError(error, "aborted")) throw error;
  } finally {
    clearTimeout(timer);
    reply.raw.off("close", end);
    closing.removeEventListener("abort", end);
  }
}

interface ControlsView {
  readonly flow: string;
  readonly partition?: number;
  readonly isPaused: boolean;
  readonly isIntakeClosed: boolean;
  readonly depth: number;
}

function controlsOf(flow: Flow<Uint8Array>, partition: number | undefined): ControlsView {
  const state = flow.state();
  if (partition === undefined) {
    const { isPaused, isIntakeClosed, depth } = state;
    return { flow: flow.name, isPaused, isIntakeClosed, depth };
  }
  const { state: its, isIntakeClosed, depth } = state.partitions[partition]!;
  return { flow: flow.name, partition, isPaused: its === "paused", isIntakeClosed, depth };
}

/** @throws {SpillwayError} not_found */
function placeOf(
  context: Context,
  { flow: name, partition }: Params,
): { readonly flow: Flow<Uint8Array>; readonly partition: number | undefined } {
  const flow = context.flow(name);
  if (partition === undefined) return { flow, partition: undefined };
  const index = Number(partition);
  if (index < flow.contract.partitions) return { flow, partition: index };
  throw new SpillwayError("not_found", { flow: name, partition: index });
}

const patchShape = z.looseObject({}, { error: "an object of changes" });

function addPolicy(scope: FastifyInstance, context: Context): void {
  scope.patch<{ Params: Params }>(
    `${flowPath}/policy`,
    { config: { verb: "admin" }, schema: policyCall },
    async (request) => {
      const flow = context.flow(request.params.flow);
      const patch = parsedBody(patchShape, request.body);
      const before = shownContract(flow.contract);
      const after = shownContract(changePolicy(flow.contract, patch));
      const entry = { action: "flow.policy", flow: flow.name, before, after };
      await recorded(context, request, entry, () => flow.change(patch));
      return { contract: shownContract(flow.contract), warnings: flow.warnings };
    },
  );
}

const controlsShape = z.object({
  flow: z.string(),
  partition: z.int().optional(),
  isPaused: z.boolean(),
  isIntakeClosed: z.boolean(),
  depth: z.int(),
});

function controlCall(summary: string, path: string): ReturnType<typeof documented> {
  return documented({
    summary,
    tag: "controls",
    params: path === flowPath ? ["flow"] : ["flow", "partition"],
    body: bodyShape,
    answers: { 200: { description: "How it stands now.", shape: controlsShape } },
  });
}

const policyCall = documented({
  summary: "Change limits and policies while the flow runs (RFC 7396)",
  tag: "controls",
  params: ["flow"],
  body: patchShape,
  answers: {
    200: {
      description: "The contract as it is now.",
      shape: z.object({ contract: z.looseObject({}), warnings: z.array(z.looseObject({})) }),
    },
  },
});
