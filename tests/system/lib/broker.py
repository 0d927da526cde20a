# SPDX-License-Identifier: Apache-2.0
"""Starts the broker for a test: own directory, own ports, own configuration; stops and judges it.

Environment: NOCTULE_BIN names the program. BROKER=mosquitto runs the same tests against mosquitto: keys of
our own are left out then, and tests marked `deviates` are expected to fail there.
"""

import fcntl
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import wire  # noqa: E402

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
IS_MOSQUITTO = os.environ.get("BROKER") == "mosquitto"
BIN = os.environ.get("NOCTULE_BIN") or (
    shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
    if IS_MOSQUITTO else os.path.join(ROOT, "build", "dev", "bin", "noctule"))
SLOW = wire.SLOW

OUR_KEYS = {"shards", "acceptors", "store_delay", "max_topic_levels", "connect_timeout",
            "max_subscriptions_per_client", "max_retained_messages", "max_retained_bytes", "retained_memory_size",
            "max_connect_size", "output_buffer_limit", "max_connections_pending", "accept_control_characters", "will_grace"}
REPORT = re.compile(r"(AddressSanitizer|ThreadSanitizer|LeakSanitizer|runtime error:|Assertion .* failed)")


def deviates(reason):
    """The test states what is right; mosquitto 2.0.11 does something else (it must, or the note is stale)."""
    def mark(test):
        test.__doc__ = (test.__doc__ or "") + "\nmosquitto: " + reason
        return unittest.expectedFailure(test) if IS_MOSQUITTO else test
    return mark


def ours(reason):
    """The test needs something only noctule has."""
    return unittest.skipIf(IS_MOSQUITTO, "noctule only: " + reason)


class Port:
    """A TCP port nobody else of ours uses: outside the ephemeral range, held by a lock file."""

    def __init__(self):
        folder = os.path.join(tempfile.gettempdir(), "noctule-test-ports-%d" % os.getuid())
        os.makedirs(folder, exist_ok=True)
        while True:
            self.number = random.SystemRandom().randrange(10000, 32000)
            self.lock = open(os.path.join(folder, str(self.number)), "w")
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                    with socket.socket(family) as s:
                        s.bind((host, self.number))
                return
            except OSError:
                self.lock.close()

    def release(self):
        self.lock.close()


