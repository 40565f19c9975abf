// Shows messages of this pack's nodes until the user closes them: texts on nodes vanish when a job ends.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const EVENT = "fdat-dense-iso.message"; // as in host.py

app.registerExtension({
  name: "fdat-dense-iso.messages",

  setup() {
    api.addEventListener(EVENT, ({ detail }) => {
      const node = app.graph.getNodeById(Number(detail.node));
      app.extensionManager.toast.add({
        severity: "warn",
        summary: node?.title ?? "Upscale Video (Tiled)",
        detail: detail.text,
      });
    });
  },
});
