/** server: the flows of a configuration, reached over HTTP and WebSocket, pushed to their targets. */
export { Server } from "./server.ts";
export type { ServerDeps } from "./server.ts";
