# SPDX-License-Identifier: Apache-2.0
"""Who takes part in the ledger, and what each of them takes for a violation.

The books are kept here, outside the broker. world is the World of ledger.py, or what test_roles.py puts in
its place: it has streams, rng, note() and the few fields used below.
"""

import collections
import time

import wire
from peer import Peer, Violation

SLOW = wire.SLOW
WINDOW = 48         # of a publisher, PUBLISHes without an answer
TOPICS = 8          # retained, per publisher
RACES = 3           # retained, set by all of them
FILTERS = 6         # that come and go, per churner
ALIVE_S = 5.0       # a session connected at a crash may last so much longer: storage/FORMAT.md, "alive"
GRACE_S = 10.0      # a will waits at least so long for its client after a start
FOLLOWS_S = 0.5     # durability memory: the journal has followed after this, and some syncs


class Stream:
    """
    One topic: its messages are numbered 1, 2, ... and published at one QoS by one publisher.

    kind: "led"; "exp": they expire; "shr": only a shared group is subscribed; "mem": the publisher is answered
    before the commit (listener_durability memory), so a kill may take what was promised shortly before.
    """

    def __init__(self, topic, qos, kind):
        self.topic, self.qos, self.kind = topic, qos, kind
        self.sent = 0
        self.promised = 0     # answered with PUBACK or PUBREC
        self.resent = {}      # seq -> when, for those sent more than once
        self.recent = collections.deque()  # mem: (when promised, seq) since `followed`
        self.followed = 0     # mem: promised so long ago that the journal has it
        self.lost = []        # mem: (after, up to): what kills may have taken, rising

    def promise(self, seq, now):
        self.promised = seq
        if self.kind == "mem":
            self.recent.append((now, seq))

    def kill(self, now, follows_s):
        while self.recent and self.recent[0][0] < now - follows_s:
            self.followed = self.recent.popleft()[1]
        if self.kind == "mem" and self.sent > self.followed:
            self.lost.append((self.followed, self.sent))

    def may_miss(self, first, last):
        """Whether kills may have taken all of first ... last."""
        for after, to in self.lost:
            if after < first <= to:
                first = to + 1
        return first > last


