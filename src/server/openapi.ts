/** `/openapi.json`: the document, made of the routes and their shapes. Registered before every route. */
import swagger from "@fastify/swagger";
import type { FastifyInstance } from "fastify";
import { documented } from "./shapes.ts";

export function addOpenApi(app: FastifyInstance): void {
  app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "Spillway",
        description: "Durable queues that protect their consumers.",
        version: "1",
      },
      components: { securitySchemes: { token: { type: "http", scheme: "bearer" } } },
      security: [{}, { token: [] }],
    },
  });
  app.register((scope, _options, registered) => {
    scope.get(
      "/openapi.json",
      {
        config: { verb: "public" },
        schema: documented({
          summary: "This document",
          tag: "server",
          answers: { 200: { description: "The OpenAPI document.", type: "application/json" } },
        }),
      },
      () => app.swagger(),
    );
    registered();
  });
}
