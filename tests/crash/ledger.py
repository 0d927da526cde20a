# SPDX-License-Identifier: Apache-2.0
"""Kills the broker under load and keeps the books: what it has acknowledged is there after each start.

    ledger.py [--kills N] [--seed N] [--control] [--keep DIR]

The clients live here, outside the broker, and keep their half of every session. What a violation is, stands
beside the checks below; the first one ends the run with its seed and its story. --control starts the broker with
`durability memory`, which acknowledges before the commit, on a disk that syncs slowly: the run then has
to end with a loss.
"""

import argparse
import collections
import os
import random
import select
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import broker  # noqa: E402
import wire  # noqa: E402
from durable import DurableBroker  # noqa: E402
from peer import Peer, Violation  # noqa: E402

SLOW = wire.SLOW
WINDOW = 48         # of a publisher, PUBLISHes without an answer
BEHIND = 1500       # publishers pause while a connected subscriber is so many messages behind
TOPICS = 8          # retained, per publisher
FILTERS = 6         # that come and go, per churner
TRACE = 500000


class Stream:
    """One topic: its messages are numbered 1, 2, ... and published at one QoS by one publisher."""

    def __init__(self, topic, qos, expires):
        self.topic, self.qos, self.expires = topic, qos, expires
        self.sent = 0
        self.promised = 0     # answered with PUBACK or PUBREC
        self.resent = {}      # seq -> when, for those sent more than once


class Publisher(Peer):
    """Two streams, one of QoS 1 and one of QoS 2; with 5.0 a third whose messages expire."""

    def __init__(self, world, name, version):
        super().__init__(world, name, version)
        self.streams = [Stream("led/%s/%d" % (name, qos), qos, False) for qos in (1, 2)]
        if version == 5:
            self.streams.append(Stream("exp/%s" % name, 1, True))
        self.by_topic = {s.topic: s for s in self.streams}

    def on_up(self):
        for o in list(self.waiting[1].values()) + list(self.waiting[2].values()):
            self.by_topic[o.topic].resent[o.seq] = time.time()  # its expiry begins anew

    def on_promise(self, out):
        self.by_topic[out.topic].promised = out.seq

    def generate(self):
        rng = self.world.rng
        while self.inflight() < WINDOW:
            s = rng.choice(self.streams)
            s.sent += 1
            self.world.published += 1
            expiry, block = 0, b"\0"
            if s.expires:
                expiry = rng.choice((1, 1, 2, 3))
                block = wire.props((0x02, expiry))
            elif self.version == 5 and rng.random() < 0.3:
                expiry = 3600
                block = wire.props((0x26, ("seq", str(s.sent))), (0x02, expiry))
            pad = b"x" * (rng.randrange(2000, 30000) if rng.random() < self.world.heavy else
                          rng.randrange(0, 200))
            self.publish(s.topic, b"%d %.3f %d %s" % (s.sent, time.time(), expiry, pad), s.qos, s.sent,
                         props=block)


