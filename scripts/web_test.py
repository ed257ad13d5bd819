#!/usr/bin/env python3
"""Clicks through examples/web in headless Chromium on its software WebGPU, as a visitor would, and checks what happens.

    scripts/web_test.py SITE [--native FILE] [--shots FOLDER]

FILE has what `cargo run --example web` printed. Exits 0 if and only if everything holds.
"""

import argparse
import base64
import functools
import gzip
import http.server
import json
import os
import struct
import sys
import tempfile
import threading
import time
import urllib.parse

import browser

# Losses of the page and of the native program come from different kernels on different drivers: sums run in other
# orders, a few units in the last place (6e-8) apart, and each step of training magnifies what the one before left.
LOSS_TOLERANCE = 2e-5


def check(holds, what):
    if not holds:
        raise AssertionError(what)


class Page:
    """A tab, driven by what a visitor has (mouse, keyboard, reload) and looked at through `wengertTest`."""

    def __init__(self, driver, address):
        self.driver, self.address = driver, address
        targets = driver.call("Target.getTargets")["targetInfos"]
        target = next(t for t in targets if t["type"] == "page")["targetId"]
        self.session = driver.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.size(1280, 900)

    def call(self, method, **params):
        return self.driver.call(method, self.session, **params)

    def size(self, width, height, scheme="light"):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setScrollbarsHidden", hidden=True)  # a picture would lack their width
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def value(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails'].get('exception', {}).get('description')}")
        return answer["result"].get("value")

    def open(self, settings=None):
        query = "?test" + (f"&settings={urllib.parse.quote(json.dumps(settings))}" if settings else "")
        self.call("Page.navigate", url=self.address + query)
        self.wait_for("ready")

    def reload(self):
        self.value("globalThis.wengertTest.old = true")
        self.call("Page.reload")
        self.until("globalThis.wengertTest && !wengertTest.old", 20)
        self.wait_for("ready")

    def until(self, expression, seconds):
        deadline = time.monotonic() + seconds
        while True:
            value = self.value(expression)
            if value:
                return value
            if time.monotonic() > deadline:
                text = self.value("document.getElementById('trouble')?.innerText + ' | ' + document.getElementById('state')?.innerText")
                raise AssertionError(f"waited {seconds} s for {expression}; the page says: {text}")
            time.sleep(0.05)

    def wait_for(self, state, seconds=60):
        self.until(f"document.getElementById('state')?.textContent === {json.dumps(state)}", seconds)

    def event(self, kind, seconds=60, since=0):
        """The first event of a kind after so many of that kind."""
        return self.until(f"wengertTest.events.filter(event => event.kind === {json.dumps(kind)})[{since}]", seconds)

    def count(self, kind):
        return self.value(f"wengertTest.events.filter(event => event.kind === {json.dumps(kind)}).length")

    def text(self, element):
        return self.value(f"document.getElementById({json.dumps(element)}).textContent")

    def place(self, element):
        return self.value(
            f"(() => {{ const e = document.getElementById({json.dumps(element)}); e.scrollIntoView({{block: 'center'}});"
            " const {left, top, width, height} = e.getBoundingClientRect(); return [left, top, width, height]; })()")

    def mouse(self, kind, x, y):
        down = kind != "mouseReleased"
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=int(down), clickCount=1)

    def click(self, element):
        self.until(f"!document.getElementById({json.dumps(element)}).disabled", 30)
        left, top, width, height = self.place(element)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, left + width / 2, top + height / 2)

    def fill(self, element, text):
        self.click(element)
        self.value("document.activeElement.select()")
        self.call("Input.insertText", text=text)

    def stroke(self, points):
        left, top, width, height = self.place("pad")
        at = [(left + x * width, top + y * height) for x, y in points]
        self.mouse("mousePressed", *at[0])
        for x, y in at[1:]:
            self.mouse("mouseMoved", x, y)
        self.mouse("mouseReleased", *at[-1])

    def send(self, *message):
        self.value(f"wengertTest.send(...{json.dumps(message)})")

    def shot(self, file):
        time.sleep(0.3)  # the pictures of charts are drawn in the next frame
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        with open(file, "wb") as out:
            out.write(base64.b64decode(picture))

    def worker_heap(self):
        """Bytes that live on the heap of the worker's scripts."""
        self.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)
        attached = [event["params"] for event in self.driver.events if event["method"] == "Target.attachedToTarget"]
        worker = [event["sessionId"] for event in attached if event["targetInfo"]["type"] == "worker"][-1]
        self.driver.call("HeapProfiler.collectGarbage", worker)
        used = self.driver.call("Runtime.getHeapUsage", worker)["usedSize"]
        self.call("Target.setAutoAttach", autoAttach=False, waitForDebuggerOnStart=False, flatten=True)
        return used

    def save(self):
        """Saves by the button: the step and the fingerprint of the weights."""
        before = self.count("saved")
        self.click("save")
        saved = self.event("saved", since=before)
        self.until(f"document.getElementById('kept').textContent.includes('at step {saved['step']:,}')", 10)
        return saved["step"], saved["weights"]

    def pause_at(self, step):
        before = self.count("paused")
        self.send("pauseAt", step)
        if self.text("pause") == "Resume":
            self.click("pause")
        else:
            self.click("start")
        self.event("paused", since=before, seconds=90)


