/** client: the two ends of a flow in another process, over a link that reconnects and resumes. */
export { SpillwayError } from "../base/index.ts";
