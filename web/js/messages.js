// Shows what this pack's nodes have to say: on the node, where it stays until the node runs again; and what must not be
// overlooked in a message as well, which stays until the user closes it.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const NOTE = "fdat-dense-iso.note"; // as in host.py
const MESSAGE = "fdat-dense-iso.message";
const KEPT = "fdat_dense_iso_note"; // in a node's output: the host sends it again where it does not run the node again
const WIDGET = "said";
const LINE = 18; // pixels
const LETTER = 6.5;
const HIGHEST = 180;

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

// The height that a node had before its text, unless the user has changed it since.
function heightWithout(node) {
  const note = noteOf(node);
  const changed = !note || Math.abs(node.size[1] - note.after) > LINE; // Nodes 2.0 measures a little differently
  return changed ? node.size[1] : note.before;
}

function heightOf(text, width) {
  const letters = Math.max(10, (width - 40) / LETTER);
  const lines = text.split("\n").map((line) => Math.max(1, Math.ceil(line.length / letters)));
  return Math.min(HIGHEST, 12 + LINE * lines.reduce((sum, count) => sum + count, 0));
}

function write(node, text) {
  if (noteOf(node)?.value === text) return; // told while the node ran, and again with its result
  erase(node);
  const box = document.createElement("textarea");
  box.className = "comfy-multiline-input";
  box.readOnly = true;
  const height = heightOf(text, node.size[0]);
  box.style.minHeight = box.style.maxHeight = `${height}px`; // Nodes 2.0 makes it as high as there is room otherwise
  const note = node.addDOMWidget(WIDGET, WIDGET, box, {
    serialize: false, // not an input of the prompt
    getValue: () => box.value,
    setValue: (value) => (box.value = value),
    getMinHeight: () => height,
  });
  note.serialize = false; // nor a value of the workflow
  note.value = text;
  note.before = node.size[1];
  node.setSize([node.size[0], Math.max(note.before, node.computeSize()[1])]);
  note.after = node.size[1];
  if (!node.saysSize) {
    node.saysSize = true;
    const onSerialize = node.onSerialize;
    node.onSerialize = function (data) {
      onSerialize?.apply(this, arguments);
      data.size = [data.size[0], heightWithout(this)]; // a saved node has no text
    };
  }
  node.setDirtyCanvas(true, true);
}

function erase(node) {
  const note = noteOf(node);
  if (!note) return;
  const height = heightWithout(node);
  note.onRemove?.();
  node.widgets.splice(node.widgets.indexOf(note), 1);
  node.setSize([node.size[0], Math.max(height, node.computeSize()[1])]);
  node.setDirtyCanvas(true, true);
}

function say(severity, summary, detail, life) {
  app.extensionManager.toast.add({ severity, summary, detail, life });
}

app.registerExtension({
  name: "fdat-dense-iso.messages",

  setup() {
    api.addEventListener("executing", ({ detail }) => erase(nodeOf(detail)));
    api.addEventListener(NOTE, ({ detail }) => {
      const node = nodeOf(detail.node);
      if (!node) return;
      write(node, detail.text);
      if (String(detail.node).includes(":")) say("info", node.title, detail.text, 10000); // in a closed subgraph
    });
    api.addEventListener("executed", ({ detail }) => {
      const node = nodeOf(detail.display_node ?? detail.node);
      const text = detail.output?.[KEPT]?.join("\n");
      if (node && text) write(node, text);
    });
    api.addEventListener(MESSAGE, ({ detail }) => {
      say("warn", nodeOf(detail.node)?.title ?? "Upscale Video (Tiled)", detail.text);
    });
  },
});
