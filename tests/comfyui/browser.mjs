// Opens a workflow in a running ComfyUI with a real browser, looks for what is wrong with it, and takes a picture.
//
//   node browser.mjs ADDRESS WORKFLOW.json PICTURE.png [--queue] [--size WIDTHxHEIGHT] [--zoom FACTOR]
//                    [--setting NAME=VALUE]... [--help-page NODE_TYPE] [--watch NODE_TYPE] [--save] [--advanced]
//                    [--cancel]
//
// WORKFLOW may be in the graph format or in the API format. --queue runs it and takes the picture after the end.
// --setting sets one of the interface's settings before (Comfy.Locale=ja). --help-page shows the page of a node in the
// picture. --watch counts the different previews that a node shows while it runs, and takes pictures of the first and
// the last one (PICTURE.1.png, PICTURE.2.png); --setting Comfy.Execution.PreviewMethod=auto switches them on. --save
// writes the workflow back as the interface has loaded it: with inputs that its nodes have got since. --setting
// Comfy.VueNodes.Enabled=true draws nodes as Nodes 2.0, whose sizes are those of their contents.
// --advanced shows the inputs that nodes fold. --cancel ends the queued run as soon as a preview shows that it is at
// work; it is then expected to be interrupted.
// Prints a JSON report and exits with 1 when a node is missing, marked as wrong, drawn over another one or over the
// border of a group, the page threw an error, or the run failed. Run it in a folder where `npm install playwright-core` was done; CHROMIUM names the browser
// (default /usr/bin/chromium). `python server.py` starts a host to point it at.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";

const { chromium } = createRequire(`${process.cwd()}/`)("playwright-core");

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    queue: { type: "boolean", default: false },
    size: { type: "string", default: "1600x900" },
    zoom: { type: "string", default: "1" },
    setting: { type: "string", multiple: true, default: [] },
    "help-page": { type: "string" },
    watch: { type: "string" },
    save: { type: "boolean", default: false },
    advanced: { type: "boolean", default: false },
    cancel: { type: "boolean", default: false },
  },
});
const [address, workflowPath, picturePath] = positionals;
const workflow = JSON.parse(readFileSync(workflowPath, "utf8"));
const [width, height] = options.size.split("x").map(Number);
const RUN_MILLISECONDS = 300_000;

await fetch(`${address}/settings`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({
    "Comfy.TutorialCompleted": true,
    "Comfy.Minimap.Visible": false,
    "Comfy.RightSidePanel.IsOpen": false, // a run with --help-page leaves it open
    "Comfy.Workflow.NamedValuesRestore": true,
    ...Object.fromEntries(options.setting.map(parseSetting)),
  }),
});

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const report = { startErrors: [], pageErrors: [], missingNodes: [], markedNodes: [], run: null, previews: 0, sizes: {}, overlaps: [], dialogs: [] };
const previews = new Set();
try {
  const page = await browser.newPage({
    viewport: { width, height },
    deviceScaleFactor: Number(options.zoom),
  });
  page.setDefaultTimeout(RUN_MILLISECONDS);
  let errors = report.startErrors; // the page's own, before it has anything to do with the workflow
  page.on("pageerror", (error) => errors.push(error.stack));
  await page.goto(address);
  await page.waitForFunction(() => window.app?.graph && Object.keys(LiteGraph.registered_node_types).length > 100);
  await page.waitForTimeout(1000);
  errors = report.pageErrors;
  await page.evaluate(async (workflow) => {
    if ("nodes" in workflow) await app.loadGraphData(workflow);
    else await app.loadApiJson(workflow, "workflow");
  }, workflow);
  await page.waitForTimeout(1000);

  report.missingNodes = await page.evaluate(() =>
    app.graph._nodes.filter((node) => !(node.type in LiteGraph.registered_node_types)).map((node) => node.type),
  );
  if (options.save) {
    const graph = await page.evaluate(() => app.graph.serialize());
    const { id, revision, extra } = workflow;
    writeFileSync(workflowPath, JSON.stringify({ ...graph, id, revision, extra }, null, 1) + "\n");
  }
  if (options.advanced) {
    await page.evaluate(() => {
      const buttons = [...document.querySelectorAll("[data-node-id] button")];
      const folded = buttons.filter((button) => button.innerText.includes("Show advanced inputs"));
      for (const button of folded) button.click();
      if (!folded.length) for (const node of app.graph._nodes) node.showAdvanced = true;
      app.graph.setDirtyCanvas(true, true);
    });
    await page.waitForTimeout(500);
  }
  if (options.queue && report.missingNodes.length === 0) report.run = await runToEnd(page);

  await page.waitForTimeout(1500); // let pictures and messages appear
  const details = page.getByRole("button", { name: "View details" });
  if (await details.isVisible()) await details.click();
  await page.waitForTimeout(500);
  await fitView(page);
  if (options["help-page"]) await openHelp(page, options["help-page"]);
  Object.assign(
    report,
    await page.evaluate(() => ({
      markedNodes: app.graph._nodes
        .filter((node) => node.has_errors || String(node.id) === String(app.lastExecutionError?.node_id))
        .map((node) => `${node.id} ${node.title}`),
      dialogs: [...document.querySelectorAll('[role="dialog"], [role="alert"]')].map((box) => box.innerText),
    })),
  );
  Object.assign(report, await page.evaluate(drawnSizes));
  await page.screenshot({ path: picturePath });
} finally {
  await browser.close();
}
console.log(JSON.stringify(report, null, 1));
const wanted = options.cancel ? report.run?.interrupted : report.run?.status === "success";
const failed = options.queue && !wanted;
process.exitCode = failed || report.pageErrors.length || report.missingNodes.length || report.markedNodes.length || report.overlaps.length
  ? 1
  : 0;