class Publisher(Peer):
    """
    Two streams for everybody and two for a shared group, of QoS 1 and QoS 2 each; with 5.0 one more whose
    messages expire. In memory: two streams, over the listener that answers at once.
    """

    def __init__(self, world, name, version, in_memory=False):
        super().__init__(world, name, version)
        self.which = 1 if in_memory else 0
        # That an identifier was released may be lost as well; so in memory none is used again.
        self.most = 60000 if in_memory else 1 << 60
        kinds = ("mem",) if in_memory else ("led", "shr")
        self.streams = [Stream("%s/%s/%d" % (kind, name, qos), qos, kind) for kind in kinds for qos in (1, 2)]
        if version == 5 and not in_memory:
            self.streams.append(Stream("exp/%s" % name, 1, "exp"))
        self.by_topic = {s.topic: s for s in self.streams}

    def on_up(self):
        for o in list(self.waiting[1].values()) + list(self.waiting[2].values()):
            self.by_topic[o.topic].resent[o.seq] = time.time()  # its expiry begins anew

    def on_promise(self, out):
        self.by_topic[out.topic].promise(out.seq, time.monotonic())

    def generate(self):
        rng = self.world.rng
        while self.inflight() < WINDOW and self.sent < self.most:
            s = rng.choice(self.streams)
            s.sent += 1
            self.world.published += 1
            expiry, block = 0, b"\0"
            if s.kind == "exp":
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
        self.filters = [("led/#", qos), ("exp/#", qos), ("mem/#", qos)]
        self.last = collections.Counter()    # topic -> the newest number that came
        self.last_here = {}                  # the same on this connection
        self.total = 0

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
        elif seq != last + 1 and stream.kind != "exp" and not stream.may_miss(last + 1, seq - 1):
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
        # Of one that was sent again the broker may have had the first, or not.
        oldest = time.time() - sent_at
        age = time.time() - self.world.streams[topic].resent.get(seq, sent_at)
        left = props.get(0x02)
        if (left is not None) != (expiry > 0):
            self.fail("protocol", "%s %d: expiry %r, sent with %d" % (topic, seq, left, expiry), topic, seq)
        if left is None:
            return
        # Shards look at the clock once a turn, and sanitizers' turns may take half a second.
        if not expiry - oldest - 2 * SLOW <= left <= expiry + (SLOW > 1):
            self.fail("protocol", "%s %d: %d s left of %d after %.1f s" % (topic, seq, left, expiry, oldest),
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
    value is that of the last acknowledged operation or of a later one. Besides it sets the topics of the races,
    which the other one sets, too.
    """

    def __init__(self, world, name, version):
        super().__init__(world, name, version)
        self.ops = {}     # topic -> deque of (number, cleared), from the last acknowledged one on
        for k in range(TOPICS):
            self.ops["ret/%s/%d" % (name, k)] = collections.deque([(0, True)])
        self.races = {"race/%d" % k: 0 for k in range(RACES)}  # topic -> number sent last

    def on_promise(self, out):
        ops = self.ops.get(out.topic)
        while ops and ops[0][0] < out.seq:
            ops.popleft()

    def race(self):
        topic = self.world.rng.choice(list(self.races))
        self.races[topic] += 1
        self.publish(topic, b"%s %d" % (self.name.encode(), self.races[topic]), 2, self.races[topic], retain=True)

    def generate(self):
        rng = self.world.rng
        while self.inflight() < 12:
            if rng.random() < 0.2:
                self.race()
                continue
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


class Observer(Peer):
    """Sees the races: what came last on a topic is what is retained, once everything has arrived."""

    def __init__(self, world, name, version):
        super().__init__(world, name, version)
        self.filters = [("race/#", 2)]
        self.newest = collections.Counter()  # (topic, who) -> number
        self.live = {}                       # topic -> payload

    def on_message(self, topic, payload, qos, dup, props):
        who, number = payload.decode().split()
        self.note("gets PUBLISH", topic, int(number))
        last = self.newest[topic, who]
        if int(number) <= last:
            self.fail("twice", "%s: %s of %s came twice or late, %d was the newest" % (topic, number, who, last),
                      topic, int(number))
        if int(number) != last + 1:
            self.fail("loss", "%s: %s of %s came after %d" % (topic, number, who, last), topic, last + 1)
        self.newest[topic, who] = int(number)
        self.live[topic] = payload

    def lacks(self, retainers):
        return [(topic, r.name) for r in retainers for topic, sent in r.races.items()
                if self.newest[topic, r.name] != sent]

    def check(self, retained):
        """retained: what a new subscription finds, topic -> payload."""
        for topic in sorted(set(retained) | set(self.live)):
            if retained.get(topic) != self.live.get(topic):
                self.fail("order", "%s: %r is retained, %r was the last to come" % (
                    topic, retained.get(topic), self.live.get(topic)), topic)


class Team:
    """What a shared group has received: each message at least once, of QoS 2 not more than once."""

    def __init__(self):
        self.got = collections.defaultdict(dict)  # topic -> number -> member
        self.repeats = 0

    def take(self, member, stream, seq, qos):
        other = self.got[stream.topic].get(seq)
        if other is not None and qos == 2:
            member.fail("twice", "%s %d came, and %s had it" % (stream.topic, seq, other), stream.topic, seq)
        self.repeats += other is not None
        self.got[stream.topic][seq] = member.name

    def missing(self, streams):
        """(stream, number) of those that nobody has, the first of each stream."""
        for stream in streams:
            got = self.got[stream.topic]
            if stream.kind == "shr" and len(got) != stream.sent:
                yield stream, next(n for n in range(1, stream.sent + 1) if n not in got)


class Member(Peer):
    """Of the shared group, which has members on several shards. Its QoS 2 identifiers stay its own (peer.py)."""

    def __init__(self, world, name, version, team):
        super().__init__(world, name, version)
        self.team = team
        self.filters = [("$share/team/shr/#", 2)]

    def on_message(self, topic, payload, qos, dup, props):
        seq = int(payload.split(b" ", 1)[0])
        stream = self.world.streams[topic]
        self.note("gets PUBLISH" + (" dup" if dup else ""), topic, seq)
        if seq > stream.sent or qos != stream.qos:
            self.fail("protocol", "%s %d came with QoS %d, sent up to %d" % (topic, seq, qos, stream.sent), topic, seq)
        self.team.take(self, stream, seq, qos)


class Guest:
    """
    A durable member of groups that nobody keeps books of. It subscribes and goes, so that a queue gathers on disk; then its
    session ends, by a clean start, while what it had is handed to others page by page.
    """

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.is_member = False

    def move(self):
        if self.world.rng.random() > 0.1:
            return
        try:
            with wire.Client(self.world.address) as c:
                if self.is_member:
                    c.send(wire.connect(self.name, clean=True))
                else:
                    c.send(wire.connect(self.name, clean=False) +
                           wire.subscribe(1, ("$share/%s/led/#" % self.world.rng.choice("ab"), 2),
                                          ("$share/c/shr/#", 1)))
                    c.recv(0.05)
                    c.recv(0.05)
        except (OSError, wire.Closed, wire.Silence):
            pass
        self.is_member = not self.is_member


class Mourner(Peer):
    """
    One connection with a will, of QoS 2 and delayed, and what is to come of it: "vanishes": it comes, once and
    not before its delay; "returns" (before the delay is over, without a will) and "goodbye" (DISCONNECT): never;
    "stays": until the broker dies, then as "vanishes".
    """

    FATES = ("vanishes", "returns", "goodbye", "stays")
    away = True

    def __init__(self, world, name, fate, delay):
        super().__init__(world, name, 5)
        self.fate, self.delay = fate, delay
        self.will = wire.Will("will/" + name, name, 2, props=wire.props((0x18, delay)))
        self.must = self.may = self.came = False
        self.earliest = 0.0
        self.act_at = None
        self.left_at = None
        self.is_back = False

    def on_up(self):
        if self.will is None:
            self.is_back = True
            self.drop()
        elif self.fate != "stays":
            self.act_at = time.monotonic() + self.world.rng.uniform(0, 0.3)

    def mourned(self, now):
        """From here on it is to be sent."""
        self.must, self.earliest = True, now + self.delay

    def generate(self):
        now = time.monotonic()
        if self.act_at is None or now < self.act_at:
            return
        self.act_at, self.left_at = None, now
        self.note(self.fate, "will/" + self.name)
        if self.fate == "goodbye":
            self.out += wire.disconnect()
            self.flush()
            self.drop()
        elif self.fate == "returns":
            self.drop()
            self.will = None
            self.open()
        else:
            self.drop()
            self.mourned(now)

    def is_idle(self):
        """Nothing more is to be done for it."""
        return self.sock is None and self.act_at is None and (self.will is not None or self.is_back)

    def on_death(self, was_connected, orderly):
        now = self.world.died_at
        self.act_at = None
        if not self.known:  # its CONNECT was never answered
            self.may = True
        elif self.fate == "returns":
            self.will = None
        elif self.fate == "goodbye" and self.left_at is not None:
            self.may |= now - self.left_at < self.world.follows_s  # written lazily, or never read
        elif was_connected and orderly:
            self.may = True  # it may be sent by the broker that stops
        elif was_connected:
            self.mourned(now)

    def on_start(self):
        if self.known and self.will is None and not self.is_back:
            self.open()  # it was on its way back; its delay lasts an hour

    def arrives(self, now):
        topic = "will/" + self.name
        if self.came:
            self.fail("twice", "its will came twice", topic)
        if not self.must and not self.may:
            self.fail("revived", "its will came, and it %s" % (
                "is connected" if self.left_at is None else self.fate), topic)
        if self.must and now < self.earliest - 0.3 * SLOW:
            self.fail("protocol", "its will came %.1f s early" % (self.earliest - now), topic)
        self.came = True


class Watcher(Peer):
    """To whom the wills come."""

    def __init__(self, world, name, version):
        super().__init__(world, name, version)
        self.filters = [("will/#", 2)]

    def on_message(self, topic, payload, qos, dup, props):
        self.note("gets PUBLISH", topic)
        self.world.mourners[payload.decode()].arrives(time.monotonic())


class Sleeper(Peer):
    """
    Leaves its session for a while that the expiry allows, or does not, also over deaths of the broker. A session
    that was connected then has ended its connection there and then; the broker knows that moment up to ALIVE_S.
    """

    away = True

    def __init__(self, world, name, expiry):
        super().__init__(world, name, 5)
        self.expiry = expiry
        self.drop_at = None
        self.asleep = None       # (from, to): when its connection ended, at the earliest and the latest
        self.sleeps_long = False
        self.opened_at = 0.0
        self.is_unsure = False   # a CONNECT was on its way when the broker died
        self.judged = collections.Counter()

    def on_present(self, present):
        now = time.monotonic()
        if self.asleep is not None and not self.is_unsure:
            self.judge(present, now - self.asleep[0], self.opened_at - self.asleep[1])
        self.is_unsure = False
        self.asleep = None
        self.drop_at = now + self.world.rng.uniform(0, 1.5)

    def judge(self, present, most, least):
        """most, least: how long it was without a connection."""
        if not present and most < self.expiry - 0.25:
            self.fail("loss", "the session is gone after %.1f s of %d" % (most, self.expiry))
        if present and least > self.expiry + 1.5 * SLOW:
            self.fail("revived", "the session is there after %.1f s, it lasts %d" % (least, self.expiry))
        self.judged[present] += 1

    def falls_asleep(self, now, known_to):
        self.asleep = (now, known_to)
        self.sleeps_long = self.expiry < 10 and self.world.rng.random() < 0.5

    def wake_at(self):
        if self.sleeps_long:
            return self.asleep[1] + self.expiry + 2 * SLOW
        return self.asleep[0] + 0.3 * min(self.expiry, 4)

    def generate(self):
        now = time.monotonic()
        if self.up and now >= self.drop_at:
            self.drop()
            self.falls_asleep(now, now)
        elif self.sock is None and (self.asleep is None or now >= self.wake_at()):
            self.opened_at = now
            self.open()

    def on_death(self, was_connected, orderly):
        now = self.world.died_at
        self.is_unsure |= was_connected and not self.answered
        if was_connected:
            self.falls_asleep(now, None)
        elif self.asleep is not None and self.asleep[1] == self.asleep[0] and \
                now - self.asleep[0] < self.world.follows_s:
            self.asleep = (self.asleep[0], None)  # that it left may not have been written

    def on_start(self):
        if self.asleep is not None and self.asleep[1] is None:
            self.asleep = (self.asleep[0], time.monotonic() + ALIVE_S + self.world.follows_s)
