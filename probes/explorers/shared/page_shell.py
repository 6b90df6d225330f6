"""The HTML around a widget on a page of its own: a header, and a picture and words that stand where scripts do not run.

Scripts are often off: JupyterLab's viewer before "Trust HTML", a strict Content-Security-Policy, previews in mail and
wikis. The page therefore holds a picture of the view. The widget's script (`page.js`) removes it once the view is
ready. If the script fails before that, a second, older and smaller script shows the picture again, with the error.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

_STYLE = """
body { margin: 0 auto; padding: 20px; max-width: 1640px; background: #f6f7f9; color: #1d2126;
  font: 14px/1.5 system-ui, sans-serif; }
.dptx-page-header, .dptx-page-static { margin-bottom: 16px; overflow-wrap: anywhere; }
.dptx-page-header h1 { margin: 0 0 4px; font-size: 20px; line-height: 1.3; }
.dptx-page-header p { margin: 0; }
.dptx-page-header ul { display: flex; flex-wrap: wrap; gap: 0 20px; margin: 0; padding: 0; list-style: none;
  color: #555e69; }
.dptx-page-static img { display: block; max-width: 100%; height: auto; margin-top: 12px; }
.dptx-page-trouble { color: #c5221f; }
@media (max-width: 600px) { body { padding: 10px; } .dptx-page-header h1 { font-size: 18px; } }
@media (max-height: 700px) {
  body { padding-top: 8px; }
  .dptx-page-header { margin-bottom: 8px; }
  .dptx-page-header h1 { font-size: 16px; }
}
@media (prefers-color-scheme: dark) {
  body { background: #0d0f12; color: #e6e9ed; }
  .dptx-page-header ul { color: #9aa4b0; }
  .dptx-page-trouble { color: #ff8a80; }
}
"""

# Every browser understands it. An error of the main script, even one of its syntax, arrives here as an event. Once the
# view is ready, the picture is gone and later errors change nothing. Observers of sizes report an error that is none.
_WATCH = """
(function () {
  function show(words) {
    var picture = document.querySelector("[data-dptx-static]");
    if (!picture || /^ResizeObserver/.test(words)) return;
    var line = picture.querySelector(".dptx-page-trouble"), view = document.querySelector("[data-dptx-view]");
    line.textContent = "The interactive view could not start: " + words;
    line.hidden = picture.hidden = false;
    if (view) view.parentNode.removeChild(view);
  }
  window.addEventListener("error", function (event) { show(String(event.message)); });
  window.addEventListener("unhandledrejection", function (event) {
    show(String((event.reason && event.reason.message) || event.reason));
  });
})();
"""

_SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{shell_style}
{style}
</style>
<script>{watch}</script>
</head>
<body>
<header class="dptx-page-header">
<h1>{title}</h1>
{facts}
</header>
<main>
<div class="dptx-page-static" data-dptx-static>
<p class="dptx-page-trouble" hidden></p>
<p>This is a picture of an interactive view. The view itself needs scripts, which do not run here. Save this page and
open it in a browser. In JupyterLab, press &ldquo;Trust HTML&rdquo; above.</p>
<p data-dptx-older hidden>The view was changed after this picture was drawn, and saved with the changes.</p>
{picture}
</div>
<script type="application/json" data-dptx-page="{name}">{data}</script>
</main>
<script type="module">
{script}
</script>
</body>
</html>
"""


def fill(
    name: str,
    title: str,
    facts: Mapping[str, str],
    picture: bytes | None,
    alt: str,
    *,
    data: str,
    style: str,
    script: str,
) -> str:
    """The source of a page.

    Args:
        name: The widget's folder, e.g. "attention".
        title: The page's title and heading.
        facts: Lines under the heading by what they are about; empty ones are left out.
        picture: A PNG of the view, or None.
        alt: What the picture shows, in words.
        data: What `page.js` reads, as JSON that contains no "<".
        style: The widget's style sheet.
        script: The widget's module.
    """
    mark = {"shows": " data-dptx-shows"}
    items = "".join(f"<li{mark.get(about, '')}>{escape(fact)}</li>" for about, fact in facts.items() if fact)
    image = ""
    if picture is not None:
        encoded = base64.b64encode(picture).decode("ascii")
        image = f'<img src="data:image/png;base64,{encoded}" alt="{escape(alt, quote=True)}">'
    return _SHELL.format(
        policy=escape(_POLICY, quote=True),
        title=escape(title),
        shell_style=_STYLE,
        style=style,
        watch=_WATCH,
        facts=f"<ul>{items}</ul>" if items else "",
        picture=image,
        name=name,
        data=data,
        script=script,
    )
