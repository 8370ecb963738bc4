"""A stand-in for the server of W&B on loopback, which keeps what `wandb sync` and online runs send.

It answers the calls that wandb 0.31 makes for a run with metrics, media, tables and artifacts: GraphQL for runs, files
and artifacts, the stream of history rows, and uploads. It has no access control, no sweeps and no queries of the
interface, and takes every upload at once.
"""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

ENTITY = "team"
KEY = "0123456789" * 4


class WandbServer(ThreadingHTTPServer):
    """Keeps runs by their ids. While `down` is set, it closes each connection without an answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lock, self.down = Lock(), False
        self.runs: dict[str, dict[str, Any]] = {}
        """The latest values of each run, by the names of GraphQL: displayName, config, summaryMetrics, …"""
        self.streams: dict[str, dict[str, dict[int, str]]] = {}
        """The lines of each run by file (wandb-history.jsonl, …) and number."""
        self.uploads: dict[str, bytes] = {}
        """The content of each file, by run/name or artifact/name."""
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.views: list[dict[str, Any]] = []
        """The workspaces that were saved."""
        self.unknown: list[str] = []
        """The operations that this server does not know."""

    def handle_error(self, *_: Any) -> None:
        """Ignore connections that wandb resets when it is done."""

    def history(self, run: str) -> list[dict[str, Any]]:
        lines = self.streams[run]["wandb-history.jsonl"]
        return [json.loads(lines[number]) for number in sorted(lines)]

    def config(self, run: str) -> dict[str, Any]:
        return {key: entry["value"] for key, entry in json.loads(self.runs[run]["config"]).items()}

    def summary(self, run: str) -> dict[str, Any]:
        lines = self.streams[run].get("wandb-summary.json", {})
        return json.loads(lines[max(lines)]) if lines else {}

    def graphql(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        answer = getattr(self, f"_{name}", None)
        if answer is None:
            self.unknown.append(name)
            return {}
        with self.lock:
            return answer(given.get("input", given))

    def _ServerFeaturesQuery(self, _: dict) -> dict:
        return {"serverInfo": {"features": []}}

    def _Viewer(self, _: dict) -> dict:
        return {"viewer": {"id": "u1", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}}

    def _GetDefaultEntity(self, _: dict) -> dict:
        return {"viewer": {"id": "u1", "entity": ENTITY}}

    def _bucket(self, name: str) -> dict:
        lines = self.streams.get(name, {}).get("wandb-history.jsonl", {})
        config = self.runs[name].get("config", "{}")
        project = self.runs[name].get("project") or "project"
        return {
            "id": name, "name": name, "displayName": self.runs[name].get("displayName"), "description": "",
            "config": config, "sweepName": None, "historyLineCount": len(lines),
            "eventsLineCount": 0, "logLineCount": 0, "eventsTail": "[]",
            "historyTail": json.dumps([lines[max(lines)]] if lines else []),
            "summaryMetrics": json.dumps(self.summary(name)) if name in self.streams else "{}", "tags": [],
            "wandbConfig": json.dumps(json.loads(config).get("_wandb", {}).get("value", {})),
            "project": {"id": project, "name": project, "entity": {"id": ENTITY, "name": ENTITY}},
        }  # fmt: skip

    def _UpsertBucket(self, given: dict) -> dict:
        inserted = given["name"] not in self.runs
        known = self.runs.setdefault(given["name"], {})
        known |= {key: value for key, value in given.items() if value is not None}
        return {"upsertBucket": {"bucket": self._bucket(given["name"]), "inserted": inserted}}

    def _RunResumeStatus(self, given: dict) -> dict:
        bucket = self._bucket(given["name"]) if given["name"] in self.runs else None
        return {
            "model": {
                "id": "p",
                "name": given.get("project"),
                "entity": {"id": ENTITY, "name": ENTITY},
                "bucket": bucket,
            }
        }

    def _CreateRunFiles(self, given: dict) -> dict:
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{given['run']}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _OrganizationCoreWeaveOrganizationID(self, _: dict) -> dict:
        return {"entity": {"organization": None}}

    def _ArtifactType(self, given: dict) -> dict:
        collection = given["name"].partition(":")[0]
        types = [
            one["artifactTypeName"] for one in self.artifacts.values() if one["artifactCollectionName"] == collection
        ]
        return {"project": {"artifact": {"artifactType": {"name": types[-1]}} if types else None}}

    def _UpsertView2(self, given: dict) -> dict:
        self.views.append(given)
        return {"upsertView": {"view": {"id": f"view{len(self.views)}", "name": given["name"]}, "inserted": True}}

    def _CreateArtifact(self, given: dict) -> dict:
        number = f"artifact{len(self.artifacts)}"
        self.artifacts[number] = {**given, "state": "PENDING"}
        sequence = {"latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": number, "state": "PENDING", "artifactSequence": sequence}}}

    def _CreateArtifactManifest(self, given: dict) -> dict:
        url = f"{self.url}/upload/{given['artifactID']}/{given['name']}"
        file = {"id": "f", "name": given["name"], "displayName": given["name"], "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def _CreateArtifactFiles(self, given: dict) -> dict:
        nodes = [
            {
                "id": file["name"], "name": file["name"], "displayName": file["name"], "uploadHeaders": [],
                "uploadUrl": f"{self.url}/upload/{file['artifactID']}/{file['name']}",
                "storagePath": f"{file['artifactID']}/{file['name']}", "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            for file in given["artifactFiles"]
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _CommitArtifact(self, given: dict) -> dict:
        self.artifacts[given["artifactID"]]["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, *_: Any) -> None: ...

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self) -> None:
        body, server = self._body(), self.server
        if server.down:
            self.close_connection = True
            return
        told: dict[str, Any] = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            found = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            name = asked.get("operationName") or (found[1] if found else "")
            told = {"data": server.graphql(name, asked.get("variables") or {})}
        elif stream := re.fullmatch(r"/files/[^/]*/?[^/]+/([^/]+)/file_stream", self.path):
            files = server.streams.setdefault(stream[1], {})
            with server.lock:
                for name, chunk in (json.loads(body).get("files") or {}).items():
                    lines = files.setdefault(name, {})
                    lines.update(enumerate(chunk["content"], start=chunk["offset"]))
        elif self.path.startswith("/upload/"):
            server.uploads[self.path.removeprefix("/upload/")] = body
        else:
            server.unknown.append(self.path)
        sent = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_PUT = _answer


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    server = WandbServer()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def sync(*arguments: str) -> None:
    command = [str(Path(sys.executable).parent / "wandb"), "sync", *arguments]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
