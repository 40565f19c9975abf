// Shows what this pack's nodes have to say: on the node, where it stays until the node runs again; and what must not be
// overlooked in a message as well, which stays until the user closes it.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const NOTE = "fdat-dense-iso.note"; // as in host.py
const MESSAGE = "fdat-dense-iso.message";
const WIDGET = "said";
const LOWEST = 64; // pixels: three lines

// A node inside subgraphs has the numbers of all of them, as in 5:3.
function nodeOf(number) {
  let graph = app.rootGraph ?? app.graph;
  let node;
  for (const part of String(number).split(":")) {
    node = graph?.getNodeById(Number(part));
    graph = node?.subgraph;
  }
  return node;
}

function noteOf(node) {
  return node?.widgets?.find((widget) => widget.name === WIDGET);
}

function write(node, text) {
  let note = noteOf(node);
  if (!note) {
    const box = document.createElement("textarea");
    box.className = "comfy-multiline-input";
    box.readOnly = true;
    note = node.addDOMWidget(WIDGET, WIDGET, box, {
      serialize: false, // not an input of the prompt
      getValue: () => box.value,
      setValue: (value) => (box.value = value),
      getMinHeight: () => LOWEST,
    });
    note.serialize = false; // nor a value of the workflow
    note.heightBefore = node.size[1];
    node.setSize([node.size[0], Math.max(node.size[1] + LOWEST, node.computeSize()[1])]);
  }
  note.value = text;
  node.setDirtyCanvas(true, true);
}

function erase(node) {
  const note = noteOf(node);
  if (!note) return;
  note.onRemove?.();
  node.widgets.splice(node.widgets.indexOf(note), 1);
  node.setSize([node.size[0], Math.max(note.heightBefore, node.computeSize()[1])]);
  node.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "fdat-dense-iso.messages",

  setup() {
    api.addEventListener("executing", ({ detail }) => erase(nodeOf(detail)));
    api.addEventListener(NOTE, ({ detail }) => {
      const node = nodeOf(detail.node);
      if (node) write(node, detail.text);
    });
    api.addEventListener(MESSAGE, ({ detail }) => {
      app.extensionManager.toast.add({
        severity: "warn",
        summary: nodeOf(detail.node)?.title ?? "Upscale Video (Tiled)",
        detail: detail.text,
      });
    });
  },
});
