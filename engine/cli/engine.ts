// The real engine, loaded when a command asks for it.
import type { LoadEngine } from "./context.js";

export const loadEngine: LoadEngine = async () => (await import("../daemon.js")).engine;