function parseSetting(setting) {
  const [name, text] = setting.split("=", 2);
  return [name, /^(\d+|true|false)$/.test(text) ? JSON.parse(text) : text];
}

async function fitView(page) {
  await page.evaluate(() => app.extensionManager.command.execute("Comfy.Canvas.FitView"));
  await page.waitForTimeout(500);
}

// Runs in the page. The size of every node as it is drawn, title and buttons included, and which of them cover others.
function drawnSizes() {
  const title = LiteGraph.NODE_TITLE_HEIGHT;
  const boxes = app.graph._nodes.map((node) => {
    const element = document.querySelector(`[data-node-id="${node.id}"]`);
    const [x, y] = node.pos;
    const width = element ? element.offsetWidth : node.size[0];
    const height = element ? element.offsetHeight : node.size[1] + title;
    return { name: `${node.id} ${node.title}`, left: x, top: y - title, right: x + width, bottom: y - title + height };
  });
  const groups = app.graph._groups.map((group) => {
    const [left, top, width, height] = group.bounding ?? [...group.pos, ...group.size];
    return { name: `group ${group.title}`, left, top, right: left + width, bottom: top + height };
  });
  const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const holds = (a, b) => a.left <= b.left && a.top <= b.top && b.right <= a.right && b.bottom <= a.bottom;
  const overlaps = boxes.flatMap((box, index) => [
    ...boxes.slice(index + 1).filter((other) => meet(box, other)),
    ...groups.filter((group) => meet(box, group) && !holds(group, box)),
  ].map((other) => `${box.name} / ${other.name}`));
  const sizes = boxes.map((box) => [box.name, [box.right - box.left, box.bottom - box.top].map(Math.round)]);
  return { overlaps, sizes: Object.fromEntries(sizes) };
}

async function openHelp(page, type) {
  await page.evaluate((type) => app.canvas.selectItems(app.graph._nodes.filter((node) => node.type === type)), type);
  await page.getByTestId("info-button").click();
  await page.waitForTimeout(2000);
}

async function watchPreviews(page, type) {
  const source = await page.evaluate((type) => {
    const node = app.graph._nodes.find((node) => node.type === type);
    return app.nodePreviewImages?.[node.id]?.[0] ?? node.imgs?.[0]?.src;
  }, type);
  if (!source || previews.has(source)) return;
  report.previews = previews.add(source).size;
  await page.waitForTimeout(100); // until it is drawn
  await page.screenshot({ path: `${picturePath}.${report.previews === 1 ? 1 : 2}.png` });
}

async function runToEnd(page) {
  if (options.watch) await fitView(page);
  const answered = page.waitForResponse(
    (response) => response.url().endsWith("/prompt") && response.request().method() === "POST",
  );
  await page.evaluate(() => app.queuePrompt(0));
  const answer = await (await answered).json();
  if (!answer.prompt_id) return { status: "refused", error: JSON.stringify(answer.node_errors) };
  const deadline = Date.now() + RUN_MILLISECONDS;
  while (Date.now() < deadline) {
    const entry = (await (await fetch(`${address}/history/${answer.prompt_id}`)).json())[answer.prompt_id];
    if (entry) {
      const { status_str: status, messages } = entry.status;
      const told = Object.fromEntries(messages);
      return {
        status,
        error: told.execution_error?.exception_message,
        interrupted: "execution_interrupted" in told,
      };
    }
    if (options.watch) await watchPreviews(page, options.watch);
    if (options.cancel && report.previews >= 2) await fetch(`${address}/interrupt`, { method: "POST" });
    await page.waitForTimeout(options.watch ? 50 : 250);
  }
  return { status: "timed out" };
}
