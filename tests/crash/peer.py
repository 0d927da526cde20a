# SPDX-License-Identifier: Apache-2.0
"""A client that keeps its half of a session: what it sent and what was answered survives its connection.

Non-blocking, driven by the event loop of ledger.py. It resumes by the rules of MQTT: PUBRELs first, then
what has no answer, in the order of old, with DUP; an inbound QoS 2 identifier is remembered until PUBREL.
"""

import collections
import errno
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system", "lib"))
import wire  # noqa: E402


class Violation(Exception):
    """kind: "loss", "twice", "order", "revived" (what was ended came back), "protocol", "broker"."""

    def __init__(self, kind, text, peer=None, topic=None, seq=None):
        super().__init__(text)
        self.kind, self.peer, self.topic, self.seq = kind, peer, topic, seq
        self.trace = None  # of the moment, if it is told later


class Out:
    """A PUBLISH of ours, until it is answered for good."""

    __slots__ = ("number", "pid", "topic", "seq", "qos", "first", "body", "sends", "asked_again")

    def packet(self, dup):
        return wire.packet(self.first | (8 if dup else 0), self.body)


class Peer:
    which = 0           # of the broker's listeners
    expiry = 100000     # of the session, s
    will = None         # wire.Will
    away = False        # whoever opens connections leaves it alone

    def __init__(self, world, name, version):
        self.world, self.name, self.version = world, name, version
        self.sock = None
        self.up = False         # CONNACK has come
        self.answered = False   # the same, and stays when the connection ends
        self.known = False      # it has come once: from then on the session is there
        self.filters = []       # [(filter, options)], subscribed to by the first connection
        self.subscribed = False
        self.inb = bytearray()
        self.out = bytearray()
        self.wants_write = False
        self.waiting = {1: collections.OrderedDict(), 2: collections.OrderedDict()}  # by QoS: pid -> Out
        self.released = collections.OrderedDict()  # PUBREC seen
        self.in_ids = {}        # QoS 2 identifiers received and not released -> (topic, seq)
        self.next_pid = 0
        self.sent = 0
        self.connections = 0

    # for those that derive

    def on_up(self):
        pass

    def on_message(self, topic, payload, qos, dup, props):
        pass

    def on_promise(self, out):
        """PUBACK or PUBREC: from here on the broker answers for the message."""

    def on_suback(self, kind, pid, codes):
        pass

    def on_present(self, present):
        """The session-present flag of a CONNACK."""
        if self.known and not present:
            self.fail("loss", "the session is gone: session present is 0")

    def on_death(self, was_connected, orderly):
        """The broker was killed or stopped, and what it had sent has been read."""

    def on_start(self):
        """It runs again."""

    # connection

    def open(self):
        self.sock = socket.socket()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        code = self.sock.connect_ex(self.world.addresses[self.which])
        if code not in (0, errno.EINPROGRESS):
            raise Violation("broker", "%s cannot connect: %s" % (self.name, os.strerror(code)))
        self.up = self.answered = False
        self.connections += 1
        self.inb.clear()
        self.out.clear()
        self.out += wire.connect(self.name, self.version, clean=False, keepalive=0, will=self.will,
                                 props=wire.props((0x11, self.expiry)))
        self.world.register(self)
        self.note("connects")

    def forget(self):
        """The connection ends here, not told to anybody; the socket is returned."""
        sock, self.sock, self.up = self.sock, None, False
        if sock is not None:
            self.world.unregister(sock)
        return sock

    def drop(self):
        sock = self.forget()
        if sock is not None:
            sock.close()
            self.note("closes its connection")

    def take_over(self):
        """A second connection while the first one stands."""
        self.world.abandon(self.forget())
        self.note("connects over itself")
        self.open()

    def note(self, event, topic=None, seq=None, pid=None):
        self.world.note(self.name, event, topic, seq, pid)

    def fail(self, kind, text, topic=None, seq=None):
        raise Violation(kind, "%s (%s): %s" % (self.name, "5.0" if self.version == 5 else "3.1.1", text),
                        self.name, topic, seq)

    # sending

    def inflight(self):
        return len(self.waiting[1]) + len(self.waiting[2]) + len(self.released)

    def free_pid(self):
        while True:
            self.next_pid = self.next_pid % 65535 + 1
            pid = self.next_pid
            if pid not in self.waiting[1] and pid not in self.waiting[2] and pid not in self.released:
                return pid

    def publish(self, topic, payload, qos, seq, retain=False, props=b"\0"):
        o = Out()
        self.sent += 1
        o.number, o.pid, o.topic, o.seq, o.qos, o.sends = self.sent, self.free_pid(), topic, seq, qos, 1
        o.asked_again = False
        o.first = 0x30 | qos << 1 | (1 if retain else 0)
        o.body = wire.field(topic) + wire.u16(o.pid) + (props if self.version == 5 else b"") + payload
        self.waiting[qos][o.pid] = o
        self.out += o.packet(False)
        self.note("PUBLISH", topic, seq, o.pid)
        return o

    def resume(self):
        for pid in self.released:
            self.released[pid].asked_again = True
            self.out += wire.pubrel(pid)
            self.note("PUBREL again", self.released[pid].topic, self.released[pid].seq, pid)
        left = list(self.waiting[1].values()) + list(self.waiting[2].values())
        for o in sorted(left, key=lambda one: one.number):
            self.out += o.packet(True)
            o.sends += 1
            self.note("PUBLISH again", o.topic, o.seq, o.pid)

    # events

    def flush(self):
        if self.out and self.sock is not None:
            try:
                n = self.sock.send(self.out)
                del self.out[:n]
            except BlockingIOError:
                pass
            except OSError:
                self.out.clear()  # reading tells
        want = bool(self.out)
        if want != self.wants_write and self.sock is not None:
            self.wants_write = want
            self.world.modify(self)

    def read(self):
        """False at the end of the connection."""
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        self.inb += data
        self._packets()
        return True

    def _packets(self):
        buf, at, end = self.inb, 0, len(self.inb)
        while end - at >= 2:
            n, shift, p = 0, 0, at + 1
            while True:
                if p >= end:
                    break
                b = buf[p]
                p += 1
                n |= (b & 0x7F) << shift
                shift += 7
                if not b & 0x80:
                    break
            if buf[p - 1] & 0x80 or end - p < n:
                break
            self._packet(buf[at], bytes(buf[p:p + n]))
            at = p + n
            if self.sock is None:
                return
        del buf[:at]

    def _packet(self, first, body):
        kind = first >> 4
        if kind == wire.PUBLISH:
            self._publish(first, body)
        elif kind == wire.PUBREL:
            known = self.in_ids.pop(body[0] << 8 | body[1], None)
            if known is not None:
                self.note("gets PUBREL", known[0], known[1], body[0] << 8 | body[1])
            self.out += b"\x70\x02" + body[:2]
        elif kind in (wire.PUBACK, wire.PUBREC, wire.PUBCOMP):
            self._answer(kind, body)
        elif kind == wire.CONNACK:
            self._connack(body)
        elif kind in (wire.SUBACK, wire.UNSUBACK):
            self._suback(kind, body)
        elif not (kind == wire.DISCONNECT and body[:1] == b"\x8b" and self.world.is_stopping):
            self.fail("protocol", "got %s %s" % (wire.NAMES[kind], body.hex(" ")))

    def _connack(self, body):
        if body[1] != 0:
            self.fail("protocol", "CONNACK %s" % body.hex(" "))
        self.on_present(bool(body[0] & 1))
        self.note("is connected, session present %d" % (body[0] & 1))
        self.up = self.known = self.answered = True
        if self.filters and not self.subscribed:
            self.out += wire.subscribe(65535, *self.filters, version=self.version)
        self.resume()
        self.on_up()

    def _suback(self, kind, body):
        pid = body[0] << 8 | body[1]
        if kind == wire.SUBACK and pid == 65535:
            if any(code >= 0x80 for code in body[3 if self.version == 5 else 2:]):
                self.fail("protocol", "SUBACK %s" % body.hex(" "))
            self.subscribed = True
        else:
            self.on_suback(kind, pid, body[3 if self.version == 5 else 2:])

    def _answer(self, kind, body):
        pid = body[0] << 8 | body[1]
        found = self.released.get(pid)
        unknown_is_fine = kind == wire.PUBCOMP and found is not None and found.asked_again  # PUBCOMP was lost
        if len(body) > 2 and body[2] >= 0x80 and not (body[2] == 0x92 and unknown_is_fine):
            self.fail("protocol", "%s refuses identifier %d with 0x%02x" % (wire.NAMES[kind], pid, body[2]))
        if kind == wire.PUBCOMP:
            o = self.released.pop(pid, None)
            if o is None:
                self.fail("protocol", "PUBCOMP for identifier %d, which waits for none" % pid)
            self.note("gets PUBCOMP", o.topic, o.seq, pid)
            return
        waiting = self.waiting[1 if kind == wire.PUBACK else 2]
        if kind == wire.PUBREC and pid in self.released:
            self.out += wire.pubrel(pid)
            return
        if pid not in waiting:
            self.fail("protocol", "%s for identifier %d, which waits for none" % (wire.NAMES[kind], pid))
        if next(iter(waiting)) != pid:  # [MQTT-4.6.0-2] [MQTT-4.6.0-3]
            self.fail("order", "%s for identifier %d before that for %d" % (
                wire.NAMES[kind], pid, next(iter(waiting))))
        o = waiting.pop(pid)
        if kind == wire.PUBREC:
            self.released[pid] = o
            self.out += wire.pubrel(pid)
        self.note("gets " + wire.NAMES[kind], o.topic, o.seq, pid)
        self.on_promise(o)

    def _publish(self, first, body):
        qos, dup, n = first >> 1 & 3, bool(first & 8), body[0] << 8 | body[1]
        topic = body[2:2 + n].decode()
        at = 2 + n
        pid = 0
        if qos:
            pid = body[at] << 8 | body[at + 1]
            at += 2
        found = ()
        if self.version == 5:
            if body[at]:
                found, at = wire.parse_props(body, at)
            else:
                at += 1
        payload = body[at:]
        if qos == 1:
            self.out += b"\x40\x02" + struct.pack(">H", pid)
        elif qos == 2:
            self.out += b"\x50\x02" + struct.pack(">H", pid)
            what = (topic, payload.split(b" ", 1)[0])
            if pid in self.in_ids:
                self.note("gets PUBLISH again" + (" dup" if dup else ""), topic, what[1], pid)
                if self.in_ids[pid] != what:
                    self.fail("twice", "identifier %d, which is not released, carries %r now and carried %r" % (
                        pid, what, self.in_ids[pid]), topic)
                if not dup:
                    self.fail("twice", "identifier %d comes again without DUP: %r" % (pid, what), topic)
                return
            self.in_ids[pid] = what
        self.world.received += 1
        self.on_message(topic, payload, qos, dup, found)
