"""A Hugging Face Hub on loopback over one folder: NDIF and nnsight ask it for a model's name, settings and weights."""

import hashlib
import http.server
import json
import re
import sys
from pathlib import Path

NAME, FOLDER, PORT = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
COMMIT = "0" * 39 + "1"


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code, body=b"", length=None, **headers):
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.partition("?")[0]
        files = sorted(FOLDER.iterdir())
        if re.fullmatch(rf"/api/models/{NAME}(/revision/[^/]+)?", path):
            about = {
                "id": NAME,
                "modelId": NAME,
                "sha": COMMIT,
                "private": False,
                "tags": [],
                "pipeline_tag": "text-generation",
                "library_name": "transformers",
                "siblings": [{"rfilename": file.name} for file in files],
                "safetensors": {"parameters": {"F32": 134515008}, "total": 134515008},
            }
            return self.answer(200, json.dumps(about).encode(), Content_Type="application/json")
        if re.match(rf"/api/models/{NAME}/tree/", path):
            tree = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "a" * 40} for f in files]
            return self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
        found = re.fullmatch(rf"/{NAME}/resolve/[^/]+/(.+)", path)
        if not found:
            return self.answer(404, b"{}", X_Error_Code="RepoNotFound")
        file = FOLDER / found[1]
        if not file.exists():
            return self.answer(404, b"{}", X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        tag = hashlib.sha1(f"{file.name}{file.stat().st_size}".encode()).hexdigest()
        body = b"" if self.command == "HEAD" else file.read_bytes()
        return self.answer(
            200,
            body,
            file.stat().st_size,
            ETag=f'"{tag}"',
            X_Repo_Commit=COMMIT,
            Content_Type="application/octet-stream",
        )

    do_HEAD = do_GET  # noqa: N815


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Hub).serve_forever()