class Subscriber(Peer):
    """Every message of every stream, once and in order: QoS 2. At QoS 1 repeats are allowed."""

    def __init__(self, world, name, version, qos):
        super().__init__(world, name, version)
        self.qos = qos
        self.filters = [("led/#", qos), ("exp/#", qos)]
        self.last = collections.Counter()    # topic -> the newest number that came
        self.last_here = {}                  # the same on this connection
        self.total = 0
        self.away = False

    def on_up(self):
        self.last_here = {}

    def on_message(self, topic, payload, qos, dup, props):
        seq, sent_at, expiry = payload.split(b" ", 3)[:3]
        seq, sent_at, expiry = int(seq), float(sent_at), int(expiry)
        self.note("gets PUBLISH" + (" dup" if dup else ""), topic, seq)
        stream = self.world.streams[topic]
        last = self.last[topic]
        if self.version == 5:
            self._properties(topic, seq, sent_at, expiry, dup, dict(props))
        if qos != min(self.qos, stream.qos):
            self.fail("protocol", "%s %d came with QoS %d" % (topic, seq, qos), topic, seq)
        if seq > stream.sent:
            self.fail("protocol", "%s %d was never sent" % (topic, seq), topic, seq)
        if seq <= last:
            self._repeated(stream, seq, last, dup, qos)
        elif seq != last + 1 and not stream.expires:
            self.fail("loss", "%s: %d came after %d: what is between is missing (%d were acknowledged)" % (
                topic, seq, last, stream.promised), topic, last + 1)
        else:
            self.last[topic] = seq
            self.total += seq - last
        if stream.qos == 2:  # the publisher's repeats vanish, so each connection sees rising numbers
            if seq <= self.last_here.get(topic, 0):
                self.fail("order", "%s: %d came after %d" % (topic, seq, self.last_here[topic]), topic, seq)
            self.last_here[topic] = seq

    def _repeated(self, stream, seq, last, dup, qos):
        if qos == 2:
            self.fail("twice", "%s %d came twice, %d was the newest" % (stream.topic, seq, last),
                      stream.topic, seq)
        self.world.repeats += 1
        if not dup and seq not in stream.resent:
            self.world.silent_repeats += 1
            text = "%s: %s %d came before, now it came without DUP" % (self.name, stream.topic, seq)
            self.note(text, stream.topic, seq)
            if self.world.first_silent is None:
                self.world.first_silent = Violation("protocol", text, self.name, stream.topic, seq)
                self.world.first_silent.trace = list(self.world.trace)

    def _properties(self, topic, seq, sent_at, expiry, dup, props):
        age = time.time() - self.world.streams[topic].resent.get(seq, sent_at)
        left = props.get(0x02)
        if (left is not None) != (expiry > 0):
            self.fail("protocol", "%s %d: expiry %r, sent with %d" % (topic, seq, left, expiry), topic, seq)
        if left is None:
            return
        if not expiry - age - 2 * SLOW <= left <= expiry:
            self.fail("protocol", "%s %d: %d s left of %d after %.1f s" % (topic, seq, left, expiry, age),
                      topic, seq)
        # One that was sent before may come again: DUP. What is in socket buffers is out of the broker's hands.
        if expiry < 10 and not dup and age > expiry + 1.5 * SLOW + self.world.pause_max:
            self.fail("revived", "%s %d expired after %d s and came after %.1f" % (topic, seq, expiry, age),
                      topic, seq)
        if expiry == 3600 and props.get(0x26) != ("seq", str(seq)):
            self.fail("protocol", "%s %d: user property %r" % (topic, seq, props.get(0x26)), topic, seq)


class Retainer(Peer):
    """
    Sets and clears retained messages. A topic's operations are numbered and of one QoS; after a start its
    value is that of the last acknowledged operation or of a later one.
    """

    def __init__(self, world, name, version):
        super().__init__(world, name, version)
        self.ops = {}     # topic -> deque of (number, cleared), from the last acknowledged one on
        for k in range(TOPICS):
            self.ops["ret/%s/%d" % (name, k)] = collections.deque([(0, True)])

    def on_promise(self, out):
        ops = self.ops[out.topic]
        while ops[0][0] < out.seq:
            ops.popleft()

    def generate(self):
        rng = self.world.rng
        while self.inflight() < 12:
            topic = rng.choice(list(self.ops))
            ops = self.ops[topic]
            clear = rng.random() < 0.3
            number = ops[-1][0] + 1
            ops.append((number, clear))
            pad = b"y" * rng.choice((0, 10, 100, 3000))
            self.publish(topic, b"" if clear else b"%d %s" % (number, pad), 1 + int(topic[-1]) % 2, number,
                         retain=True)

    def check(self, topic, payload):
        """payload: None if there is none."""
        ops = self.ops[topic]
        if payload is None:
            if not any(clear for _, clear in ops):
                raise Violation("loss", "%s: no retained message, %d was acknowledged (last sent %d)" % (
                    topic, ops[0][0], ops[-1][0]), self.name, topic, ops[0][0])
            return
        number = int(payload.split(b" ", 1)[0])
        if (number, False) not in ops:
            raise Violation("loss" if number < ops[0][0] else "protocol",
                            "%s: the retained message is %d, acknowledged %s %d (last sent %d)" % (
                                topic, number, "the clear" if ops[0][1] else "was", ops[0][0], ops[-1][0]),
                            self.name, topic, ops[0][0])