def first_steps(page, native):
    """The numbers of the first 20 steps are the native program's."""
    lines = [line.split() for line in open(native)]
    theirs = {line[0]: line[1] for line in lines if line[0] in ("random", "weights")}
    check(page.event("device")["random"] == theirs["random"], "random numbers differ from the native program's")
    check(page.event("begin")["weights"] == theirs["weights"], "first weights differ from the native program's")
    page.until("wengertTest.events.filter(event => event.kind === 'step').length >= 20", 60)
    steps = page.value("wengertTest.events.filter(event => event.kind === 'step').slice(0, 20)")
    worst = 0.0
    for line, event in zip([line for line in lines if line[0] == "step"], steps, strict=True):
        numbers = dict(zip(line[2::2], map(float, line[3::2])))
        check(int(line[1]) == event["step"], f"step {event['step']} was reported where {line[1]} was expected")
        for name in ("loss", "batch_loss"):
            ours = event["batchLoss" if name == "batch_loss" else name]
            worst = max(worst, abs(ours - numbers[name]) / numbers[name])
    check(worst <= LOSS_TOLERANCE, f"losses of the first 20 steps differ by {worst:.1e} from the native program's")
    return f"random numbers and first weights equal in every bit, losses within {worst:.1e}"


def training(page, options):
    page.open()
    page.fill("epochs", "2")
    page.click("start")
    if options.native:
        print(f"first 20 steps: {first_steps(page, options.native)}", flush=True)
    page.stroke([(0.5, 0.15), (0.5, 0.35), (0.5, 0.6), (0.5, 0.85)])
    first = page.event("prediction")["probabilities"]

    # A pause stops progress, and resuming takes it up.
    page.click("pause")
    page.wait_for("paused")
    step = page.value("wengertTest.seen.step?.step")
    time.sleep(1.0)
    check(page.value("wengertTest.seen.step?.step") == step, "steps were taken during a pause")
    predictions = page.count("prediction")
    page.stroke([(0.4, 0.25), (0.5, 0.15)])
    page.event("prediction", since=predictions, seconds=10)  # it answers while paused, too
    page.click("pause")
    page.until(f"wengertTest.seen.step?.step > {step}", 30)

    page.wait_for("done", 120)
    score = page.event("epoch", since=page.count("epoch") - 1)["testAccuracy"]
    check(score > 0.95, f"the test accuracy is {score}")
    page.until("document.getElementById('guess').textContent.startsWith('Probably a 1')", 10)
    last = page.value("wengertTest.seen.prediction.probabilities")
    check(first != last, "the prediction did not change while it trained")
    keyboard(page)
    long = page.value("wengertTest.long")
    check(not long, f"tasks of the page's own thread took over 50 ms: {long}")
    print(f"trained to {score:.3f}; paused and resumed; the drawing is read as a 1; no task over 50 ms", flush=True)
    download(page)
    if options.shots:
        for name, width, height, scheme in (("wide-light", 1280, 900, "light"), ("wide-dark", 1280, 900, "dark"),
                                            ("narrow-light", 390, 1100, "light"), ("narrow-dark", 390, 1100, "dark")):
            page.size(width, height, scheme)
            page.shot(os.path.join(options.shots, f"train-{name}.png"))
        page.size(1280, 900)


def keyboard(page):
    """A digit drawn with the keys alone."""
    page.click("clear")
    predictions = page.count("prediction")
    page.value("document.getElementById('pad').focus()")
    for key in ["ArrowUp"] * 8 + [" "] + ["ArrowDown"] * 16:
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key=key)
    page.event("prediction", since=predictions, seconds=10)
    page.until("document.getElementById('guess').textContent.startsWith('Probably a 1')", 10)