class Broker:
    """
    config: lines below the generated ones. listeners: [(port line suffix, [keys below it])], each given as
    text with {port} and {dir} filled in; the default is one on 127.0.0.1.

        with Broker("max_queued_messages 10") as b:
            c = b.client().connect("me")
    """

    def __init__(self, config="", listeners=None, anonymous=True, nofile=None, args=("-v",), stderr=None,
                 start=True, general=True):
        self.dir = tempfile.mkdtemp(prefix="noctule-test-")
        os.chmod(self.dir, 0o755)
        self.unix = os.path.join(self.dir, "s")
        self.ports = []
        self.addresses = []
        self.log_path = os.path.join(self.dir, "log")
        self.conf_path = os.path.join(self.dir, "conf")
        self.nofile, self.args, self.stderr = nofile, args, stderr
        self.process = None
        lines = []
        if general:
            lines.append("user root")  # with another user the files of the test could not be reached
            if "shards" not in config:
                lines += ["shards 3", "acceptors 2"]
            if anonymous is not None:
                lines.append("allow_anonymous %s" % ("true" if anonymous else "false"))
        lines += [self._fill(line.strip()) for line in config.splitlines() if line.strip()]
        for text in (listeners or ["listener {port} 127.0.0.1"]):
            lines += self._listener(text)
        if IS_MOSQUITTO:
            lines = [line for line in lines if line.split()[0] not in OUR_KEYS]
        with open(self.conf_path, "w") as f:
            f.write("\n".join(lines) + "\n")
        if start:
            self.start()

    def _fill(self, text):
        return text.replace("{dir}", self.dir)

    def _listener(self, text):
        lines = [self._fill(line.strip()) for line in text.splitlines() if line.strip()]
        if "{port}" in lines[0]:
            port = Port()
            self.ports.append(port)
            lines[0] = lines[0].replace("{port}", str(port.number))
        words = lines[0].split()
        if words[0] == "listener" and words[1] == "0":
            self.addresses.append(words[2])
        else:
            host = words[2] if len(words) > 2 and words[0] == "listener" else "127.0.0.1"
            self.addresses.append((host, int(words[1])))
        return lines

    # life

    def start(self):
        argv = [BIN, "-c", self.conf_path] + list(self.args)
        out = open(self.log_path, "ab") if self.stderr is None else self.stderr
        env = dict(os.environ)
        env.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0")
        env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")

        def limits():
            import resource
            if self.nofile is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (self.nofile, self.nofile))

        begin = time.monotonic()
        self.process = subprocess.Popen(argv, cwd=self.dir, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                        env=env, preexec_fn=limits)
        if self.stderr is None:
            out.close()
        for address in self.addresses:
            self._wait_ready(address, begin)
        self.ready_s = time.monotonic() - begin
        return self

    def _wait_ready(self, address, begin):
        while True:
            if self.process.poll() is not None:
                raise AssertionError("broker ended with %d at start:\n%s" % (self.process.returncode,
                                                                            self.log()))
            try:
                wire.Client(address).close()
                return
            except OSError:
                if time.monotonic() - begin > 10 * SLOW:
                    self.kill()
                    raise AssertionError("broker not ready:\n" + self.log())
                time.sleep(0.005)

    def stop(self, timeout=10.0):
        """SIGTERM; the exit code is 0 and the log free of sanitizer reports."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.process = None
            raise AssertionError("broker did not end within %.0f s of SIGTERM:\n%s" % (
                timeout * SLOW, self.log()[-4000:]))
        self.process = None
        self.judge()
        if code != 0:
            raise AssertionError("broker ended with %d:\n%s" % (code, self.log()[-8000:]))

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self):
        self.stop()
        return self.start()

    def close(self):
        try:
            self.stop()
        finally:
            self.kill()
            for port in self.ports:
                port.release()
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            sys.stderr.write("--- log of the broker (end)\n%s---\n" % self.log()[-6000:])
            try:
                self.close()
            except AssertionError as e:  # the first failure is the one to report
                sys.stderr.write("%s\n" % e)
        else:
            self.close()

    # looking at it

    def log(self):
        try:
            with open(self.log_path, errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def judge(self):
        text = self.log()
        found = REPORT.search(text)
        if found:
            raise AssertionError("the log has a report:\n" + text[max(0, found.start() - 200):][:12000])

    @property
    def pid(self):
        return self.process.pid

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def cpu_s(self):
        with open("/proc/%d/stat" % self.pid) as f:
            words = f.read().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def status_kb(self, name):
        with open("/proc/%d/status" % self.pid) as f:
            for line in f:
                if line.startswith(name + ":"):
                    return int(line.split()[1])
        raise AssertionError("no %s in /proc/PID/status" % name)

    def fds(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))

    def signal(self, which):
        self.process.send_signal(which)

    # talking to it

    @property
    def port(self):
        return self.addresses[0][1]

    def client(self, version=4, which=0, **options):
        return wire.Client(self.addresses[which], version, **options)

    def connect(self, client_id="", version=4, which=0, present=False, rc=0, **fields):
        return self.client(version, which).connect(client_id, present, rc, **fields)


def run_broken(config_text, name="conf", args=()):
    """For configurations that are refused: (exit code, output)."""
    folder = tempfile.mkdtemp(prefix="noctule-test-")
    try:
        path = os.path.join(folder, name)
        with open(path, "w") as f:
            f.write(config_text)
        try:
            done = subprocess.run([BIN, "-c", path] + list(args), cwd=folder, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10 * SLOW)
        except subprocess.TimeoutExpired as e:
            return None, (e.stdout or b"").decode(errors="replace")
        return done.returncode, done.stdout.decode(errors="replace")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(condition, what, timeout=5.0):
    """Polls; for what has no packet that tells."""
    deadline = time.monotonic() + timeout * SLOW
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("not within %.1f s: %s" % (timeout * SLOW, what))
        time.sleep(0.01)


class BrokerTest(unittest.TestCase):
    """One broker for the tests of a class; `config` and `listeners` as for Broker."""

    config = ""
    listeners = None
    anonymous = True

    @classmethod
    def setUpClass(cls):
        cls.broker = Broker(cls.config, cls.listeners, cls.anonymous)

    @classmethod
    def tearDownClass(cls):
        cls.broker.close()

    def setUp(self):
        self.clients = []
        self.name = self.id().rsplit(".", 1)[1]  # prefix for topics and client ids: tests do not meet

    def tearDown(self):
        for c in self.clients:
            c.close()
        self.assertTrue(self.broker.is_running(), "the broker died:\n" + self.broker.log()[-4000:])
        # Retained messages and durable sessions left behind are the next test's problem only if it uses
        # the same names, which it does not.

    def client(self, version=4, which=0, **options):
        c = self.broker.client(version, which, **options)
        self.clients.append(c)
        return c

    def connect(self, client_id=None, version=4, which=0, present=False, rc=0, **fields):
        c = self.client(version, which)
        if client_id is None:
            client_id = "%.12s-%d" % (self.name, len(self.clients))
        return c.connect(client_id, present, rc, **fields)


def main():
    unittest.main(verbosity=2, module="__main__", warnings="ignore")