class Churner(Peer):
    """
    Subscribes and unsubscribes, one operation at a time. After each start a probe goes to all its filters; until
    that has come it changes nothing. An acknowledged operation stands; one without an answer may.
    """

    def __init__(self, world, name, version):
        super().__init__(world, name, version)
        self.filters = [("churn/%s/end" % name, 1)]
        self.state = [{False} for _ in range(FILTERS)]  # what may be
        self.pending = None                              # (pid, k, subscribed)
        self.probes = {}                                 # round -> set of k
        self.owed = None                                 # the probe that is to come
        self.next_at = 0.0
        self.done = 0

    def generate(self):
        if self.pending is not None or self.owed is not None or time.monotonic() < self.next_at:
            return
        k = self.world.rng.randrange(FILTERS)
        subscribed = True not in self.state[k]
        pid = self.free_pid()
        name = "churn/%s/%d" % (self.name, k)
        self.pending = (pid, k, subscribed)
        self.state[k] = {True, False}
        if subscribed:
            self.out += wire.subscribe(pid, (name, 1), version=self.version)
        else:
            self.out += wire.unsubscribe(pid, name, version=self.version)
        self.note("SUBSCRIBE" if subscribed else "UNSUBSCRIBE", name)

    def on_up(self):
        self.pending = None  # no answer will come: state[] stays open until the probe tells

    def on_suback(self, kind, pid, codes):
        if self.pending is None or self.pending[0] != pid:
            return
        _, k, subscribed = self.pending
        if kind != (wire.SUBACK if subscribed else wire.UNSUBACK):
            self.fail("protocol", "the wrong answer to a subscription")
        self.note("gets SUBACK" if subscribed else "gets UNSUBACK", "churn/%s/%d" % (self.name, k))
        self.state[k] = {subscribed}
        self.pending = None
        self.done += 1
        self.next_at = time.monotonic() + 0.003

    def on_message(self, topic, payload, qos, dup, props):
        number = int(payload)
        last = topic.rsplit("/", 1)[1]
        self.note("gets probe", topic, number)
        if last != "end":
            self.probes.setdefault(number, set()).add(int(last))
            return
        seen = self.probes.pop(number, set())
        if number != self.owed:
            return
        self.owed = None
        for k, may in enumerate(self.state):
            if (k in seen) not in may:
                topic = "churn/%s/%d" % (self.name, k)
                if k in seen:
                    self.fail("revived", "the subscription of %s is back, its UNSUBACK had come" % topic, topic)
                self.fail("loss", "the subscription of %s is gone, its SUBACK had come" % topic, topic)
            self.state[k] = {k in seen}


