"""Parts of the interfaces of MLflow and W&B on this machine: enough for a run, its numbers and its files."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MLFLOW_RUN = {"info": {"run_id": "r1", "run_uuid": "r1", "experiment_id": "1", "status": "RUNNING",
                       "lifecycle_stage": "active", "start_time": 0}, "data": {}}  # fmt: skip
MLFLOW = {
    "experiments/get-by-name": {
        "experiment": {"experiment_id": "1", "name": "digits", "lifecycle_stage": "active"}
    },
    "runs/create": {"run": MLFLOW_RUN},
    "runs/get": {"run": MLFLOW_RUN},
    "runs/update": {"run_info": MLFLOW_RUN["info"]},
}
WANDB_RUN = {"id": "b", "name": "run", "displayName": "run", "description": "", "config": "{}",
             "sweepName": None, "historyLineCount": 0,
             "project": {"id": "p", "name": "amtml_pl", "entity": {"id": "e", "name": "me"}}}  # fmt: skip
WANDB = {
    "viewer": {"id": "v", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}},
    "serverInfo": {"cliVersionInfo": {}, "latestLocalVersionInfo": None, "features": []},
    "upsertBucket": {"bucket": WANDB_RUN, "inserted": True},
    "project": None,
    "model": None,
}


def mlflow_answer(server, path, body):
    """Answer a call of MLflow's client."""
    return MLFLOW.get(path.partition("/mlflow/")[2].partition("?")[0], {})


def wandb_answer(server, path, body):
    """Answer a query of wandb, or take a file."""
    if path != "/graphql":
        return {"exitcode": None, "limits": {}}
    names = (json.loads(body).get("variables") or {}).get("files") or ()
    files = [{"name": name, "uploadUrl": f"{server.url}/upload"} for name in names]
    return {"data": {**WANDB, "createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}}


class Handler(BaseHTTPRequestHandler):
    """Keep the body of each call, and answer it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.received += body
        answer = json.dumps(self.server.answer(self.server, self.path, body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST  # noqa: N815 - the names that http.server calls

    def log_message(self, *_):
        pass


@contextmanager
def logging_server(answer):
    """Yield a server; its method ``stop`` ends it early."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answer, server.received = answer, b""
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.handle_error = lambda *_: None  # of a client that hangs up
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop():
        server.shutdown()
        server.server_close()

    server.stop = stop
    try:
        yield server
    finally:
        if server.fileno() != -1:
            stop()
