#!/usr/bin/env python3
"""Starts a ClickHouse server from the `chdb-core` wheel and keeps it up until SIGTERM.

The wheel holds the whole engine as a shared object. `clickhouse-local` inside it can open
ClickHouse's own HTTP and native ports (SYSTEM START LISTEN), so what answers on them is the real
server code. This file writes the server's config, runs the one query that opens the ports and then
waits on a FIFO, and ends that query when it is told to stop.

    launch.py --home DIR --users users.xml --config config.xml --http-port 8123 --tcp-port 9000
"""

import argparse
import fcntl
import importlib.machinery
import importlib.util
import os
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path
from xml.sax.saxutils import escape

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
LOCK_RETRY_SECONDS = 10.0
READY_SECONDS = 60.0
STOP_SECONDS = 20.0
RTLD_DEEPBIND = 0x00008


def say(text):
    print(f"launch.py: {text}", file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", required=True, type=Path, help="folder for config, data and logs")
    parser.add_argument("--config", required=True, type=Path, help="template of config.xml")
    parser.add_argument("--users", required=True, type=Path, help="users.xml, read where it is")
    parser.add_argument("--listen-host", default="127.0.0.1")
    parser.add_argument("--http-port", required=True, type=int)
    parser.add_argument("--tcp-port", required=True, type=int)
    return parser.parse_args()


def lock(home):
    """One server a folder. The lock is ours to take: the FIFO below belongs to its holder."""
    handle = open(home / "launch.lock", "w", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"launch.py: another server already runs in {home}")
    return handle


def write_config(args):
    """Fills in the template. The engine reads ./config.xml, and file() reads there too (the FIFO):
    so the caller makes it the working folder."""
    values = {
        "HOME": str(args.home),
        "LISTEN_HOST": args.listen_host,
        "HTTP_PORT": str(args.http_port),
        "TCP_PORT": str(args.tcp_port),
        "USERS_XML": str(args.users.resolve()),
    }
    text = args.config.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", escape(value))
    etc = args.home / "etc"
    for folder in (etc, args.home / "data", args.home / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    (etc / "config.xml").write_text(text, encoding="utf-8")
    return etc


def load_engine():
    """Loads the engine's shared object alone: importing `chdb` itself would start an engine."""
    import ctypes

    spec = importlib.util.find_spec("chdb")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("launch.py: the chdb-core wheel is not installed for this Python")
    folder = spec.submodule_search_locations[0]
    shared_object = os.path.join(folder, "_chdb.abi3.so")
    ctypes.CDLL(shared_object, mode=os.RTLD_NOW | RTLD_DEEPBIND)
    loader = importlib.machinery.ExtensionFileLoader("_chdb", shared_object)
    module_spec = importlib.util.spec_from_file_location("_chdb", shared_object, loader=loader)
    module = importlib.util.module_from_spec(module_spec)
    loader.exec_module(module)
    return module


class Server:
    """The query that is the server, in a thread of its own."""

    def __init__(self, engine, args):
        self.engine = engine
        self.home = args.home
        self.ping_url = f"http://{args.listen_host}:{args.http_port}/ping"
        self.fifo = args.home / "etc" / "stop.fifo"
        self.thread = None
        self.failure = None

    def start(self):
        if self.fifo.exists():
            self.fifo.unlink()
        os.mkfifo(self.fifo, 0o600)
        self.failure = None
        self.thread = threading.Thread(target=self._serve, name="server", daemon=True)
        self.thread.start()

    def _serve(self):
        statements = (
            "SYSTEM START LISTEN HTTP; "
            "SYSTEM START LISTEN TCP; "
            f"SELECT count() FROM file('{self.fifo.name}', 'LineAsString', 'line String') FORMAT Null"
        )
        try:
            self.engine.query(statements, "TSV", path=str(self.home / "data"))
        except Exception as error:  # The engine raises its own kinds; stderr has the details.
            self.failure = str(error).strip() or "the engine gave no reason (see its log above)"

    def alive(self):
        return self.thread is not None and self.thread.is_alive()

    def answers(self):
        try:
            with urllib.request.urlopen(self.ping_url, timeout=1) as response:
                return response.read().strip() == b"Ok."
        except OSError:
            return False

    def wait_ready(self, stopping):
        limit = time.monotonic() + READY_SECONDS
        while self.alive() and time.monotonic() < limit and not stopping.is_set():
            if self.answers():
                return True
            time.sleep(0.03)
        return False

    def stop(self):
        """Ends the last statement: a writer that opens the FIFO and closes it again is its end."""
        limit = time.monotonic() + STOP_SECONDS
        while self.alive() and time.monotonic() < limit:
            try:
                os.close(os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                pass  # Nobody reads it yet: the engine is still starting.
            self.thread.join(0.2)
        return not self.alive()


def watch_signals(stopping):
    """Waits for a stop signal in a thread. The signals are blocked everywhere else, because the
    engine installs handlers of its own while it starts."""
    signal.sigwait(STOP_SIGNALS)
    stopping.set()


def main():
    args = arguments()
    args.home = args.home.resolve()
    args.home.mkdir(parents=True, exist_ok=True)
    # SYSTEM SHUTDOWN signals the whole process group: it must be ours alone.
    if os.getpgrp() != os.getpid():
        os.setpgrp()
    handle = lock(args.home)
    stopping = threading.Event()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    threading.Thread(target=watch_signals, args=(stopping,), daemon=True).start()

    os.chdir(write_config(args))
    server = Server(load_engine(), args)
    # After a kill the engine's own lock on the folder may outlive the process for a moment.
    limit = time.monotonic() + LOCK_RETRY_SECONDS
    while True:
        server.start()
        if server.wait_ready(stopping) or stopping.is_set():
            break
        if server.alive() or time.monotonic() > limit:
            say(f"the server did not come up: {server.failure or 'no answer on ' + server.ping_url}")
            os._exit(1)
        time.sleep(0.5)
    if not stopping.is_set():
        say(f"ready on {server.ping_url}")

    while not stopping.wait(0.5):
        if not server.alive():
            say(f"the server ended by itself: {server.failure or 'shut down by a query'}")
            os._exit(1)
    stopped = server.stop()
    say("stopped" if stopped else f"did not stop within {STOP_SECONDS:.0f} s")
    handle.close()
    # Without the interpreter's teardown: the engine's threads may still be in it.
    os._exit(0 if stopped else 1)


if __name__ == "__main__":
    main()
