# SPDX-License-Identifier: Apache-2.0
"""Whole connections at random against the real process: how they begin, go on, end, and what comes behind their end.

    connfuzz.py SECONDS [--seed N] [--each S]    rounds of S (15) seconds, each with a new seed; N: that round alone

A peer sends legal and mutated packets in pieces of any size, of every version, for sessions that end with it or stay,
and answers, only reads, or does not. It ends by closing, a reset, half a close, silence, a takeover, DISCONNECT, an error or
a limit, in the middle of a large packet or not, and may send on behind that. Every few seconds the broker is stopped
under all of this and started again on its store. What has to hold: it ends by exit code 0 and reports nothing
(sanitizers, assertions), what it sends is well formed, clients beside that publish to themselves with QoS 1 get each
message and each answer, and no descriptor stays behind. NOCTULE_BIN names the program; a sanitizer's build finds most.
"""

import argparse
import collections
import os
import random
import select
import signal
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import broker  # noqa: E402
import wire  # noqa: E402
from noise import Noise, mutate  # noqa: E402
from wire import PUBACK, PUBLISH, PUBREC, PUBREL, Closed, Silence  # noqa: E402

SLOW = wire.SLOW
PEERS = 40                # at once
LIFE_S = 6.0              # of the broker, between two starts
WATCH_S = 60.0 * SLOW     # a busy machine is no fault
READ_AT_ONCE = 65536
LARGE = (66000, 300000, 1300000, 200000000)  # announced; see READ_SCRATCH and CONN_SCRATCH
BEGUN = (1, 300, 65000, 140000, 600000, 1250000)  # of these sent before it stalls
BEHIND = (1, 300, 70000, 600000, 3000000)

CONFIG = """sys_interval 1
max_inflight_messages 10
max_queued_messages 200
max_queued_bytes 4M
max_retained_messages 300
persistent_client_expiration 1h
connect_timeout 2
output_buffer_limit 256k
max_topic_levels 50
"""
LISTENERS = ["listener {port} 127.0.0.1", "listener 0 {dir}/s",
             "listener {port} 127.0.0.1\nmount_point m/\nmax_qos 1\nmax_topic_alias 3\naccept_protocol_versions 4,5"]


class Found(AssertionError):
    """What must not happen."""


