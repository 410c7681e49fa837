"""A stand-in for the server of W&B on this machine, for the real client.

It answers GraphQL by the shape of the query, and keeps the history of each run as the real server
does: lines are put at the offset that they come with, and replace all from there on.
"""

import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROJECT = {"id": "p1", "name": "metarl", "entity": {"id": "e1", "name": "me"}}
VIEWER = {"id": "u1", "entity": "me", "username": "me", "email": "m@e", "flags": "{}"}
ARTIFACT = {"id": "a1", "state": "COMMITTED"}
SEQUENCE = {"id": "s1", "latestArtifact": {"id": "a1", "versionIndex": 0}}


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of W&B's client."""

    server: "Server"

    def do_GET(self):
        self.answer({})

    def do_PUT(self):
        self.body()
        self.answer({})

    def do_POST(self):
        content = json.loads(self.body())
        if stream := re.match(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            if history := (content.get("files") or {}).get("wandb-history.jsonl"):
                self.server.put(stream[1], history["offset"], history["content"])
            return self.answer({"exitcode": None, "limits": {}})
        variables = content.get("variables") or {}
        return self.answer({"data": self.data(content.get("query", ""), variables.get("name"))})

    def data(self, query, name):
        """Return the data of all queries that the client makes."""
        lines = self.server.history.get(name, [])
        run = {"id": "b1", "name": name, "displayName": name, "config": "{}", "project": PROJECT}
        run |= {
            "description": None,
            "sweepName": None,
            "historyLineCount": len(lines) if self.server.counts else 0,
        }
        resumed = None
        if lines:
            tail = {"_step": len(lines) - 1, "_runtime": 1}
            summary = {key: value for line in lines for key, value in line.items()}
            resumed = run | {
                "historyLineCount": len(lines),
                "summaryMetrics": json.dumps(summary),
                "logLineCount": 0,
                "eventsLineCount": 0,
                "historyTail": json.dumps([json.dumps(tail)]),
                "eventsTail": "[]",
                "tags": [],
                "wandbConfig": '{"t": {"1": 1}}',
                "events": "[]",
            }
        return {
            "viewer": VIEWER | {"teams": {"edges": []}},
            "serverInfo": {
                "features": [],
                "cliVersionInfo": {"max_cli_version": "9.9.9"},
                "latestLocalVersionInfo": None,
            },
            "upsertBucket": {"bucket": run, "inserted": not lines},
            "model": PROJECT | {"bucket": resumed if "RunResumeStatus" in query else None},
            "createRunFiles": {"runID": "b1", "uploadHeaders": [], "files": []},
            "project": None,
            "entity": None,
            "createArtifact": {"artifact": ARTIFACT | {"artifactSequence": SEQUENCE}},
            "commitArtifact": {"artifact": {"id": "a1"}},
            "useArtifact": {"artifact": {"id": "a1"}},
        }

    def body(self):
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        compressed = self.headers.get("Content-Encoding") == "gzip"
        return gzip.decompress(content) if compressed else content

    def answer(self, content):
        encoded = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *words): ...


class Server(ThreadingHTTPServer):
    """The server; begins to answer when it is made.

    Attributes:
        history: the lines of each W&B run, by its id.
        counts: whether a run that is not resumed is answered with the number of its lines too,
            so that the client appends.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.counts = False
        self.history: dict[str, list[dict]] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, run, offset, lines):
        """Keep lines of a run from an offset on."""
        known = self.history.setdefault(run, [])
        known[offset:] = [json.loads(line) for line in lines]

    def values(self, name):
        """Return the values that all lines of all runs have under a name, in order."""
        return [line[name] for lines in self.history.values() for line in lines if name in line]

    def close(self):
        self.shutdown()
        self.server_close()
