"""Pages of ``alexsim report`` and ``check validate`` in a real browser.

``python tests/browser_check.py a.html b.html``

Opens each page in headless Chromium with the network off, in both colour schemes, on a desktop, on
phones and for print, and fails if a page takes 2 s to draw, asks for anything, raises an error, is
wider than its window, has letters under 11 pixels, or a figure that is empty, has the other
scheme's colours, says nothing where the mouse is, cannot be filtered or zoomed. ``--shots DIR``
keeps the pictures. It speaks the DevTools protocol over two pipes: nothing but the standard library
and the browser is needed.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DRAWN_WITHIN_S = 2.0
LEAST_LETTER_PX = 11.0
WINDOWS = {"desktop": 1280, "phone": 360, "narrow": 320}

# The smallest letters of any figure, on the screen: their size times how far it is scaled.
LETTERS = """Math.min(...[...document.querySelectorAll(".plot svg text")]
  .filter((text) => text.textContent && text.getBBox().width).map((text) => {
    const { a, b } = text.getScreenCTM();
    return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b);
  }).filter((size) => size))"""
# Every figure, once it has been drawn: what is amiss with it.
FIGURES = """(async () => {
  const amiss = [];
  const places = [...document.querySelectorAll(".plot")];
  for (let tries = 0; places.some((p) => !("drawn" in p.dataset)) && tries < 100; tries++) {
    await new Promise((done) => setTimeout(done, 50));
  }
  for (const place of places) {
    if (!("drawn" in place.dataset)) { amiss.push(`${place.id} is not drawn`); continue; }
    const ground = getComputedStyle(document.body).backgroundColor;
    const paper = place.querySelector(".main-svg").style.background;
    if (paper !== ground) amiss.push(`${place.id} stands on ${paper}, the page on ${ground}`);
    const marks = place.querySelectorAll(".point path, path.point, .js-line, .js-fill, .gl-canvas");
    if (!marks.length) amiss.push(`${place.id} shows no mark`);
    const height = place.querySelector(".nsewdrag").getBBox().height;
    if (height < 30) amiss.push(`${place.id} has a plot of ${height} pixels`);
    if (place.getBoundingClientRect().right > innerWidth) amiss.push(`${place.id} is cut`);
  }
  const place = document.querySelector(
    "#plot-layers-predicted, #plot-layers-side-by-side, #plot-residuals");
  const bars = () => place.querySelectorAll(".barlayer .point path").length;
  const before = bars();
  Plotly.Fx.hover(place, [{ curveNumber: 0, pointNumber: 0 }]);
  if (!place.querySelector(".hoverlayer .hovertext")) amiss.push("nothing is said on hovering");
  Plotly.Fx.unhover(place);
  await Plotly.restyle(place, { visible: "legendonly" }, [0]);
  if (bars() >= before) amiss.push("the legend does not filter");
  await Plotly.restyle(place, { visible: true }, [0]);
  const buttons = [...place.querySelectorAll(".modebar-btn")].map((b) => b.dataset.title ?? "");
  if (buttons.some((title) => /cloud|share|edit/i.test(title))) amiss.push(`buttons: ${buttons}`);
  for (const wanted of ["Zoom in", "Reset axes"]) {
    if (!buttons.includes(wanted)) amiss.push(`no button ${wanted}`);
  }
  return amiss;
})()"""
# Zooms a figure, and whether it still is after the window changed.
ZOOMED = """(async () => {
  const place = document.querySelector(
    "#plot-layers-predicted, #plot-layers-side-by-side, #plot-residuals");
  place.querySelector('[data-title="Zoom in"]').click();
  await new Promise((done) => setTimeout(done, 500));
  window.zoomed = place._fullLayout.xaxis.range[1];
  return true;
})()"""
KEPT = """(() => {
  const place = document.querySelector(
    "#plot-layers-predicted, #plot-layers-side-by-side, #plot-residuals");
  const { width, xaxis } = place._fullLayout;
  const amiss = [];
  if (Math.abs(xaxis.range[1] / window.zoomed - 1) > 1e-6) amiss.push("the zoom is lost");
  if (width > 700) amiss.push(`a figure is ${width} pixels wide`);
  return amiss;
})()"""
# Sorts the first sortable table by its last column, and reads it back.
SORTED = """(() => {
  const table = document.querySelector("table[data-sortable]");
  const head = [...table.tHead.rows[0].cells].at(-1);
  head.querySelector("button").click();
  const column = head.cellIndex;
  const values = [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.sort)
    .filter((value) => value !== undefined).map(Number);
  return [head.getAttribute("aria-sort"), values];
})()"""
# Two frames after loading, every figure in the window has been drawn: how many have not.
DRAWN = """new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(
  () => setTimeout(() => done([...document.querySelectorAll(".plot")].filter((place) =>
    place.getBoundingClientRect().top < innerHeight && !("drawn" in place.dataset)).length)))))"""


class Browser:
    """Chromium, one page, and every event it sent."""

    def __init__(self, binary: str, profile: str) -> None:
        reads, self._commands = os.pipe()
        self._answers, writes = os.pipe()
        arguments = [
            binary, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        # Chromium takes commands from descriptor 3 and answers on 4.
        shell = f'exec "$@" 3<&{reads} 4>&{writes}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *arguments],
            pass_fds=(reads, writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(reads)
        os.close(writes)
        self.events: list[dict[str, Any]] = []
        self._count, self._buffer, self._session = 0, b"", ""
        page = next(
            one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"
        )
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._count += 1
        command = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._count:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                answer: dict[str, Any] = message["result"]
                return answer
            self.events.append(message)

    def wait(self, event: str) -> None:
        """Until the browser has sent an event since the last ``events.clear()``."""
        while not any(one.get("method") == event for one in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"]["value"]

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = os.read(self._answers, 1 << 20)
            if not piece:
                raise RuntimeError("the browser went away")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


def check(browser: Browser, page: Path, shots: Path | None) -> list[str]:
    """What is wrong with a page."""
    wrong = []
    for domain in ("Page", "Network", "Runtime"):
        browser.call(f"{domain}.enable")
    browser.call(
        "Network.emulateNetworkConditions",
        offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1,
    )  # fmt: skip
    for window, width in WINDOWS.items():
        for scheme in ("light", "dark"):
            where = f"{page.name}, {window}, {scheme}"
            drawn_s = _open(browser, page, width, scheme)
            print(f"{where}: drawn in {drawn_s:.2f} s")
            if drawn_s > DRAWN_WITHIN_S:
                wrong.append(f"{where}: took {drawn_s:.2f} s to draw")
            wide = browser.value("document.documentElement.scrollWidth")
            if wide > width:
                wrong.append(f"{where}: is {wide} pixels wide")
            _unroll(browser, width)
            wrong += [f"{where}: {what}" for what in browser.value(FIGURES)]
            letters = browser.value(LETTERS)
            if letters < LEAST_LETTER_PX:
                wrong.append(f"{where}: has letters of {letters:.1f} pixels")
            wrong += [f"{where}: {what}" for what in _misdeeds(browser, page)]
            if shots is not None:
                _shoot(browser, shots / f"{page.stem}-{window}-{scheme}.png")
    _open(browser, page, WINDOWS["desktop"], "light")
    _unroll(browser, WINDOWS["desktop"])
    browser.value(ZOOMED)
    _unroll(browser, 700)
    resized = [*browser.value(FIGURES), *browser.value(KEPT)]
    wrong += [f"{page.name}, made narrower: {what}" for what in resized]
    order, values = browser.value(SORTED)
    if order != "descending" or values != sorted(values, reverse=True) or len(values) < 2:
        wrong.append(f"{page.name}: a heading does not sort")
    if shots is not None:
        printed = browser.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        (shots / f"{page.stem}.pdf").write_bytes(base64.b64decode(printed["data"]))
    return wrong


def _open(browser: Browser, page: Path, width: int, scheme: str) -> float:
    """Show a page; seconds until it was drawn, from the command on."""
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
    )  # fmt: skip
    browser.call(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-color-scheme", "value": scheme}],
    )
    browser.call("Page.navigate", url="about:blank")
    browser.events.clear()
    began = time.monotonic()
    browser.call("Page.navigate", url=page.resolve().as_uri())
    browser.wait("Page.loadEventFired")
    while browser.value(DRAWN):
        pass
    return time.monotonic() - began


def _unroll(browser: Browser, width: int) -> None:
    """A window as high as the page: figures are drawn when they are nearly in view."""
    settled = "new Promise((done) => setTimeout(() => done(0), 300))"
    height = browser.value("document.documentElement.scrollHeight")
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
    )  # fmt: skip
    browser.value(settled)


def _misdeeds(browser: Browser, page: Path) -> list[str]:
    """Requests for anything but the page, and errors."""
    found = []
    for event in browser.events:
        given = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            url = given["request"]["url"]
            if url != page.resolve().as_uri() and not url.startswith("data:"):
                found.append(f"asks for {url}")
        elif event.get("method") == "Runtime.exceptionThrown":
            found.append(f"error: {given['exceptionDetails']['text']}")
    return found


def _shoot(browser: Browser, target: Path) -> None:
    width, height = browser.value(
        "[document.documentElement.clientWidth, document.documentElement.scrollHeight]"
    )
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    target.write_bytes(base64.b64decode(shot["data"]))


def main() -> int:
    """0 if every page is right, 1 if one is not, 2 without a browser."""
    parser = argparse.ArgumentParser(description="Check pages in headless Chromium.")
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--shots", type=Path, help="keep pictures and PDFs in this folder")
    given = parser.parse_args()
    binary = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
    )
    if not binary:
        print("no chromium on PATH", file=sys.stderr)
        return 2
    if given.shots is not None:
        given.shots.mkdir(parents=True, exist_ok=True)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(binary, profile)
        try:
            for page in given.pages:
                wrong += check(browser, page, given.shots)
        finally:
            browser.close()
    for what in wrong:
        print(what, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
