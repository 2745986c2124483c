// Opens pages in headless Chromium, and says what is wrong with them:
//
//     node check.mjs OUT PAGE...
//
// PAGE is an HTML file, or a Markdown file of the guide, which is rendered first. Each is opened on a
// phone and on a desk, in the light and in the dark, and on paper. Screenshots and PDFs are left in OUT.
// Exit code 1 says that something was found.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { marked } from "marked";
import puppeteer from "puppeteer-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SCREENS = [390, 1280].flatMap((width) => ["light", "dark"].map((scheme) => ({ width, scheme })));
/** A4 less the page's margins of 1.5 cm, in CSS pixels. */
const PAPER = 681;
/** A screenshot is no higher, in CSS pixels. */
const HIGHEST = 6000;

const [out, ...files] = process.argv.slice(2);
if (files.length === 0) {
  console.error("node check.mjs OUT PAGE...: give a directory for screenshots and at least one page");
  process.exit(2);
}
mkdirSync(out, { recursive: true });

let findings = 0;
function found(page, where, what) {
  findings += 1;
  console.log(`${page}: ${where}: ${what}`);
}

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu"],
});
for (const file of files) {
  const source = resolve(file);
  const name = relative(process.cwd(), source);
  const html = source.endsWith(".md") ? rendered(source) : source;
  const short = name.replace(/\.(html|md)$/, "").replace(/\W+/g, "-").replace(/^-/, "");
  await withoutScript(name, html);
  for (const screen of SCREENS) await onScreen(name, html, short, screen);
  await onPaper(name, html, short);
  links(name, source, html);
}
await browser.close();
console.log(`${files.length} pages, ${findings} findings; screenshots in ${out}`);
process.exit(findings > 0 ? 1 : 0);

/** A page of the guide as HTML. Its links count from where the Markdown lies. */
function rendered(source) {
  const slug = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}_ -]/gu, "").replaceAll(" ", "-");
  const renderer = {
    heading({ tokens, depth }) {
      const plain = this.parser.parseInline(tokens).replace(/<[^>]*>/g, "");
      return `<h${depth} id="${slug(plain)}">${this.parser.parseInline(tokens)}</h${depth}>\n`;
    },
  };
  const body = marked.use({ renderer }).parse(readFileSync(source, "utf8"))
    .replaceAll("<pre>", '<pre tabindex="0">')
    .replaceAll("<table>", '<div class="wide" tabindex="0"><table>').replaceAll("</table>", "</table></div>");
  const style = `:root { color-scheme: light dark } body { font: 17px/1.5 serif; max-width: 50rem; margin: 1rem auto; padding: 0 1rem }
    h1, h2, p, li { overflow-wrap: anywhere } td code { overflow-wrap: normal } @media print { th, td, td code { overflow-wrap: anywhere } }
    pre, .wide { overflow-x: auto } @media print { pre { white-space: pre-wrap } .wide { overflow: visible; font-size: .6em } } img { max-width: 100%; height: auto } code { overflow-wrap: anywhere }
    html { color: light-dark(#1f1d1a, #e6e2d9); background: light-dark(#fbfaf6, #16181a) }
    a { color: light-dark(#175676, #7fbbdc) }`;
  const title = body.match(/<h1[^>]*>(.*?)<\/h1>/)?.[1].replace(/<[^>]*>/g, "") ?? basename(source);
  const page = `<!doctype html><html lang="en"><head><meta charset="utf-8"><base href="${pathToFileURL(dirname(source))}/">
    <meta name="viewport" content="width=device-width, initial-scale=1"><title>${title}</title><style>${style}</style></head>
    <body><main>${body}</main></body></html>`;
  const made = join(resolve(out), "guide", relative(process.cwd(), source).replaceAll("/", "-") + ".html");
  mkdirSync(dirname(made), { recursive: true });
  writeFileSync(made, page);
  return made;
}

