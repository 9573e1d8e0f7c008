"""A loopback server that speaks NDIF's protocol and runs jobs as NDIF does, but has the faults it is told to have.

    python ndif_script.py FOLDER [PORT]

It has no steerwidgets: whatever a job needs must have travelled. `POST /script` sets its faults.
"""

import io
import json
import linecache
import re
import sys
import threading
import traceback
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Absent:
    """As on NDIF, where this package is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "steerwidgets":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return


sys.meta_path.insert(0, Absent())

import torch  # noqa: E402
import zstandard  # noqa: E402
from nnsight.modeling.transformers import TransformersModel  # noqa: E402
from nnsight.schema.request import RequestModel  # noqa: E402
from nnsight.tracing.globals import BLOCKS, SOURCES  # noqa: E402
from nnsight.tracing.tracer import _saves, dec, inc  # noqa: E402

MODEL = TransformersModel(sys.argv[1], task="text-generation", dispatch=True, dtype=torch.float32)
QUIET = {"key": "", "queue": 0, "fail": "", "hold": False, "silent": 0, "versions": {}, "larger": 0}
script = dict(QUIET)
jobs: dict[str, dict] = {}
heard: list[bytes] = []
one_at_a_time = threading.Lock()


def executed(blob: bytes, compress: bool) -> bytes:
    """What NDIF's model actor does with a request."""
    caches = (linecache.cache, SOURCES, BLOCKS)
    before = [dict(cache) for cache in caches]
    with one_at_a_time, torch.no_grad():
        tracer = RequestModel.deserialize(blob, MODEL._remoteable_persistent_objects(), compress)
        inc()
        try:
            tracer.execute(tracer.info.code)
            saves = _saves()
            saved = {name: value for name, value in tracer.info.frame.f_locals.items() if id(value) in saves}
        finally:
            dec()
            for cache, then in zip(caches, before, strict=True):
                cache.clear()
                cache.update(then)
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return zstandard.ZstdCompressor(3).compress(buffer.getvalue()) if compress else buffer.getvalue()


def run(job: dict, blob: bytes, compress: bool) -> None:
    try:
        job["result"] = executed(blob, compress) + b"\0" * script["larger"]
    except Exception:
        job["error"] = traceback.format_exc()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code, body, kind="application/json"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/env":
            return self.answer(200, {"python_version": "3.12.1", "packages": script["versions"]})
        if self.path == "/heard":
            return self.answer(200, b"".join(heard), "application/octet-stream")
        name = self.path.rpartition("/")[2]
        job = jobs.get(name)
        if self.path.startswith("/result/"):
            return self.answer(200, job["result"], "application/octet-stream")
        if script["silent"]:
            script["silent"] -= 1
            self.close_connection = True
            return None
        if job is None:
            return self.answer(404, {"detail": f"No response for request {name}."})
        job["asked"] += 1
        left = script["queue"] - job["asked"] + 1
        if left > 0:
            return self.status(name, "QUEUED", f"Moved to position {left} in Queue.")
        if script["fail"]:
            return self.status(name, "ERROR", script["fail"])
        if job.get("error"):
            return self.status(name, "ERROR", job["error"])
        if script["hold"] or "result" not in job:
            return self.status(name, "RUNNING", "Your job has started running.")
        host = self.headers["Host"]
        return self.status(name, "COMPLETED", "Your job has been completed.", f"http://{host}/result/{name}")

    def status(self, name, status, description, data=None):
        return self.answer(200, {"id": name, "status": status, "description": description, "data": data})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/script":
            script.clear()
            script.update({**QUIET, **json.loads(body)})
            return self.answer(200, {})
        given = self.headers.get("ndif-api-key", "")
        if script["key"] and given != script["key"]:
            # NDIF repeats the key that it was given.
            return self.answer(401, {"detail": f"Invalid API key format: '{given}'."})
        boundary = re.search("boundary=([^;]+)", self.headers["Content-Type"])[1].encode()
        parts = {}
        for part in body.split(b"--" + boundary)[1:-1]:
            head, _, content = part.partition(b"\r\n\r\n")
            parts[re.search(b'name="([^"]+)"', head)[1].decode()] = content.removesuffix(b"\r\n")
        compress = json.loads(parts["data"])["compress"]
        blob = parts["blob"]
        heard.append(zstandard.ZstdDecompressor().decompress(blob) if compress else blob)
        heard.append(parts["data"])
        name = str(uuid.uuid4())
        jobs[name] = {"asked": 0}
        threading.Thread(target=run, args=(jobs[name], blob, compress), daemon=True).start()
        return self.status(name, "RECEIVED", "Your job has been received and is waiting to be queued.")


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 0), Handler)
sys.stdout.write(f"{server.server_port}\n")
sys.stdout.flush()
server.serve_forever()
