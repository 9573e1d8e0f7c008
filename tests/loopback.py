"""Stand-ins on 127.0.0.1 for services that tests must not reach, speaking what the real ones speak."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0" * 39 + "1"


class Service(BaseHTTPRequestHandler):
    """Answers what `answer(method, path, headers, body)` gives: (status, headers, body)."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _any(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        status, headers, out = self.server.answer(self.command, self.path, self.headers, body)
        self.server.heard.append((self.command, self.path, dict(self.headers), body))
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(out)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(out)

    do_GET = do_HEAD = do_POST = _any  # noqa: N815


@contextmanager
def serving(answer):
    """(address, what was heard) of a service on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.answer, server.heard = answer, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.heard
    finally:
        server.shutdown()
        server.server_close()


def hub(root: Path):
    """The Hub's routes over the folder `root/<owner>/<repository>` or `root/<repository>`."""

    def folder_of(name: str) -> Path | None:
        return root / name if (root / name).is_dir() else None

    def answer(method, path, headers, body):
        path = path.split("?")[0]
        if listed := re.match(r"/api/models/(.+?)(?:/revision/[^/]+|/tree/[^/]+.*)?$", path):
            folder = folder_of(listed[1])
            if folder is None:
                return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
            names = [str(p.relative_to(folder)) for p in sorted(folder.rglob("*")) if p.is_file()]
            if "/tree/" in path:
                found = [
                    {"type": "file", "path": n, "size": (folder / n).stat().st_size, "oid": "a" * 40} for n in names
                ]
                return 200, {"Content-Type": "application/json"}, json.dumps(found).encode()
            about = {"id": listed[1], "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
            return 200, {"Content-Type": "application/json"}, json.dumps(about).encode()
        wanted = re.match(r"/(.+?)/resolve/[^/]+/(.+)$", path)
        folder = folder_of(wanted[1]) if wanted else None
        if folder is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        file = folder / wanted[2]
        if not file.is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"{}"
        data = file.read_bytes()
        about = {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if part := re.match(r"bytes=(\d+)-(\d*)", headers.get("Range") or ""):
            end = int(part[2]) + 1 if part[2] else len(data)
            span = f"bytes {part[1]}-{min(end, len(data)) - 1}/{len(data)}"
            return 206, about | {"Content-Range": span}, data[int(part[1]) : end]
        if method == "HEAD":
            return 200, about | {"Content-Length": str(len(data))}, b""
        return 200, about, data

    return answer
