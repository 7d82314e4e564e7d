/** server: the flows of a configuration, reached over HTTP and WebSocket, pushed to their targets. */
export { Server } from "./server.ts";
export type { Reloaded } from "./reload.ts";
export { verifyWebhook, WebhookMemory } from "./webhooks.ts";
export type { Webhook, WebhookRequest } from "./webhooks.ts";
export type { ServerDeps } from "./server.ts";
export { verifyAudit } from "./audit.ts";
export { verbs } from "./scope.ts";
export { openTokenStore } from "./security.ts";
export type { NewToken, TokenView } from "./tokens.ts";
