// Opens a workflow in a running ComfyUI with a real browser, looks for what is wrong with it, and takes a picture.
//
//   node browser.mjs ADDRESS WORKFLOW.json PICTURE.png [--queue] [--size WIDTHxHEIGHT] [--zoom FACTOR]
//
// WORKFLOW may be in the graph format or in the API format. --queue runs it and takes the picture after the end.
// Prints a JSON report and exits with 1 when a node is missing or marked as wrong, the page threw an error, or the
// run failed. Run it in a folder where `npm install playwright-core` was done; CHROMIUM names the browser
// (default /usr/bin/chromium). `python server.py` starts a host to point it at.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";

const { chromium } = createRequire(`${process.cwd()}/`)("playwright-core");

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    queue: { type: "boolean", default: false },
    size: { type: "string", default: "1600x900" },
    zoom: { type: "string", default: "1" },
  },
});
const [address, workflowPath, picturePath] = positionals;
const workflow = JSON.parse(readFileSync(workflowPath, "utf8"));
const [width, height] = options.size.split("x").map(Number);
const RUN_MILLISECONDS = 300_000;

await fetch(`${address}/settings`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ "Comfy.TutorialCompleted": true, "Comfy.Minimap.Visible": false }),
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
const report = { startErrors: [], pageErrors: [], missingNodes: [], markedNodes: [], run: null, dialogs: [] };
try {
  const page = await browser.newPage({
    viewport: { width, height },
    deviceScaleFactor: Number(options.zoom),
  });
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
  if (options.queue && report.missingNodes.length === 0) report.run = await runToEnd(page);

  await page.waitForTimeout(1500); // let pictures and messages appear
  const details = page.getByRole("button", { name: "View details" });
  if (await details.isVisible()) await details.click();
  await page.waitForTimeout(500);
  await page.evaluate(() => app.extensionManager.command.execute("Comfy.Canvas.FitView"));
  await page.waitForTimeout(500);
  Object.assign(
    report,
    await page.evaluate(() => ({
      markedNodes: app.graph._nodes
        .filter((node) => node.has_errors || String(node.id) === String(app.lastExecutionError?.node_id))
        .map((node) => `${node.id} ${node.title}`),
      dialogs: [...document.querySelectorAll('[role="dialog"], [role="alert"]')].map((box) => box.innerText),
    })),
  );
  await page.screenshot({ path: picturePath });
} finally {
  await browser.close();
}
console.log(JSON.stringify(report, null, 1));
const failed = options.queue && report.run?.status !== "success";
process.exitCode = failed || report.pageErrors.length || report.missingNodes.length || report.markedNodes.length ? 1 : 0;

async function runToEnd(page) {
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
      return { status, error: messages.find(([name]) => name === "execution_error")?.[1].exception_message };
    }
    await page.waitForTimeout(250);
  }
  return { status: "timed out" };
}
