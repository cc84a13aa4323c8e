"""What the checks in this folder share: nodes to talk to, and a transcript.

A check is given the addresses of a running leader and follower, or a program to start them with.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

# How long anything may take that is waited for. Only a failing check takes as long.
PATIENCE_SECONDS = 120

HERE = pathlib.Path(__file__).resolve().parent


class Refused(Exception):
    """A node's refusal, in its own words."""


class Node:
    """A leader or follower, by its HTTP and gRPC addresses."""

    def __init__(self, cluster: str, http: str, grpc: str):
        self.cluster = cluster
        self.http = http.rstrip("/")
        self.grpc = grpc.removeprefix("http://").removeprefix("grpc://").rstrip("/")

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str):
        """Asks over HTTP; gives the body and the headers of the answer."""
        request = urllib.request.Request(self.http + path, data=body, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS * 5) as answer:
                return answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            raise Refused(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from None

    def post_json(self, path: str, value: object):
        body, headers = self.request("POST", path, json.dumps(value).encode(), **{"content-type": "application/json"})
        return json.loads(body), headers

    def sql(self, sql: str, database: str | None = None, **options: object):
        """Runs SQL; gives the rows as dictionaries, and the version they are of."""
        rows, headers = self.post_json("/v1/sql", {"sql": sql, "database": database, **options})
        version = headers["slipstream-version"]
        return rows, int(version) if version else None

    def arrow(self, sql: str, database: str, **options: object):
        """Runs SQL; gives the answer as a pyarrow table."""
        import pyarrow

        question = json.dumps({"sql": sql, "database": database, **options}).encode()
        accept = "application/vnd.apache.arrow.stream"
        body, _ = self.request("POST", "/v1/sql", question, accept=accept, **{"content-type": "application/json"})
        return pyarrow.ipc.open_stream(body).read_all()

    def ingest(self, database: str, table: str, body: bytes, options: str) -> dict:
        """Sends one file; gives the receipt."""
        answer, _ = self.request("POST", f"/v1/ingest/{database}/{table}?{options}", body)
        return json.loads(answer)

    def attach(self, leader: "Node", database: str) -> None:
        """Attaches a database and waits until it is served."""
        self.post_json("/v1/attachments", {"leader": leader.cluster, "database": database})
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            body, _ = self.request("GET", "/v1/attachments")
            found = next(one for one in json.loads(body) if one["database"] == database)
            if found["provisioning_state"] == "Succeeded":
                return
            if found["provisioning_state"] == "Failed":
                raise Refused(f"attach {database}: {found['error']}")
            time.sleep(0.05)
        raise TimeoutError(f"{database} is not attached after {PATIENCE_SECONDS} s")


class Transcript:
    """Prints one line a check, and knows whether any failed."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    @contextlib.contextmanager
    def check(self, name: str):
        """Runs a check; the block may `append` to the list it gets what is worth knowing."""
        notes: list[str] = []
        began = time.monotonic()
        try:
            yield notes
        except Exception as error:  # One failure must not hide the next check's result.
            self.failed += 1
            text = str(error) or type(error).__name__
            print(f"FAILED  {name}: {text}", flush=True)
        else:
            self.passed += 1
            notes.append(f"{time.monotonic() - began:.2f} s")
            print(f"ok      {name}: {', '.join(notes)}", flush=True)

    def end(self) -> int:
        """The closing line; gives the exit status."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 0 if self.failed == 0 and self.passed > 0 else 1


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--binary", help="a slipstream program: start a leader and a follower with it")
    parser.add_argument("--leader", metavar="URL", help="HTTP address of a running leader")
    parser.add_argument("--follower", metavar="URL", help="HTTP address of a running follower")
    parser.add_argument("--leader-grpc", metavar="ADDR", help="gRPC address of that leader")
    parser.add_argument("--follower-grpc", metavar="ADDR", help="gRPC address of that follower")
    parser.add_argument("--leader-name", default="leader", help="cluster name of that leader")
    parser.add_argument("--follower-name", default="follower", help="cluster name of that follower")
    return parser


@contextlib.contextmanager
def nodes(options: argparse.Namespace):
    """The leader and the follower: those that were named, or ones started for this check."""
    if options.binary is None:
        if not (options.leader and options.follower and options.leader_grpc and options.follower_grpc):
            sys.exit("give --binary, or all of --leader, --follower, --leader-grpc and --follower-grpc")
        leader = Node(options.leader_name, options.leader, options.leader_grpc)
        yield leader, Node(options.follower_name, options.follower, options.follower_grpc)
        return
    with tempfile.TemporaryDirectory(prefix="slipstream-check-") as folder, contextlib.ExitStack() as stack:
        folder = pathlib.Path(folder)
        leader = start(stack, options.binary, "leader", folder, [])
        name = f"leader=http://{leader.grpc}"
        yield leader, start(stack, options.binary, "follower", folder, ["--leader", name])


@contextlib.contextmanager
def guarded_leader(options: argparse.Namespace):
    """A leader that asks for tokens, and one of them: of `aadapp=check`, who may do everything."""
    with tempfile.TemporaryDirectory(prefix="slipstream-check-") as folder, contextlib.ExitStack() as stack:
        folder = pathlib.Path(folder)
        create = [options.binary, "token", "--tokens", str(folder / "leader" / "tokens.json"), "create"]
        create += ["--principal", "aadapp=check", "--role", "AllDatabasesAdmin"]
        made = subprocess.run(create, check=True, capture_output=True, text=True)
        yield start(stack, options.binary, "leader", folder, []), made.stdout.strip()


def start(
    stack: contextlib.ExitStack,
    binary: str,
    role: str,
    folder: pathlib.Path,
    more: list[str],
    bucket: str | None = None,
) -> Node:
    """Starts a node that ends with the stack, and waits until it is ready. Without a bucket, it is a
    directory in the folder.
    """
    bucket = bucket or f"file://{folder}/bucket"
    data, log = folder / role, folder / f"{role}.log"
    output = stack.enter_context(open(log, "wb"))
    command = [binary, role, "--cluster", role, "--bucket", bucket, "--data-dir", str(data)]
    command += ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", *more]
    # The extents that a check makes are the ones that it finds.
    environment = {**os.environ, "SLIPSTREAM_MERGE_INTERVAL": "0"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
    )
    stack.callback(stop, process)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            addresses = json.loads((data / "node.json").read_text())
            node = Node(role, f"http://{addresses['http'].removeprefix('http://')}", addresses["grpc"])
            node.request("GET", "/readyz")
            return node
        except (OSError, ValueError, Refused):
            time.sleep(0.05)
    sys.exit(f"the {role} did not get ready:\n{log.read_text(errors='replace')[-4000:]}")


def stop(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
