#!/usr/bin/env python3
"""Runs one page in headless Chromium on its software WebGPU and exits 0 if and only if the page says OK.

    scripts/browser.py ROOT PAGE [--timeout SECONDS] [--shot out.png]
    scripts/browser.py ROOT PAGE --serve      only serves: open the printed address in your own browser, on your own GPU

The page posts lines to /log, which are echoed, and its verdict to /done. Python's standard library and a browser are all
it needs: no driver program, no node.
"""

import argparse
import base64
import collections
import fcntl
import functools
import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
         "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium"]

FLAGS = [
    "--headless=new", "--no-sandbox",  # the sandbox does not start as root; the page is our own
    "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader",  # the same adapter on every machine
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
    "--disable-dev-shm-usage",  # containers often have a /dev/shm of 64 MB
    "--no-first-run", "--no-default-browser-check", "--disable-extensions",
    # No traffic but ours.
    "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-domain-reliability", "--disable-default-apps",
]


def find_browser():
    """The path of $CHROME, or of the first known browser, or None."""
    return next(filter(None, (shutil.which(name) for name in [os.environ.get("CHROME") or "", *NAMES])), None)


class Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map,
                      ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".mjs": "text/javascript",
                      ".wasm": "application/wasm", ".json": "application/json"}
    verdicts = queue.Queue()

    def end_headers(self):
        # The two origin headers make the page cross-origin isolated: precise clocks, shared memory for workers.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode(errors="replace")
        if self.path == "/log":
            print(body, flush=True)
        elif self.path == "/done":
            self.verdicts.put(body)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Browser:
    """A headless browser with a fresh profile, spoken to in DevTools' protocol over a pipe: JSON messages ended by NUL."""

    def __init__(self, path, url):
        self.profile = tempfile.mkdtemp(prefix="wengert-browser-")
        self.log = open(os.path.join(self.profile, "browser.log"), "w+")
        # The browser reads commands from descriptor 3 and answers on 4. Ours are moved out of the way of those first.
        (from_us, self.write), (self.read, to_us) = os.pipe(), os.pipe()
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (from_us, to_us)]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}', "bash",
             path, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={self.profile}", url],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True, pass_fds=theirs)
        for fd in (from_us, to_us, *theirs):
            os.close(fd)
        self.buffer, self.number = b"", 0
        self.events = collections.deque(maxlen=100)

    def call(self, method, session=None, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                chunk = os.read(self.read, 1 << 16)
                if not chunk:
                    raise RuntimeError("the browser closed its pipe")
                self.buffer += chunk
            answer, self.buffer = self.buffer.split(b"\0", 1)
            answer = json.loads(answer)
            if "method" in answer:
                self.events.append(answer)
            elif answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def screenshot(self, file):
        try:
            self.capture(file)
        except (OSError, RuntimeError) as error:
            print(f"no screenshot: {error}", file=sys.stderr)

    def capture(self, file):
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        self.call("Emulation.setDeviceMetricsOverride", session, width=1000, height=700, deviceScaleFactor=1, mobile=False)
        picture = self.call("Page.captureScreenshot", session, format="png", captureBeyondViewport=True)["data"]
        with open(file, "wb") as out:
            out.write(base64.b64decode(picture))

    def last_words(self):
        self.log.seek(0)
        return self.log.read()[-1000:]

    def close(self):
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.profile, ignore_errors=True)


def run(url, timeout, shot):
    path = find_browser()
    if path is None:
        return "FAIL no Chromium or Chrome found: install one, or name it in CHROME"
    browser = Browser(path, url)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                verdict = Handler.verdicts.get(timeout=0.2)
                break
            except queue.Empty:
                if browser.process.poll() is not None:
                    return f"FAIL the browser ended by itself:\n{browser.last_words()}"
                if time.monotonic() > deadline:
                    verdict = f"FAIL the page said nothing final within {timeout:.0f} s"
                    break
        if shot:
            # A page that hangs would hang this too; the verdict matters more than the picture.
            worker = threading.Thread(target=browser.screenshot, args=[shot], daemon=True)
            worker.start()
            worker.join(10)
        return verdict
    finally:
        browser.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("page")
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--shot")
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=options.root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://localhost:{server.server_port}/{options.page}"  # WebGPU wants https or localhost
    if options.serve:
        print(f"{url} (Ctrl-C ends)", flush=True)
        try:
            while True:
                print(Handler.verdicts.get(), flush=True)
        except KeyboardInterrupt:
            return 0

    started = time.monotonic()
    verdict = run(url, options.timeout, options.shot)
    print(f"{verdict}\n{options.page}: {time.monotonic() - started:.1f} s in the browser")
    return 0 if verdict.startswith("OK") else 1


if __name__ == "__main__":
    sys.exit(main())
