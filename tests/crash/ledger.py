# SPDX-License-Identifier: Apache-2.0
"""Kills the broker under load and keeps the books: what it has acknowledged is there after each start.

    ledger.py [--kills N] [--seed N] [--control] [--keep DIR]
    ledger.py --stops N [--seed N]

The clients live here, outside the broker, and keep their half of every session. Who they are and what a
violation is, stands in roles.py; the first one ends the run with its seed and its story. --control starts the broker with
`durability memory`, which acknowledges before the commit, on a disk that syncs slowly: the run then has
to end with a loss. --stops ends the broker by SIGTERM only, at any moment of the load and with sessions ending whose
messages are being handed on: each has to end with exit code 0, and to lose nothing either.
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
from peer import Violation  # noqa: E402
from roles import (FILTERS, FOLLOWS_S, GRACE_S, Churner, Guest, Member, Mourner, Observer, Publisher, Retainer,  # noqa: E402
                   Sleeper, Subscriber, Team, Watcher)

SLOW = wire.SLOW
BEHIND = 1500       # publishers pause while a connected subscriber is so many messages behind
MOURNERS = 6        # with a will and a connection, at a time
TRACE = 500000


class World:
    def __init__(self, seed, control, stops_only=False):
        self.seed, self.control, self.stops_only = seed, control, stops_only
        self.rng = random.Random(seed)
        self.trace = collections.deque(maxlen=TRACE)
        self.begin = time.monotonic()
        self.epoll = select.epoll()
        self.by_fd = {}
        self.abandoned = []
        self.kills = self.stops = self.published = self.received = self.repeats = self.silent_repeats = 0
        self.takeovers = self.folds = self.starts = 0
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
        self.publishers += [Publisher(self, "m%d" % i, 4 + i, in_memory=True) for i in range(2)]
        self.team = Team()
        self.members = [Member(self, "t%d" % i, 4 + i % 2, self.team) for i in range(6)]
        self.observer = Observer(self, "o", 5)
        self.watcher = Watcher(self, "w", 4)
        self.peers = self.subscribers + self.publishers + self.retainers + self.churners + self.members + [
            self.observer, self.watcher]
        self.guests = [Guest(self, "g%d" % i) for i in range(12)] if stops_only else []
        self.sleepers = [Sleeper(self, "x%d" % i, expiry) for i, expiry in enumerate((1, 2, 3, 3600))]
        self.mourners = {}        # name -> all there ever were
        self.busy_mourners = []
        self.is_quiet = False     # nothing was sent since everything had arrived
        self.follows_s = FOLLOWS_S * SLOW  # after this what nobody waited for is in the journal
        self.ready_at = self.died_at = 0.0
        self.streams = {s.topic: s for p in self.publishers for s in p.streams}
        self.broker = DurableBroker("max_queued_bytes 1073741824\nmemory_limit 0\n" +
                                    ("durability memory" if control else ""), shards=4, args=(), listeners=[
                                        "listener {port} 127.0.0.1",
                                        "listener {port} 127.0.0.1\nlistener_durability memory"])
        self.addresses = self.broker.addresses
        self.address = self.addresses[0]

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
                if self.guests:
                    self.rng.choice(self.guests).move()
            self.turn()

    def generate(self):
        self.is_quiet = False
        online = [s for s in self.subscribers if s.up]
        total = sum(s.sent for s in self.streams.values() if s.kind != "shr")
        behind = max((total - s.total for s in online), default=0)
        for peer in self.publishers:
            if peer.up and behind < BEHIND:
                peer.generate()
        for peer in self.retainers + self.churners:
            if peer.up:
                peer.generate()
        for peer in self.sleepers + self.busy_mourners:
            peer.generate()
        self.busy_mourners = [m for m in self.busy_mourners if not m.is_idle()]
        if len(self.busy_mourners) < MOURNERS and self.rng.random() < 0.05:
            self.one_more_mourner()

    def one_more_mourner(self):
        fate = self.rng.choice(Mourner.FATES)
        m = Mourner(self, "w%d" % len(self.mourners), fate, 3600 if fate == "returns" else self.rng.choice((0, 1, 2)))
        self.mourners[m.name] = m
        self.busy_mourners.append(m)
        m.open()

    def one_takes_over(self):
        peer = self.rng.choice(self.subscribers + self.publishers + self.retainers + self.members +
                               [self.observer, self.watcher])
        if peer.up:
            peer.take_over()
            self.takeovers += 1

    def some_leave(self):
        """Two subscribers are away when the broker dies, and some others; those away before come back."""
        others = self.members + [self.observer, self.watcher]
        for peer in self.subscribers + others:
            peer.away = False
        for peer in self.rng.sample(self.subscribers, 2) + self.rng.sample(others, 2):
            peer.away = True
            peer.drop()

    # deaths and starts

    def die(self, how):
        self.note("broker", "SIGKILL" if how == "kill" else "SIGTERM")
        everybody = self.peers + self.sleepers + list(self.mourners.values())
        connected = {peer for peer in everybody if peer.sock is not None}
        self.died_at = time.monotonic()  # to read what is left may take a while
        if how == "kill":
            self.broker.kill()
            self.kills += 1
        else:
            self.is_stopping = True
            self.broker.stop(30)
            self.stops += 1
            # Nobody reads meanwhile: what was sent before lies in the sockets.
            self.pause_max = max(self.pause_max, time.monotonic() - self.died_at)
        while self.by_fd:
            self.turn(0.0, is_down=True)
        self.is_stopping = False
        for sock in self.abandoned:
            sock.close()
        self.abandoned = []
        for peer in everybody:
            peer.on_death(peer in connected, how != "kill")
        if how == "kill":
            for stream in self.streams.values():
                stream.kill(self.died_at, self.follows_s)
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
        while not self.stops_only and self.rng.random() < 0.12:
            self.false_start()
        sync = 100000 if self.control else self.rng.choice((0, 0, 0, 1000, 5000, 30000))
        shards = self.rng.choice((4, 4, 4, 6, 5, 3))
        begin = time.monotonic()
        try:
            self.broker.start(shards=shards, sync_us=sync)
        except AssertionError as e:
            raise Violation("broker", "no start: %s" % e)
        self.note("broker", "starts with %d shards, syncs %d us longer, after %.0f ms" % (
            shards, sync, 1000 * (time.monotonic() - begin)))
        self.state_at = self.state_written()
        self.heavy = self.rng.choice((0, 0, 0.02, 0.2))
        self.starts += 1
        self.follows_s = FOLLOWS_S * SLOW + 20 * sync / 1e6
        self.ready_at = time.monotonic()
        self.check_retained()
        if self.is_quiet:
            self.check_races()
        self.probe()
        for peer in self.peers:
            if not peer.away:
                peer.open()
        for peer in self.sleepers + list(self.mourners.values()):
            peer.on_start()

    def find_retained(self, subscription, must):
        """Topic -> payload; `must` are waited for."""
        got = {}
        with wire.Client(self.address) as c:
            c.connect("checker").subscribe((subscription, 0))
            c.send(wire.pingreq())
            alive = False
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
        return got

    def check_retained(self):
        """Before anybody sends anything."""
        wanted = {t: r for r in self.retainers for t in r.ops}
        got = self.find_retained("ret/#", {t for t, r in wanted.items() if not any(clear for _, clear in r.ops[t])})
        for topic, retainer in wanted.items():
            payload = got.pop(topic, None)
            self.note("checker", "finds %r" % (payload and payload[:12]), topic)
            retainer.check(topic, payload)
        if got:
            raise Violation("protocol", "retained messages of nobody: %r" % got)

    def check_races(self):
        """Everything has arrived: live and retained agree on who was last."""
        self.observer.check(self.find_retained("race/#", set(self.observer.live)))

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
        for peer in self.peers:
            peer.away = False
            if peer.sock is None:
                peer.open()
        deadline = time.monotonic() + 40 * SLOW
        while time.monotonic() < deadline:
            self.load(0.05, generate=False)
            if all(p.up and p.inflight() == 0 and not p.in_ids for p in self.peers) and \
                    not any(self.missing()) and all(c.owed is None for c in self.churners):
                self.is_quiet = True
                self.check_races()
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
                last = s.last[stream.topic]
                if stream.kind in ("led", "mem") and last != stream.sent and not stream.may_miss(last + 1, stream.sent):
                    yield ("%s: %s ends with %d, %d were sent, %d acknowledged, and nothing comes" % (
                        s.name, stream.topic, s.last[stream.topic], stream.sent, stream.promised),
                        s.name, stream.topic, s.last[stream.topic] + 1)
        for stream, number in self.team.missing(self.streams.values()):
            yield ("%s: %d came to no member of the group, %d were sent, %d acknowledged" % (
                stream.topic, number, stream.sent, stream.promised), "t0", stream.topic, number)
        for topic, who in self.observer.lacks(self.retainers):
            yield ("o: %s of %s ends with %d" % (topic, who, self.observer.newest[topic, who]), "o", topic, None)

    def await_wills(self):
        """The broker stays up until every will that is to come has come."""
        deadline = max(self.ready_at + GRACE_S, time.monotonic()) + 5 * SLOW
        while any(m.must and not m.came for m in self.mourners.values()) and time.monotonic() < deadline:
            self.load(0.1, generate=False)
        for m in self.mourners.values():
            if m.must and not m.came:
                m.fail("loss", "its will never came: it %s, delay %d s" % (m.fate, m.delay), "will/" + m.name)

    def is_over(self, deaths):
        return (self.stops if self.stops_only else self.kills) >= deaths

    def run(self, deaths):
        for peer in self.peers + self.sleepers:
            peer.open()
        while not all(p.up and (p.subscribed or not p.filters) for p in self.peers):
            self.turn()
        while not self.is_over(deaths):
            self.load(self.rng.choices((self.rng.uniform(0.01, 0.1), self.rng.uniform(0.2, 1.0),
                                        self.rng.uniform(1.0, 3.0)), (2, 7, 1))[0] * max(1, SLOW / 2))
            self.die("stop" if self.stops_only or self.rng.random() < 0.08 else "kill")
            if self.rng.random() < 0.15:
                time.sleep(self.rng.uniform(0.5, 1.5))  # something expires meanwhile
            self.start()
            if self.rng.random() < 0.08:
                self.load(0.05)
                self.settle()
                if self.rng.random() < 0.5:
                    self.die("stop" if self.stops_only else "kill")
                    self.start()
            if (self.kills + self.stops) % 20 == 0:
                self.report()
        self.load(0.3)
        self.settle()
        self.await_wills()
        self.broker.stop(30)

    # words

    def report(self):
        print("%6.1f s: %d kills, %d stops, %d runs with a fold, %d published, %d received, %d promised, %d takeovers, "
              "%d subscriptions changed, %d repeats at QoS 1 (%d without DUP)" % (
                  time.monotonic() - self.begin, self.kills, self.stops, self.folds, self.published, self.received,
                  sum(s.promised for s in self.streams.values()), self.takeovers,
                  sum(c.done for c in self.churners), self.repeats, self.silent_repeats))
        print("         %d starts, %d messages to the group (%d again), %d of %d wills came, %d sessions found again, "
              "%d expired, %d numbers given up for durability memory" % (
                  self.starts, sum(len(g) for g in self.team.got.values()), self.team.repeats,
                  sum(m.came for m in self.mourners.values()), len(self.mourners),
                  sum(x.judged[True] for x in self.sleepers), sum(x.judged[False] for x in self.sleepers),
                  sum(self.given_up(s) for s in self.streams.values())), flush=True)

    def given_up(self, stream):
        return sum(to - after for after, to in stream.lost)

    def story(self, v):
        """What is known about the message, or else the last that the client saw."""
        lines = v.trace or list(self.trace)
        about = [e for e in lines if v.topic is not None and e[3] == v.topic and
                 (v.seq is None or e[4] == v.seq)][-80:]
        own = [e for e in lines if e[1] == v.peer][-40:]
        near = [e for e in lines if e[1] == "broker"][-16:]
        near += [e for e in lines if e[1] == v.peer and "connect" in e[2]][-8:]
        for e in sorted(set(about + own + near), key=lambda e: e[0]):
            print("  %9.4f %-8s %s%s%s%s" % (e[0], e[1], e[2], " %s" % e[3] if e[3] else "",
                                            " %s" % e[4] if e[4] is not None else "",
                                            " (identifier %d)" % e[5] if e[5] else ""))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--kills", type=int, default=10)
    p.add_argument("--stops", type=int, default=0, help="so many ends by SIGTERM instead of kills")
    p.add_argument("--seed", type=int, default=None)
    p.add_argument("--control", action="store_true")
    p.add_argument("--keep", metavar="DIR", help="where the store of a violation is copied to")
    a = p.parse_args()
    seed = a.seed if a.seed is not None else random.SystemRandom().randrange(1 << 31)
    print("seed %d" % seed, flush=True)
    w = World(seed, a.control, a.stops > 0)
    try:
        w.run(a.stops if a.stops > 0 else a.kills)
        if w.first_silent is not None and not a.control:
            raise w.first_silent
    except Violation as v:
        w.report()
        if a.control and v.kind in ("loss", "twice", "order", "revived"):
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
    print("nothing lost, nothing twice, order kept: %d kills, %d stops, seed %d" % (w.kills, w.stops, seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