class World:
    def __init__(self, seed, control):
        self.seed, self.control = seed, control
        self.rng = random.Random(seed)
        self.trace = collections.deque(maxlen=TRACE)
        self.begin = time.monotonic()
        self.epoll = select.epoll()
        self.by_fd = {}
        self.abandoned = []
        self.kills = self.stops = self.published = self.received = self.repeats = self.silent_repeats = 0
        self.takeovers = self.folds = 0
        self.state_at = 0         # when the tables were written last before the broker was ready
        self.first_silent = None  # [MQTT-3.3.1-1]; told at the end, since worse may be found until then
        self.is_stopping = False  # SIGTERM is told to clients of 5.0
        self.heavy = 0.0
        self.pause_max = 0.5
        self.round = 0
        self.publishers = [Publisher(self, "p%d" % i, 4 + i % 2) for i in range(6)]
        self.subscribers = [Subscriber(self, "s%d" % i, 4 + i // 2 % 2, 1 if i % 4 == 3 else 2)
                            for i in range(8)]
        self.retainers = [Retainer(self, "r%d" % i, 4 + i) for i in range(2)]
        self.churners = [Churner(self, "c%d" % i, 4 + i % 2) for i in range(4)]
        self.peers = self.subscribers + self.publishers + self.retainers + self.churners
        self.streams = {s.topic: s for p in self.publishers for s in p.streams}
        self.broker = DurableBroker("max_queued_bytes 1073741824\nmemory_limit 0\n" +
                                    ("durability memory" if control else ""), shards=4, args=())
        self.address = self.broker.addresses[0]

    # the event loop

    def register(self, peer):
        self.by_fd[peer.sock.fileno()] = peer
        peer.wants_write = True
        self.epoll.register(peer.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def modify(self, peer):
        self.epoll.modify(peer.sock.fileno(),
                          select.EPOLLIN | (select.EPOLLOUT if peer.wants_write else 0))

    def unregister(self, sock):
        self.epoll.unregister(sock.fileno())
        del self.by_fd[sock.fileno()]

    def abandon(self, sock):
        """Still open, never read again: what a client that has moved leaves behind."""
        if sock is not None:
            self.abandoned.append(sock)

    def note(self, who, event, topic=None, seq=None, pid=None):
        self.trace.append((time.monotonic() - self.begin, who, event, topic, seq, pid))

    def turn(self, timeout=0.01, is_down=False):
        """One round of events; what the sockets of a dead broker still hold is read to the end."""
        for fd, _ in self.epoll.poll(timeout):
            peer = self.by_fd.get(fd)
            if peer is None:
                continue
            if not peer.read() and peer.sock is not None:
                if not is_down:
                    self.check_alive()
                    peer.fail("protocol", "the broker closed the connection")
                peer.drop()
        if not is_down:
            for peer in list(self.by_fd.values()):
                peer.flush()

    def check_alive(self):
        time.sleep(0.05)
        if not self.broker.is_running():
            raise Violation("broker", "the broker ended by itself: %s" % self.broker.process.poll())

    def load(self, seconds, generate=True):
        """Everybody at work for so long."""
        end = time.monotonic() + seconds
        takeover_at = time.monotonic() + self.rng.uniform(0.02, 0.4)
        leave_at = time.monotonic() + self.rng.uniform(0, seconds)
        while True:
            now = time.monotonic()
            if now >= end:
                return
            if generate:
                self.generate()
                if now > takeover_at:
                    takeover_at = now + self.rng.uniform(0.02, 0.4)
                    self.one_takes_over()
                if now > leave_at:
                    leave_at = end
                    self.some_leave()
            self.turn()

    def generate(self):
        online = [s for s in self.subscribers if s.up]
        total = sum(s.sent for s in self.streams.values())
        behind = max((total - s.total for s in online), default=0)
        for peer in self.publishers:
            if peer.up and behind < BEHIND:
                peer.generate()
        for peer in self.retainers + self.churners:
            if peer.up:
                peer.generate()

    def one_takes_over(self):
        peer = self.rng.choice(self.subscribers + self.publishers + self.retainers)
        if peer.up:
            peer.take_over()
            self.takeovers += 1

    def some_leave(self):
        """Two subscribers are away when the broker dies; those away before come back."""
        for peer in self.subscribers:
            peer.away = False
        for peer in self.rng.sample(self.subscribers, 2):
            peer.away = True
            peer.drop()

    # deaths and starts

    def die(self, how):
        self.note("broker", "SIGKILL" if how == "kill" else "SIGTERM")
        if how == "kill":
            self.broker.kill()
            self.kills += 1
        else:
            self.is_stopping = True
            self.broker.stop(30)
            self.stops += 1
        while self.by_fd:
            self.turn(0.0, is_down=True)
        self.is_stopping = False
        for sock in self.abandoned:
            sock.close()
        self.abandoned = []
        self.broker.judge()
        self.folds += self.state_written() != self.state_at

    def state_written(self):
        return [changed for path, _, changed in self.broker.files() if "/state/" in path]

    def false_start(self):
        """Killed while it recovers, or a little before or after that."""
        addresses, self.broker.addresses = self.broker.addresses, []  # nobody waits until it listens
        self.broker.start()
        self.broker.addresses = addresses
        time.sleep(self.rng.uniform(0.0, 0.12) * SLOW)
        if not self.broker.is_running():
            raise Violation("broker", "the broker ended by itself at its start: %s" %
                            self.broker.process.poll())
        self.broker.kill()
        self.kills += 1
        self.note("broker", "SIGKILL while it starts")

    def start(self):
        self.round += 1
        while self.rng.random() < 0.12:
            self.false_start()
        sync = 100000 if self.control else self.rng.choice((0, 0, 0, 1000, 5000, 30000))
        shards = self.rng.choice((4, 4, 4, 4, 3, 5))
        begin = time.monotonic()
        try:
            self.broker.start(shards=shards, sync_us=sync)
        except AssertionError as e:
            raise Violation("broker", "no start: %s" % e)
        self.note("broker", "starts with %d shards, syncs %d us longer, after %.0f ms" % (
            shards, sync, 1000 * (time.monotonic() - begin)))
        self.state_at = self.state_written()
        self.heavy = self.rng.choice((0, 0, 0.02, 0.2))
        self.check_retained()
        self.probe()
        for peer in self.peers:
            if not getattr(peer, "away", False):
                peer.open()

    def check_retained(self):
        """Before anybody sends anything."""
        wanted = {t: r for r in self.retainers for t in r.ops}
        got = {}
        with wire.Client(self.address) as c:
            c.connect("checker").subscribe(("ret/#", 0))
            c.send(wire.pingreq())
            alive = False
            must = {t for t, r in wanted.items() if not any(clear for _, clear in r.ops[t])}
            while True:
                try:
                    m = c.recv(0.03 * SLOW if alive and must <= set(got) else 3 * SLOW)
                except wire.Silence:
                    break
                if m.type == wire.PINGRESP:
                    alive = True
                    continue
                if m.topic in got:
                    raise Violation("twice", "retained %s came twice" % m.topic, "checker", m.topic)
                got[m.topic] = m.payload
            c.send(wire.disconnect())
        for topic, retainer in wanted.items():
            payload = got.pop(topic, None)
            self.note("checker", "finds %r" % (payload and payload[:12]), topic)
            retainer.check(topic, payload)
        if got:
            raise Violation("protocol", "retained messages of nobody: %r" % got)

    def probe(self):
        with wire.Client(self.address) as c:
            c.connect("prober")
            pids = 0
            for peer in self.churners:
                if not peer.subscribed:
                    continue
                for last in list(range(FILTERS)) + ["end"]:
                    pids += 1
                    c.send(wire.publish("churn/%s/%s" % (peer.name, last), b"%d" % self.round, 1, pids))
                peer.owed = self.round
            c.expect(*(wire.puback(i + 1) for i in range(pids)), timeout=20 * SLOW)
            c.send(wire.disconnect())

    def settle(self):
        """Nothing new; everybody is there: in the end each subscriber has each message."""
        for peer in self.subscribers:
            peer.away = False
        for peer in self.peers:
            if peer.sock is None:
                peer.open()
        deadline = time.monotonic() + 40 * SLOW
        while time.monotonic() < deadline:
            self.load(0.05, generate=False)
            if all(p.up and p.inflight() == 0 and not p.in_ids for p in self.peers) and \
                    not any(self.missing()) and all(c.owed is None for c in self.churners):
                return
        for text, name, topic, seq in self.missing():
            raise Violation("loss", text, name, topic, seq)
        for p in self.peers:
            if not p.up or p.inflight() or p.in_ids:
                raise Violation("loss", "%s: up %d, %d PUBLISHes without an answer (QoS 1 %r, QoS 2 %r, "
                                "released %r), %d identifiers never released" % (
                                    p.name, p.up, p.inflight(), list(p.waiting[1])[:5],
                                    list(p.waiting[2])[:5], list(p.released)[:5], len(p.in_ids)), p.name)
        raise Violation("loss", "a churner's probe never came")

    def missing(self):
        for s in self.subscribers:
            for stream in self.streams.values():
                if not stream.expires and s.last[stream.topic] != stream.sent:
                    yield ("%s: %s ends with %d, %d were sent, %d acknowledged, and nothing comes" % (
                        s.name, stream.topic, s.last[stream.topic], stream.sent, stream.promised),
                        s.name, stream.topic, s.last[stream.topic] + 1)

    def run(self, kills):
        for peer in self.peers:
            peer.open()
        while not all(p.up and (p.subscribed or not p.filters) for p in self.peers):
            self.turn()
        while self.kills < kills:
            self.load(self.rng.choices((self.rng.uniform(0.01, 0.1), self.rng.uniform(0.2, 1.0),
                                        self.rng.uniform(1.0, 3.0)), (2, 7, 1))[0] * max(1, SLOW / 2))
            self.die("stop" if self.rng.random() < 0.08 else "kill")
            if self.rng.random() < 0.15:
                time.sleep(self.rng.uniform(0.5, 1.5))  # something expires meanwhile
            self.start()
            if self.rng.random() < 0.08:
                self.load(0.05)
                self.settle()
            if self.kills % 20 == 0:
                self.report()
        self.load(0.3)
        self.settle()
        self.broker.stop(30)

    # words

    def report(self):
        print("%6.1f s: %d kills, %d stops, %d runs with a fold, %d published, %d received, %d promised, %d takeovers, "
              "%d subscriptions changed, %d repeats at QoS 1 (%d without DUP)" % (
                  time.monotonic() - self.begin, self.kills, self.stops, self.folds, self.published, self.received,
                  sum(s.promised for s in self.streams.values()), self.takeovers,
                  sum(c.done for c in self.churners), self.repeats, self.silent_repeats), flush=True)

    def story(self, v):
        """What is known about the message, or else the last that the client saw."""
        lines = v.trace or list(self.trace)
        about = [e for e in lines if v.topic is not None and e[3] == v.topic and
                 (v.seq is None or e[4] == v.seq)][-80:]
        own = [e for e in lines if e[1] == v.peer][-40:]
        near = [e for e in lines if e[1] == "broker"][-6:]
        near += [e for e in lines if e[1] == v.peer and "connect" in e[2]][-8:]
        for e in sorted(set(about + own + near), key=lambda e: e[0]):
            print("  %9.4f %-8s %s%s%s%s" % (e[0], e[1], e[2], " %s" % e[3] if e[3] else "",
                                            " %s" % e[4] if e[4] is not None else "",
                                            " (identifier %d)" % e[5] if e[5] else ""))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--kills", type=int, default=10)
    p.add_argument("--seed", type=int, default=None)
    p.add_argument("--control", action="store_true")
    p.add_argument("--keep", metavar="DIR", help="where the store of a violation is copied to")
    a = p.parse_args()
    seed = a.seed if a.seed is not None else random.SystemRandom().randrange(1 << 31)
    print("seed %d" % seed, flush=True)
    w = World(seed, a.control)
    try:
        w.run(a.kills)
        if w.first_silent is not None and not a.control:
            raise w.first_silent
    except Violation as v:
        w.report()
        if a.control and v.kind == "loss":
            print("control: caught after %d kills: %s" % (w.kills, v))
            return 0
        print("VIOLATION (%s) with seed %d after %d kills: %s" % (v.kind, seed, w.kills, v))
        w.story(v)
        if a.keep:
            w.broker.kill()
            os.system("cp -a '%s' '%s'" % (w.broker.dir, a.keep))
        log = w.broker.log()
        found = broker.REPORT.search(log)
        sys.stdout.write("--- log of the broker (end)\n%s\n" % (
            log[found.start():][:12000] if found else log[-3000:]))
        return 1
    finally:
        w.broker.kill()
        w.broker.close()
    w.report()
    if a.control:
        print("the control was NOT caught: %d kills of a broker that acknowledges before the commit" % w.kills)
        return 1
    print("nothing lost, nothing twice, order kept: %d kills, seed %d" % (w.kills, seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