def download(page):
    """The weights are downloaded as a safetensors file."""
    with tempfile.TemporaryDirectory() as folder:
        page.driver.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=folder)
        page.click("download")
        path, deadline = os.path.join(folder, "weights.safetensors"), time.monotonic() + 20
        while not os.path.exists(path):
            check(time.monotonic() < deadline, "nothing was downloaded")
            time.sleep(0.1)
        with open(path, "rb") as file:
            content = file.read()
        header = json.loads(content[8:8 + struct.unpack("<Q", content[:8])[0]])
        check(header["conv2d/kernel"]["shape"] == [3, 3, 1, 8], f"the file has {list(header)}")
    print(f"downloaded: {', '.join(name for name in header if name != '__metadata__')}", flush=True)


def resuming(page, options):
    """Saved, reloaded and restored, or with its device destroyed, a training computes what it would have computed."""
    settings = {"train": 800, "test": 250, "epochs": 6}
    page.open(settings)
    page.pause_at(40)
    at_40 = page.save()
    page.pause_at(80)
    at_80 = page.save()

    page.open(settings)
    page.pause_at(28)
    at_28 = page.save()
    page.reload()
    page.click("restore")
    restored = page.event("restored")
    check((restored["step"], restored["weights"]) == at_28, f"{at_28} was saved, {restored} restored")
    page.pause_at(40)
    check(page.save() == at_40, "a restored training computed other weights than one that was never interrupted")
    print("saved, reloaded, restored: same step, same weights, and the same ones 12 steps later", flush=True)

    page.send("pauseAt", 80)
    page.click("pause")
    page.until("wengertTest.seen.step?.step >= 45", 60)
    page.send("loseDevice")
    lost = page.event("lost")
    check(page.value("!document.getElementById('trouble').hidden"), "nothing is said about a lost device")
    if options.shots:
        page.shot(os.path.join(options.shots, "lost.png"))
    page.event("paused", since=page.count("paused") if page.text("state") != "paused" else 0, seconds=90)
    page.wait_for("paused", 90)
    check(page.save() == at_80, "after the loss of its device a training computed other weights")
    print(f"device destroyed: said so, went on from step {lost['step']}, same weights at step 80", flush=True)


def background(page):
    """Training goes on in a tab that nobody sees."""
    other = page.driver.call("Target.createTarget", url="about:blank")["targetId"]
    page.driver.call("Target.activateTarget", targetId=other)
    page.until("document.visibilityState === 'hidden'", 10)
    step = page.value("wengertTest.seen.step?.step")
    page.until(f"document.visibilityState === 'hidden' && wengertTest.seen.step?.step > {step} + 200", 30)
    page.driver.call("Target.closeTarget", targetId=other)
    page.until("document.visibilityState === 'visible'", 10)
    print("200 steps and more were taken in a hidden tab", flush=True)


def memory(page, options):
    """Thousands of steps hold the memory that the first hundreds did."""
    page.open({"tiny": True, "batchSize": 8, "train": 1600, "test": 250, "epochs": 1000})
    page.click("start")

    def now(step):
        page.until(f"wengertTest.seen.step?.step >= {step}", 90 + step / 50)
        event = page.value("wengertTest.seen.step")
        return {name: event[name] for name in ("step", "memory", "buffers", "heap")} | {"script": page.worker_heap()}

    early = now(1000)
    background(page)
    late = now(options.steps)
    page.click("stop")
    page.wait_for("stopped", 30)
    check(late["memory"] <= early["memory"], f"device memory grew from {early} to {late}")
    check(late["buffers"] <= early["buffers"], f"buffers were made all the while: {early}, {late}")
    # Memory of wasm never shrinks, so it is at its highest once a validation batch, 250 x 784 x 4 bytes, has met the worst
    # of gaps: that may be late. 10,000 steps end where 2,000 do.
    check(late["heap"] - early["heap"] <= 1 << 20, f"the worker's memory grew from {early} to {late}")
    check(late["script"] - early["script"] < 1 << 20, f"the worker's heap grew from {early} to {late}")
    print(f"memory from step {early['step']} to {late['step']}: {early} and {late}", flush=True)