/** What is there to read where scripts are off. */
async function withoutScript(name, html) {
  const page = await browser.newPage();
  await page.setJavaScriptEnabled(false);
  await page.goto(pathToFileURL(html).href);
  const read = await page.$eval("body", (body) => [body.innerText.length, body.querySelectorAll("h1").length]);
  if (read[0] < 100) found(name, "without script", `only ${read[0]} letters to read`);
  if (read[1] !== 1) found(name, "without script", `${read[1]} first headings, not one`);
  await page.close();
}

async function onScreen(name, html, short, { width, scheme }) {
  const page = await browser.newPage();
  const where = `${width} px, ${scheme}`;
  page.on("request", (request) => {
    if (!/^(file|data):/.test(request.url())) found(name, where, `asks for ${request.url()}`);
  });
  page.on("requestfailed", (request) => found(name, where, `cannot load ${request.url()}`));
  await page.setViewport({ width, height: 844 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(pathToFileURL(html).href);
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  const clip = { x: 0, y: 0, width, height: Math.min(height, HIGHEST) };
  await page.screenshot({ path: join(out, `${short}-${width}-${scheme}.png`), clip });
  await page.$$eval("details", (all) => all.forEach((one) => (one.open = true)));
  for (const what of await page.evaluate(sideways)) found(name, where, what);
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run({ resultTypes: ["violations"] }));
  for (const { id, impact, help, nodes } of violations) {
    const text = `${impact}: ${id}: ${help}: ${nodes.map((node) => node.target).slice(0, 3).join(" | ")}`;
    if (["serious", "critical"].includes(impact)) found(name, where, `${text} (${nodes.length})`);
    else console.log(`(${name}: ${where}: ${text})`);
  }
  await page.close();
}

async function onPaper(name, html, short) {
  const page = await browser.newPage();
  await page.emulateMediaType("print");
  await page.setViewport({ width: PAPER, height: 1000 });
  await page.goto(pathToFileURL(html).href);
  for (const what of await page.evaluate(sideways)) found(name, "on paper", what);
  for (const what of await page.evaluate(cut)) found(name, "on paper", what);
  await page.pdf({ path: join(out, `${short}.pdf`), format: "a4", preferCSSPageSize: true });
  await page.close();
}

/** Runs in the page: whether it scrolls sideways, and what is too wide. */
function sideways() {
  const { scrollWidth, clientWidth } = document.documentElement;
  if (scrollWidth <= clientWidth) return [];
  const scrolls = (element) =>
    element && (getComputedStyle(element).overflowX !== "visible" || scrolls(element.parentElement));
  const right = (one) => {
    const all = document.createRange();
    all.selectNodeContents(one);
    return Math.max(one.getBoundingClientRect().right, all.getBoundingClientRect().right);
  };
  const wide = [...document.body.querySelectorAll("*")]
    .filter((one) => right(one) > clientWidth + 0.5 && !scrolls(one))
    .map((one) => `${one.tagName.toLowerCase()}.${one.className.baseVal ?? one.className}`);
  return [`${scrollWidth} px wide: ${[...new Set(wide)].slice(-3).join(", ")}`];
}

/** Runs in the page: what paper cuts off, since nobody can scroll it. */
function cut() {
  return [...document.body.querySelectorAll("*")]
    .filter((one) => getComputedStyle(one).overflowX !== "visible" && one.scrollWidth > one.clientWidth + 1)
    .map((one) => `${one.tagName.toLowerCase()}.${one.className} is cut off at ${one.clientWidth} of ${one.scrollWidth} px`);
}

/** Links to files, and to places in them. */
function links(name, source, html) {
  const text = readFileSync(html, "utf8");
  const base = pathToFileURL(source);
  for (const [, target] of text.matchAll(/\b(?:href|src|srcset)="([^"]+)"/g)) {
    const url = new URL(target.replaceAll("&amp;", "&"), base);
    if (url.protocol !== "file:") continue;
    const fragment = decodeURIComponent(url.hash.slice(1));
    url.hash = "";
    const path = fileURLToPath(url);
    if (!existsSync(path)) found(name, "links", `${target} is not there`);
    else if (fragment && path === source && !text.includes(`id="${fragment}"`)) {
      found(name, "links", `nothing in the page is called #${fragment}`);
    }
  }
}
