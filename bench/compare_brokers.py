# SPDX-License-Identifier: Apache-2.0
"""Brokers to compare: each in a scratch directory, on a free port, with the same settings; and the load for them."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

# The same for both: no limits, since a limit that is reached drops messages and would make them cheap.
CONFIG = """\
listener {port} 127.0.0.1
allow_anonymous true
user root
set_tcp_nodelay true
max_queued_messages 0
max_inflight_messages 0
sys_interval 0
"""

# mosquitto then writes its store every half hour and at the end (autosave_interval), noctule before it acknowledges.
STORED = """\
persistence true
persistence_location {dir}/
"""

LONGEST_S = 600  # of one run of the load


def free_port():
    while True:
        port = random.randrange(10000, 32000)  # below the ephemeral range
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


class Broker:
    """A running broker; use it with `with`. lines: more configuration."""

    def __init__(self, command, lines="", stored=False):
        self.dir = tempfile.mkdtemp(prefix="noctule-compare-")
        self.port = free_port()
        path = os.path.join(self.dir, "conf")
        with open(path, "w") as f:
            f.write(CONFIG.format(port=self.port) + (STORED.format(dir=self.dir) if stored else "") + lines)
        self.log = open(os.path.join(self.dir, "log"), "wb")
        self.process = subprocess.Popen([a.format(conf=path, port=self.port) for a in command], cwd=self.dir,
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def is_up(self):
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        except OSError:
            return False

    def __enter__(self):
        end = time.monotonic() + 5
        while not self.is_up():
            if time.monotonic() > end or self.process.poll() is not None:
                with open(os.path.join(self.dir, "log")) as f:
                    said = f.read()
                self.__exit__()
                sys.exit("%s does not start:\n%s" % (self.process.args[0], said))
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def threads_cpu_ns(self):
        """{thread's name: CPU time}; of several with one name the busiest, since a helper inherits its maker's name."""
        found = {}
        tasks = "/proc/%d/task" % self.process.pid
        for task in os.listdir(tasks):
            with open("%s/%s/comm" % (tasks, task)) as f:
                name = f.read().strip()
            with open("%s/%s/schedstat" % (tasks, task)) as f:
                found[name] = max(found.get(name, 0), int(f.read().split()[0]))
        return found

    def wait_for_connections(self, n):
        """Until it has as many open files at least; at most 20 s."""
        end = time.monotonic() + 20
        while len(os.listdir("/proc/%d/fd" % self.process.pid)) < n and time.monotonic() < end:
            time.sleep(0.1)


class Programs:
    """What is compared, and the generator."""

    def __init__(self, build, mosquitto, noctule_lines=""):
        bin_dir = os.path.join(build, "bin")
        self.bench = os.path.join(bin_dir, "noctule-bench")
        self.noctule = os.path.join(bin_dir, "noctule")
        self.floor = os.path.join(bin_dir, "bench_floor")
        self.bench_shard = os.path.join(bin_dir, "bench_shard")
        self.mosquitto = mosquitto or "mosquitto"
        self.noctule_lines = noctule_lines

    def missing(self):
        programs = (self.bench, self.noctule, self.floor, self.bench_shard, self.mosquitto)
        return [p for p in programs if not os.access(p, os.X_OK)]

    def start(self, who, stored=False, lines=""):
        if who == "floor":
            return Broker([self.floor, "{port}"])
        if who == "noctule":
            return Broker([self.noctule, "-c", "{conf}"], self.noctule_lines + "\n" + lines, stored)
        return Broker([self.mosquitto, "-c", "{conf}"], lines, stored)

    def command(self, broker, arguments):
        return [self.bench] + list(arguments) + ["-p", str(broker.port), "--pid", str(broker.process.pid), "--json"]

    def load(self, broker, arguments):
        """The generator's JSON; None when a check failed, which is said."""
        try:
            done = subprocess.run(self.command(broker, arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            sys.stderr.write("no end after %d s\n" % LONGEST_S)
            return None
        if done.returncode != 0:
            sys.stderr.write(done.stderr.decode())
            return None
        return json.loads(done.stdout)


def version(program, flag):
    done = subprocess.run([program, flag], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return (done.stdout.decode().splitlines() or ["?"])[0]