def files(page):
    """IDX files, gzipped or not, become the data."""
    def idx(shape, data):
        return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data

    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, content in (("train-images-idx3-ubyte.gz", gzip.compress(idx([120, 28, 28], bytes(range(240)) * 392))),
                              ("train-labels-idx1-ubyte", idx([120], bytes(i % 10 for i in range(120))))):
            paths.append(os.path.join(folder, name))
            with open(paths[-1], "wb") as file:
                file.write(content)
        page.open()
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        node = page.call("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
        page.call("DOM.setFileInputFiles", nodeId=node, files=paths)
        check(page.event("images") | {"heap": 0} == {"kind": "images", "train": 100, "test": 20, "heap": 0}, "wrong images")
    page.click("start")
    check(page.event("begin")["steps"] == 4, "the images given are not what is trained on")
    page.wait_for("done")
    print("IDX files: read and trained on", flush=True)


def kernels(page, options):
    """The tab of kernels checks and times them, stops, and never holds up the page."""
    page.open()
    page.value("document.getElementById('tab-train').focus()")
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight")
    check(page.value("document.activeElement.id") == "tab-kernels", "the arrow key does not move between the tabs")
    check(page.value("document.getElementById('train').hidden"), "both parts of the page are shown")
    page.fill("kernelSeconds", "0.1")
    page.click("runKernels")
    page.event("kernels-row", seconds=60)
    page.click("stopKernels")
    page.until("document.getElementById('kernelState').textContent.startsWith('stopped after')", 10)
    page.click("runKernels")
    page.until("document.querySelectorAll('tr[data-state=done]').length >= 10", 120)
    page.until("document.getElementById('kernelState').textContent === '10 measured, all right'", 20)
    rows = page.value("[...document.querySelectorAll('#kernelTable tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))")
    check(all("%" in row[2] and not row[2].startswith("0 %") for row in rows), f"nothing reaches anything: {rows}")
    check(page.value("document.querySelectorAll('#roofline circle').length") >= 8, "the roofline has too few points")
    long = page.value("wengertTest.long")
    check(not long, f"tasks of the page's own thread took over 50 ms: {long}")
    print(f"kernels: {len(rows)} right and timed, one stopped; no task over 50 ms", flush=True)
    if options.shots:
        for name, width, height, scheme in (("wide-light", 1280, 900, "light"), ("wide-dark", 1280, 900, "dark"),
                                            ("narrow-light", 390, 1100, "light"), ("narrow-dark", 390, 1100, "dark")):
            page.size(width, height, scheme)
            page.shot(os.path.join(options.shots, f"kernels-{name}.png"))
        page.size(1280, 900)


def without(page, options):
    """A browser without WebGPU gets a message that says what to do."""
    script = page.call("Page.addScriptToEvaluateOnNewDocument",
                       source="Object.defineProperty(navigator, 'gpu', { value: undefined })")["identifier"]
    page.call("Page.navigate", url=page.address)
    page.wait_for("no WebGPU", 20)
    check("Chrome" in page.value("document.getElementById('trouble').innerText"), "it does not say what to do")
    if options.shots:
        page.shot(os.path.join(options.shots, "without.png"))
    page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    print("without WebGPU: says so and what to do", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site")
    parser.add_argument("--native")
    parser.add_argument("--shots")
    parser.add_argument("--only", help="one of the parts, by the name of its function")
    parser.add_argument("--steps", type=int, default=4000, help="steps over which memory must not grow")
    options = parser.parse_args()
    path = browser.find_browser()
    if path is None:
        print("FAIL no Chromium or Chrome found: install one, or name it in CHROME")
        return 1

    handler = functools.partial(browser.Handler, directory=options.site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    driver = browser.Browser(path, "about:blank")
    page = None
    try:
        page = Page(driver, f"http://localhost:{server.server_port}/index.html")
        parts = {"training": lambda: training(page, options), "resuming": lambda: resuming(page, options),
                 "memory": lambda: memory(page, options), "files": lambda: files(page),
                 "kernels": lambda: kernels(page, options),
                 "without": lambda: without(page, options)}
        for name, part in parts.items():
            if options.only in (None, name):
                started = time.monotonic()
                part()
                print(f"  ({name}: {time.monotonic() - started:.1f} s)", flush=True)
    except (AssertionError, RuntimeError) as failure:
        print(f"FAIL {failure}")
        if page and options.shots:
            page.shot(os.path.join(options.shots, "failed.png"))
        return 1
    finally:
        driver.close()
    print("OK")
    return 0


if __name__ == "__main__":
    sys.exit(main())
