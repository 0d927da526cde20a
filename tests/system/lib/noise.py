# SPDX-License-Identifier: Apache-2.0
"""Packets as nobody sends them on purpose: legal ones of every kind and size, and what is left of them after a mutation.

All randomness is the caller's `random.Random`, so that a seed tells everything.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from wire import *  # noqa: E402,F403

TOPICS = ["f/a", "f/b", "f/b/x", "f/c/y/z", "f/r", "f/%s" % ("t" * 300)]
FILTERS = ["f/#", "f/+", "f/b/+", "f/+/y/#", "f/r", "#", "$share/g/f/#", "$share/g/f/+", "$share/h/f/a", "$SYS/#"]
USER, EXPIRY, ALIAS, SUB_ID, SESSION_EXPIRY, WILL_DELAY = 0x26, 0x02, 0x23, 0x0B, 0x11, 0x18
RECEIVE_MAXIMUM, ALIAS_MAXIMUM, MAXIMUM_PACKET = 0x21, 0x22, 0x27


def mutate(rng, data):
    """A few bits, bytes or lengths are not what they were."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(data)) if data else 0
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del data[at:at + rng.randrange(1, 5)]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 5))
        elif kind == 4:
            data[at:at] = data[at:at + rng.randrange(1, 30)]
        elif len(data) > 1:
            data[1] = rng.randrange(256)  # a length
    return bytes(data)


class Noise:
    """Builds packets of one protocol version."""

    def __init__(self, rng, version):
        self.rng, self.version = rng, version

    def props(self, *pairs):
        """A block with those of `pairs` that a coin is for; nothing before 5.0."""
        if self.version != 5:
            return b"\0"
        return props(*(p for p in pairs if self.rng.random() < 0.5))

    def pid(self):
        return self.rng.choice((1, 2, 3, self.rng.randrange(1, 65536)))

    def size(self):
        """Most messages are small; some are larger than what is read at once, by a shard or by an acceptor."""
        most = self.rng.choices((30, 5000, 70000, 600000, 1500000), (80, 12, 4, 2, 1))[0]
        return self.rng.randrange(most)

    def will(self):
        delay = (WILL_DELAY, self.rng.choice((0, 1, 1000)))
        return Will("f/will", bytes(self.rng.choice((0, 5, 5000))), self.rng.randrange(3), self.rng.random() < 0.3,
                    self.props(delay, (EXPIRY, 5), (USER, ("k", "v"))))

    def connect(self, client_id, keepalive):
        rng = self.rng
        fields = {"clean": rng.random() < 0.5, "keepalive": keepalive}
        if client_id == "" and self.version != 5:
            fields["clean"] = True
        if rng.random() < 0.4:
            fields["will"] = self.will()
        if rng.random() < 0.2:
            fields["username"], fields["password"] = "u", bytes(rng.choices((3, 30000, 65535), (4, 1, 1))[0])
        if self.version == 5:
            fields["props"] = self.props((SESSION_EXPIRY, rng.choice((0, 1, 1000, 0xFFFFFFFF))),
                                         (RECEIVE_MAXIMUM, rng.choice((1, 10, 65535))),
                                         (ALIAS_MAXIMUM, rng.choice((0, 2, 65535))),
                                         (MAXIMUM_PACKET, rng.choice((2, 30, 1000, 1000000))), (USER, ("a", "b" * 300)))
        return connect(client_id, self.version, **fields)

    def publish(self):
        rng, qos = self.rng, self.rng.randrange(3)
        topic = rng.choice(TOPICS)
        block = self.props((EXPIRY, rng.choice((0, 1, 100))), (USER, ("k", "v" * rng.randrange(300))), (0x08, "f/answer"),
                           (0x09, b"\0\1"), (0x03, "text"), (0x01, 0))
        if self.version == 5 and rng.random() < 0.2:
            block = props((ALIAS, rng.choice((1, 2, 3, 10, 11, 65535))))
            topic = rng.choice((topic, ""))
        return publish(topic, bytes(self.size()), qos, self.pid(), rng.random() < 0.15, qos > 0 and rng.random() < 0.1,
                       self.version, block)

    def filters(self):
        if self.rng.random() < 0.03:
            return ["f/%d/+" % i for i in range(self.rng.randrange(1, 1500))]
        return self.rng.choices(FILTERS, k=self.rng.randrange(1, 4))

    def subscribe(self):
        options = (0, 1, 2) if self.version != 5 else (0, 1, 2, 0x04, 0x09, 0x12, 0x25)
        return subscribe(self.pid(), *((f, self.rng.choice(options)) for f in self.filters()), version=self.version,
                         props=self.props((SUB_ID, self.rng.choice((1, 7, 268435455)))))

    def unsubscribe(self):
        return unsubscribe(self.pid(), *self.filters(), version=self.version, props=self.props((USER, ("k", "v"))))

    def ack(self):
        return self.rng.choice((puback, pubrec, pubrel, pubcomp))(self.pid())

    def some(self):
        """One packet that its client may send."""
        return self.rng.choices((self.publish, self.subscribe, self.unsubscribe, self.ack, pingreq),
                                (50, 14, 4, 16, 4))[0]()

    def wrong(self):
        """One that ends the connection in most cases."""
        rng = self.rng
        kind = rng.randrange(5)
        if kind == 0:
            return rng.randbytes(rng.randrange(1, 300))
        if kind == 1:
            return rng.choice((connect("f-second", self.version), packet(0xF0), suback(1, 0), packet(0x20, b"\0\0"),
                               subscribe(0, ("f/#", 0), version=self.version), packet(0x36, bytes(9))))
        return mutate(rng, self.some())

    def begun(self, total):
        """The head of a PUBLISH that would take `total` bytes."""
        head = field(self.rng.choice(TOPICS[:3])) + (b"\0" if self.version == 5 else b"")
        return b"\x30" + varint(total) + head

    def goodbye(self):
        if self.version != 5 or self.rng.random() < 0.3:
            return disconnect()
        return packet(0xE0, bytes([self.rng.choice((0, 4, 0x81))]) +
                      self.props((SESSION_EXPIRY, self.rng.choice((0, 1, 100))), (USER, ("k", "v"))))
