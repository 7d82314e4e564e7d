/** Sending over HTTP: one message a request. Bodies are opaque bytes and are never parsed. */
import type { FastifyInstance } from "fastify";
import { groupOf } from "./access.ts";
import type { Context } from "./app.ts";

export function addMessages(app: FastifyInstance, context: Context): void {
  app.register((scope, _options, done) => {
    const bodyLimit = Math.max(
      1,
      ...Object.values(context.config.contracts).map(({ messageBytesMax }) => messageBytesMax),
    );
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser("*", { parseAs: "buffer", bodyLimit }, (_request, body, parsed) =>
      parsed(null, body),
    );
    scope.post<{ Params: { flow: string } }>(
      "/v1/flows/:flow/messages",
      { bodyLimit, config: { verb: "produce", byGroup: true } },
      async (request, reply) => {
        const flow = context.flow(request.params.flow);
        const group = groupOf(request.principal, request.headers["spillway-group"]?.toString());
        const receipt = await flow.send(
          request.body as Uint8Array,
          group === undefined ? {} : { group },
        );
        return reply.code(202).send(receipt);
      },
    );
    done();
  });
}