class Peer:
    """One connection. life() is its script: it yields bytes to send, or the seconds to wait for the broker's end."""

    def __init__(self, fuzz, seed, client_id=None):
        self.fuzz = fuzz
        self.rng = rng = random.Random(seed)
        self.version = rng.choice((3, 4, 4, 5, 5, 5))
        self.noise = Noise(rng, self.version)
        self.takes = client_id is not None
        self.id = client_id or rng.choice(["f-%d" % i for i in range(16)] + [""] * 3)
        self.reads = rng.choices(("answers", "reads", "slowly", "never"), (6, 3, 1, 1))[0]
        self.piece = rng.choices((1, 9, 100, 5000, 1 << 22), (1, 2, 2, 3, 6))[0]
        self.is_legal = True   # so far: what comes back can be judged
        self.inbuf = bytearray()
        self.answers = []
        self.out = b""
        self.wait_until = 0.0
        self.is_ended = False  # by the broker
        self.sock = self.open(rng.choice(fuzz.broker.addresses))
        self.script = self.life()

    def open(self, address):
        sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        if self.reads == "never":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(wire.TIMEOUT)
        sock.connect(address)
        sock.setblocking(False)
        return sock

    # the script

    def life(self):
        rng = self.rng
        if not self.takes and rng.random() < 0.08:
            yield from self.no_connect()
        else:
            yield from self.session()
        if self.sock is not None and rng.random() < 0.7:
            yield from self.behind()
        self.close(rng.random() < 0.4)

    def no_connect(self):
        """Ends before there is a client: refused, too large, cut off, or nothing of the kind."""
        rng = self.rng
        self.is_legal = False
        head = self.noise.connect(self.id, 60)
        yield rng.choice((
            lambda: rng.randbytes(rng.randrange(1, 300)),
            lambda: head[:rng.randrange(len(head))],
            lambda: mutate(rng, head),
            lambda: self.noise.some() + head,
            lambda: wire.connect(self.id, level=9, username="u" * 60000, password=bytes(rng.randrange(65535))),
            # Large and whole, and refused for its 3.x client id of no length, or its level.
            lambda: wire.connect("", 4, clean=False, will=wire.Will("f/w", bytes(65000)), username="u" * 60000,
                                 password=bytes(rng.randrange(65535))),
            lambda: b"\x10" + wire.varint(rng.choice((200000, 300000))) + head[2:] + bytes(rng.choice((0, 66000, 150000))),
        ))()
        yield rng.choice((0.0, 0.05, 0.3, 3.0))

    def session(self):
        rng, end = self.rng, self.choose_end()
        head = self.noise.connect(self.id, 1 if end is self.end_silent else rng.choice((0, 1, 60)))
        for _ in range(rng.choice((0, 1, 3))):  # behind CONNECT, before its answer
            head += self.noise.some()
        yield head
        if rng.random() < 0.8:
            yield 0.02
        for _ in range(rng.choice((0, 1, 3, 10, 30))):
            if self.is_ended:
                return
            yield b"".join(self.noise.some() for _ in range(rng.choice((1, 1, 2, 10))))
            if rng.random() < 0.05:
                yield rng.uniform(0.0, 0.3)
        if rng.random() < 0.4 and not self.is_ended:
            yield from self.large()
        yield from end()

    def large(self):
        """A packet that begins, and stalls, or goes on later, or is complete at last."""
        total = self.rng.choice(LARGE)
        self.is_legal = False  # what follows may be taken for its payload
        part = self.rng.choice(BEGUN)
        yield self.noise.begun(total) + bytes(min(part, total))
        yield self.rng.choice((0.0, 0.0, 0.02, 0.2))
        if total < 2000000 and self.rng.random() < 0.3:
            yield bytes(total)
        elif self.rng.random() < 0.3:
            yield bytes(self.rng.choice(BEGUN))

    def choose_end(self):
        return self.rng.choices((self.end_here, self.end_half, self.end_silent, self.end_taken, self.end_wrong,
                                 self.end_limit, self.end_goodbye), (4, 2, 3, 4, 3, 2, 2))[0]

    def end_here(self):
        """By FIN or RST: what is behind is sent before it."""
        yield 0.0

    def end_half(self):
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        yield 1.0
        self.close()

    def end_silent(self):
        yield 2.5 * SLOW

    def end_taken(self):
        self.fuzz.add_later(self.rng.getrandbits(64), self.id)
        yield 1.5 * SLOW

    def end_wrong(self):
        self.is_legal = False
        yield self.noise.wrong()
        yield 0.5

    def end_limit(self):
        """Something of which there is a limit."""
        rng = self.rng
        self.is_legal = False
        yield rng.choice((
            lambda: b"".join(wire.publish("f/a", b"", 2, i + 1, version=self.version) for i in range(40)),  # inflight
            lambda: wire.publish("f/" + "/".join("x" * 60), "x", version=self.version),  # levels
            lambda: b"".join(wire.pingreq() for _ in range(20000)),
            lambda: b"\x30\xff\xff\xff\xff\x7f",
            lambda: wire.publish("$SYS/x", "x", 1, 1, version=self.version),
            lambda: wire.subscribe(1, *(("f/%d/#" % i, 1) for i in range(20000)), version=self.version),
        ))()
        yield 0.3

    def end_goodbye(self):
        yield self.noise.goodbye()
        yield self.rng.choice((0.0, 0.1))

    def behind(self):
        self.is_legal = False
        yield self.rng.choice((lambda: bytes(self.rng.choice(BEHIND)), self.noise.some, self.noise.wrong,
                               lambda: self.noise.connect(self.id, 60)))()
        yield self.rng.choice((0.0, 0.0, 0.1))

    # its life

    def close(self, by_reset=False):
        if self.sock is None:
            return
        if by_reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        self.sock = None

    def events(self):
        reads = select.POLLIN if self.reads != "never" and not self.is_ended else 0
        return reads | (select.POLLOUT if self.out or self.answers else 0)

    def turn(self, event, now):
        if event & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self.is_ended and self.reads != "never":
            self.read()
        if not self.out and self.answers:
            self.out, self.answers = b"".join(self.answers), []
        if self.out:
            self.send()
        elif self.is_ended or now >= self.wait_until:
            self.go_on(now)

    def go_on(self, now):
        step = next(self.script, None)
        if step is None:
            self.close()
        elif isinstance(step, bytes):
            self.out = step
        else:
            self.wait_until = now + step

    def send(self):
        n = max(self.piece, len(self.out) // 100)
        if n < len(self.out):
            n = self.rng.randrange(1, n + 1)
        try:
            self.out = self.out[self.sock.send(self.out[:n]):]
        except BlockingIOError:
            if self.reads == "never" and self.rng.random() < 0.01:
                self.out = b""
        except OSError:  # the broker is through with it
            self.out = b""
            self.is_ended = True

    def read(self):
        try:
            got = self.sock.recv(100 if self.reads == "slowly" else READ_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        if not got:
            self.is_ended = True
        elif self.reads == "answers" and self.is_legal:
            self.inbuf += got
            self.take()

    def take(self):
        at = 0
        while True:
            first, body, end = cut(self.inbuf, at)
            if first is None:
                break
            at = end
            self.answer(self.decode(first, body))
        del self.inbuf[:at]

    def decode(self, first, body):
        try:
            p = wire.Packet(first, body, self.version)
        except (AssertionError, IndexError, ValueError, struct.error) as e:
            raise Found("the broker sent what cannot be read (%s): %02x %s" % (e, first, body[:80].hex()))
        if p.type in (0, 1, 8, 10, 12, 15):
            raise Found("the broker sent a %r" % p)
        return p

    def answer(self, p):
        if p.type == PUBLISH and p.qos > 0 and self.rng.random() < 0.9:
            self.answers.append(wire.puback(p.pid) if p.qos == 1 else wire.pubrec(p.pid))
        elif p.type == PUBREC:
            self.answers.append(wire.pubrel(p.pid))
        elif p.type == PUBREL:
            self.answers.append(wire.pubcomp(p.pid))


def cut(buf, at):
    """(first byte, body, offset behind it) of the packet at `at`; (None, None, at) when it is not whole."""
    if len(buf) - at < 2:
        return None, None, at
    n = shift = 0
    for i in range(at + 1, min(at + 5, len(buf))):
        n |= (buf[i] & 0x7F) << shift
        shift += 7
        if not buf[i] & 0x80:
            end = i + 1 + n
            return (buf[at], bytes(buf[i + 1:end]), end) if end <= len(buf) else (None, None, at)
    return None, None, at


class Watcher(threading.Thread):
    """Clients beside, of each version and listener: each publishes to itself and waits for the answer and the message."""

    def __init__(self, addresses):
        super().__init__(daemon=True)
        self.is_over = threading.Event()
        self.wrong = None
        self.rounds = 0
        self.clients = []
        for i, (address, version) in enumerate((a, v) for a in addresses for v in (4, 5)):
            c = wire.Client(address, version)
            c.sock.settimeout(WATCH_S)
            c.connect("watcher-%d" % i, keepalive=0)
            c.subscribe(("watch/%d" % i, 1))
            self.clients.append(c)

    def run(self):
        try:
            while not self.is_over.wait(0.01):
                for i, c in enumerate(self.clients):
                    self.round(i, c)
                self.rounds += 1
            for c in self.clients:
                c.disconnect()
        except (Closed, Silence, Found, OSError) as e:
            self.wrong = "a client beside, after %d rounds: %s: %s" % (self.rounds, type(e).__name__, e)

    def round(self, i, c):
        payload = b"%d" % self.rounds
        c.send(wire.publish("watch/%d" % i, payload, 1, self.rounds % 65535 + 1, version=c.version), wire.pingreq())
        want = {wire.PUBACK, wire.PUBLISH, wire.PINGRESP}
        while want:
            p = c.recv(WATCH_S)
            if p.type not in want or (p.type == PUBLISH and p.payload != payload) or (
                    p.type == PUBACK and p.body[2:3] not in (b"", b"\0")):
                raise Found("round %d of client %d: got %r" % (self.rounds, i, p))
            want.remove(p.type)
            if p.type == PUBLISH:
                c.send(wire.puback(p.pid))

    def stop(self):
        self.is_over.set()
        self.join(WATCH_S)
        for c in self.clients:
            c.close()


class Fuzz:
    """A broker and its peers, for so long."""

    def __init__(self, seed, seconds):
        self.seed, self.seconds = seed, seconds
        self.rng = random.Random(seed)
        self.peers = []
        self.later = collections.deque()
        self.count = self.rounds = self.lives = 0
        self.broker = None
        self.watcher = None

    def run(self):
        rng = self.rng
        config = "shards %d\nacceptors %d\n" % (rng.choice((1, 2, 3)), rng.choice((1, 2))) + CONFIG
        config += "persistence true\npersistence_location {dir}/store\n" if rng.random() < 0.7 else ""
        print("connfuzz: seed %d, %.0f s, %s" % (self.seed, self.seconds, ", ".join(config.split("\n")[:2])), flush=True)
        begin = time.monotonic()
        with broker.Broker(config, LISTENERS, args=()) as self.broker:
            try:
                while time.monotonic() - begin < self.seconds:
                    self.live(min(LIFE_S, self.seconds - (time.monotonic() - begin)))
            except AssertionError as e:
                raise Found("seed %d, %d connections: %s" % (self.seed, self.count, e)) from e
        print("connfuzz: seed %d: %d connections, %d rounds beside, %d stops" % (self.seed, self.count, self.rounds,
                                                                                 self.lives), flush=True)

    def live(self, seconds):
        """One life of the broker: its end comes while all talk."""
        fds = self.broker.fds()
        self.watcher = Watcher(self.broker.addresses)
        self.watcher.start()
        try:
            self.turns(time.monotonic() + seconds)
            if self.rng.random() < 0.5:
                self.quiet(fds)
        finally:
            self.watcher.stop()
            self.rounds += self.watcher.rounds
        self.check()
        self.broker.stop(30)
        self.lives += 1
        self.drop_peers()
        self.broker.start()

    def quiet(self, fds):
        """All have gone: nothing of them stays open."""
        self.drop_peers()
        broker.wait_until(lambda: not self.broker.is_running() or
                          self.broker.fds() <= fds + len(self.watcher.clients) + 2, "descriptors are free", 20)

    def drop_peers(self):
        for p in self.peers:
            p.close()
        self.peers = []
        self.later.clear()

    def add_later(self, seed, client_id):
        self.later.append((seed, client_id))

    def add(self):
        """New ones in the place of those that have gone. A backlog that is full for a moment is no fault."""
        self.peers = [p for p in self.peers if p.sock is not None]
        while len(self.peers) < PEERS or self.later:
            seed, client_id = self.later.popleft() if self.later else (self.rng.getrandbits(64), None)
            try:
                self.peers.append(Peer(self, seed, client_id))
                self.count += 1
            except OSError:
                return

    def turns(self, until):
        next_reload = time.monotonic() + 1.0
        while time.monotonic() < until:
            self.add()
            self.turn()
            if time.monotonic() > next_reload:
                self.check()
                self.broker.signal(signal.SIGHUP)
                next_reload = time.monotonic() + 1.0

    def turn(self):
        poll = select.poll()
        by_fd = {}
        for p in self.peers:
            poll.register(p.sock, p.events())
            by_fd[p.sock.fileno()] = p
        events = dict(poll.poll(2))
        now = time.monotonic()
        for fd, p in by_fd.items():
            if p.sock is not None:
                p.turn(events.get(fd, 0), now)

    def check(self):
        if not self.broker.is_running():
            self.broker.judge()
            raise Found("the broker ended with %d:\n%s" % (self.broker.process.returncode, self.broker.log()[-3000:]))
        if self.watcher.wrong is not None:
            raise Found(self.watcher.wrong)


def main():
    p = argparse.ArgumentParser(description="see the head of this file")
    p.add_argument("seconds", type=float)
    p.add_argument("--seed", type=int, default=None)
    p.add_argument("--each", type=float, default=15.0)
    args = p.parse_args()
    begin = time.monotonic()
    if args.seed is not None:
        Fuzz(args.seed, args.seconds).run()
        return
    while time.monotonic() - begin < args.seconds:
        Fuzz(random.SystemRandom().getrandbits(32), min(args.each, args.seconds)).run()


if __name__ == "__main__":
    main()
