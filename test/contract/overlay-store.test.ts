import { OverlayStore } from "../../engine/store/overlay-store.js";
import { ModelStore } from "../sim/model-store.js";
import { storeContract } from "./store.js";

storeContract("store contract: overlay", async () => new OverlayStore(new ModelStore()));
