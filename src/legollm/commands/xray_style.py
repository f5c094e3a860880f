"""How the page of an XRay looks, and the script that lets a reader follow one head through the text."""

STYLE = """
body { padding-bottom: 6rem; } h1, p, li, .cut, .tip { overflow-wrap: anywhere; } th { white-space: nowrap; }
.cut { font: 15px/2 ui-monospace, monospace; white-space: pre-wrap; }
.tok { border-radius: 3px; padding: .15rem 0; background: rgb(209 85 43 / calc(.7 * var(--s, 0))); cursor: default; }
.tok + .tok { margin-left: 1px; }
.cell { background: rgb(31 111 235 / calc(.55 * var(--s, 0))); }
.way { background: hsl(var(--h) 70% 50% / calc(.1 + .4 * var(--s))); text-align: center; }
.hit { text-decoration: underline; font-weight: 600; }
.tip { display: none; position: fixed; left: 0; right: 0; bottom: 0; z-index: 1; padding: .6rem 1rem; font: 15px/1.5
  system-ui, sans-serif; white-space: normal; text-align: left; background: var(--box); color: var(--text);
  border-top: 2px solid var(--quiet); }
:focus > .tip { display: block; } :hover > .tip { display: block; z-index: 2; }
:focus { outline: 2px solid var(--text); outline-offset: 1px; }
.grid td, .grid th { font: 13px/1.4 ui-monospace, monospace; white-space: pre; padding: .15rem .35rem; }
.grid th { position: sticky; left: 0; background: var(--page); z-index: 1; font-weight: 400; color: var(--quiet); }
.maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(4.2rem, 1fr)); gap: .5rem; }
.map { scroll-margin-top: 14rem; font-size: .8rem; color: var(--quiet); cursor: zoom-in; }
.map img { display: block; width: 100%; border: 1px solid var(--line); image-rendering: pixelated; }
.map:focus { grid-column: 1 / -1; cursor: default; } .map:focus img { max-width: 36rem; }
#follow { position: sticky; top: 0; z-index: 1; max-height: 45vh; overflow-y: auto; background: var(--page);
  border-bottom: 1px solid var(--line); padding-bottom: .5rem; } #follow p { margin: .5rem 0; }
#follow .tok { background: rgb(31 111 235 / calc(.7 * var(--s, 0))); cursor: pointer; }
#follow .from { outline: 2px dashed var(--text); }
.bar { display: inline-block; height: .7rem; background: #1f6feb; margin-right: .5rem; min-width: 1px; }
.bars { width: 9rem; min-width: 9rem; white-space: nowrap; }
summary { cursor: pointer; padding: .3rem 0; } h3 { font-size: 1rem; }
.key { display: inline-block; width: 8rem; height: .8rem; vertical-align: middle; border: 1px solid var(--line); }
@media (prefers-color-scheme: dark) { .map img { filter: brightness(1.35); } .bar { background: #58a6ff; } }
"""
"""Beside the style of all reports."""

SCRIPT = """
const maps = [...document.querySelectorAll(".map")], panel = document.getElementById("follow");
if (panel) {
  const said = document.createElement("p"), text = document.querySelector(".cut").cloneNode(true);
  for (const tip of text.querySelectorAll(".tip")) tip.remove();
  const tokens = [...text.querySelectorAll(".tok")], names = tokens.map(token => "'" + token.textContent + "'");
  let weights = [], head = maps[Number(panel.dataset.first)], from = tokens.length - 1;
  said.setAttribute("aria-live", "polite");
  panel.append(said, text);
  panel.hidden = false;

  function show() {  // the pictures hold the weights: their opacity is the square root, from 0 to 255
    const row = weights.slice(from * tokens.length, (from + 1) * tokens.length);
    tokens.forEach((token, i) => {
      token.style.setProperty("--s", Math.sqrt(row[i]));
      token.classList.toggle("from", i === from);
    });
    const most = [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, 3);
    const found = most.map(i => names[i] + " (" + i + ") " + (100 * row[i]).toFixed(0) + "%").join(", ");
    said.textContent = head.dataset.name + ", from token " + from + " " + names[from] + ": most on " + found +
      ". Tap a token to look from there, a map to look through its head.";
  }

  async function read() {
    const image = head.querySelector("img"), canvas = document.createElement("canvas");
    await image.decode();
    canvas.width = canvas.height = tokens.length;
    const paper = canvas.getContext("2d");
    paper.drawImage(image, 0, 0);
    const pixels = paper.getImageData(0, 0, tokens.length, tokens.length).data;
    weights = Array.from({ length: pixels.length / 4 }, (_, i) => (pixels[4 * i + 3] / 255) ** 2);
    show();
  }

  tokens.forEach((token, i) => token.addEventListener("focus", () => { from = i; show(); }));
  maps.forEach(map => map.addEventListener("focus", () => { head = map; read(); }));
  read();
}
"""
"""Without it the page says the same in its maps and tables."""
