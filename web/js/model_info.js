// Shows the text of "Upscale Model Info" in the node, for reading and copying.

import { app } from "../../../scripts/app.js";

const NODE = "FDATDenseIsoModelInfo";

app.registerExtension({
  name: "fdat-dense-iso.model-info",

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const box = document.createElement("textarea");
    box.className = "comfy-multiline-input";
    box.readOnly = true;
    const widget = node.addDOMWidget("info", "info", box, {
      serialize: false, // not an input of the prompt
      getValue: () => box.value,
      setValue: (text) => (box.value = text),
      getMinHeight: () => 220,
    });
    widget.serialize = false; // nor a value of the workflow
    const onExecuted = node.onExecuted;
    node.onExecuted = function (output) {
      onExecuted?.apply(this, arguments);
      widget.value = output?.text?.join("\n") ?? "";
    };
    node.setSize([Math.max(node.size[0], 420), Math.max(node.size[1], 300)]);
  },
});
