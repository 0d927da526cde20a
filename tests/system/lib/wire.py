# SPDX-License-Identifier: Apache-2.0
"""A raw MQTT client: packets built byte by byte, answers compared byte by byte.

Builders return bytes and never refuse to build something illegal: that is what they are for. `Client`
sends bytes and reads whole packets with a time-out. Versions: 3 (3.1), 4 (3.1.1), 5 (5.0).
"""

import os
import select
import socket
import struct
import time

SLOW = float(os.environ.get("NOCTULE_TEST_SLOW", "1"))  # sanitizer builds answer later
TIMEOUT = 5.0 * SLOW
QUIET = 0.25 * SLOW  # how long "nothing comes" is watched

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 8, 9, 10, 11
PINGREQ, PINGRESP, DISCONNECT, AUTH = 12, 13, 14, 15
NAMES = ["RESERVED", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
         "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"]


class Closed(AssertionError):
    """The broker closed the connection."""


class Silence(AssertionError):
    """Nothing came in time."""


# --- fields ---------------------------------------------------------------------------------------

def u16(n):
    return struct.pack(">H", n)


def u32(n):
    return struct.pack(">I", n)


def varint(n):
    out = bytearray()
    while True:
        n, digit = divmod(n, 128)
        out.append(digit | (0x80 if n else 0))
        if not n:
            return bytes(out)


def raw_bytes(s):
    return s.encode("utf-8") if isinstance(s, str) else bytes(s)


def field(s):
    """A string or binary field: two bytes of length and the bytes."""
    b = raw_bytes(s)
    return u16(len(b)) + b


def packet(first, body=b""):
    return bytes([first]) + varint(len(body)) + body


# --- properties of 5.0 ----------------------------------------------------------------------------

_BYTE = {0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A}
_U16 = {0x13, 0x21, 0x22, 0x23}
_U32 = {0x02, 0x11, 0x18, 0x27}
_VARINT = {0x0B}
_PAIR = {0x26}


def prop(ident, value):
    if ident in _BYTE:
        return bytes([ident, value])
    if ident in _U16:
        return bytes([ident]) + u16(value)
    if ident in _U32:
        return bytes([ident]) + u32(value)
    if ident in _VARINT:
        return bytes([ident]) + varint(value)
    if ident in _PAIR:
        return bytes([ident]) + field(value[0]) + field(value[1])
    return bytes([ident]) + field(value)


def props(*pairs):
    """props((0x11, 60), (0x26, ("k", "v"))): a block with its length."""
    block = b"".join(prop(i, v) for i, v in pairs)
    return varint(len(block)) + block


def parse_props(data, at):
    """A list of (identifier, value) in order, and the offset behind the block."""
    n, at = parse_varint(data, at)
    end = at + n
    found = []
    while at < end:
        ident = data[at]
        at += 1
        if ident in _BYTE:
            value, at = data[at], at + 1
        elif ident in _U16:
            value, at = struct.unpack_from(">H", data, at)[0], at + 2
        elif ident in _U32:
            value, at = struct.unpack_from(">I", data, at)[0], at + 4
        elif ident in _VARINT:
            value, at = parse_varint(data, at)
        elif ident in _PAIR:
            key, at = parse_field(data, at)
            val, at = parse_field(data, at)
            value = (key.decode(), val.decode())
        else:
            value, at = parse_field(data, at)
        found.append((ident, value))
    if at != end:
        raise AssertionError("property block of wrong length")
    return found, at


def parse_varint(data, at):
    n = shift = 0
    while True:
        b = data[at]
        at += 1
        n |= (b & 0x7F) << shift
        shift += 7
        if not b & 0x80:
            return n, at


def parse_field(data, at):
    n = struct.unpack_from(">H", data, at)[0]
    if at + 2 + n > len(data):
        raise AssertionError("field cut short")
    return data[at + 2:at + 2 + n], at + 2 + n


# --- packets --------------------------------------------------------------------------------------

class Will:
    def __init__(self, topic, payload=b"", qos=0, retain=False, props=b"\0"):
        self.topic, self.payload, self.qos, self.retain, self.props = topic, payload, qos, retain, props


def connect(client_id="", version=4, clean=True, keepalive=60, will=None, username=None, password=None,
            props=b"\0", name=None, level=None, flags=None, tail=b""):
    """name, level and flags replace what would be right; tail goes behind the last field."""
    if name is None:
        name = "MQIsdp" if version == 3 else "MQTT"
    if flags is None:
        flags = 0x02 if clean else 0
        if will is not None:
            flags |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
        if username is not None:
            flags |= 0x80
        if password is not None:
            flags |= 0x40
    body = field(name) + bytes([version if level is None else level, flags]) + u16(keepalive)
    if version == 5:
        body += props
    body += field(client_id)
    if will is not None:
        if version == 5:
            body += will.props
        body += field(will.topic) + field(will.payload)
    if username is not None:
        body += field(username)
    if password is not None:
        body += field(password)
    return packet(0x10, body + tail)


def connack(rc=0, present=False, version=4, props=b"\0"):
    return packet(0x20, bytes([1 if present else 0, rc]) + (props if version == 5 else b""))


def publish(topic, payload=b"", qos=0, pid=None, retain=False, dup=False, version=4, props=b"\0"):
    body = field(topic)
    if qos > 0:
        body += u16(pid)
    if version == 5:
        body += props
    first = 0x30 | (0x08 if dup else 0) | qos << 1 | (1 if retain else 0)
    return packet(first, body + raw_bytes(payload))


def puback(pid):
    return packet(0x40, u16(pid))


def pubrec(pid):
    return packet(0x50, u16(pid))


def pubrel(pid):
    return packet(0x62, u16(pid))


def pubcomp(pid):
    return packet(0x70, u16(pid))


def subscribe(pid, *filters, version=4, props=b"\0"):
    """subscribe(1, ("a/b", 1), ("c/#", 0))"""
    body = u16(pid) + (props if version == 5 else b"")
    return packet(0x82, body + b"".join(field(f) + bytes([o]) for f, o in filters))


def suback(pid, *codes, version=4, props=b"\0"):
    return packet(0x90, u16(pid) + (props if version == 5 else b"") + bytes(codes))


def unsubscribe(pid, *filters, version=4, props=b"\0"):
    body = u16(pid) + (props if version == 5 else b"")
    return packet(0xA2, body + b"".join(field(f) for f in filters))


def unsuback(pid, *codes, version=4, props=b"\0"):
    return packet(0xB0, u16(pid) + (props + bytes(codes) if version == 5 else b""))


def pingreq():
    return b"\xC0\0"


def pingresp():
    return b"\xD0\0"


def disconnect():
    return b"\xE0\0"


class Packet:
    """One packet as it came: first byte, body; PUBLISH also taken apart."""

    def __init__(self, first, body, version):
        self.first, self.body = first, body
        self.type, self.flags = first >> 4, first & 15
        self.pid = None
        self.props = []
        if self.type == PUBLISH:
            self._publish(version)
        elif self.type in (PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK):
            self.pid = struct.unpack_from(">H", body)[0]
            if self.type == SUBACK:
                at = 2
                if version == 5:
                    self.props, at = parse_props(body, 2)
                self.codes = list(body[at:])

    def _publish(self, version):
        self.qos, self.retain, self.dup = (self.flags >> 1) & 3, bool(self.flags & 1), bool(self.flags & 8)
        topic, at = parse_field(self.body, 0)
        self.topic = topic.decode("utf-8")
        if self.qos > 0:
            self.pid = struct.unpack_from(">H", self.body, at)[0]
            at += 2
        if version == 5:
            self.props, at = parse_props(self.body, at)
        self.payload = bytes(self.body[at:])

    @property
    def raw(self):
        return packet(self.first, self.body)

    def __repr__(self):
        if self.type == PUBLISH:
            return "PUBLISH(%r, %r, qos %d, pid %s%s%s)" % (
                self.topic[:60], self.payload[:60], self.qos, self.pid,
                ", retain" if self.retain else "", ", dup" if self.dup else "")
        return "%s(%s)" % (NAMES[self.type], self.body[:40].hex(" "))


# --- the client -----------------------------------------------------------------------------------

class Client:
    """A connection. `to` is (host, port), or a path for a unix socket."""

    def __init__(self, to, version=4, rcvbuf=None):
        self.version = version
        if isinstance(to, str):
            self.sock = socket.socket(socket.AF_UNIX)
        else:
            self.sock = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(TIMEOUT)
        try:
            self.sock.connect(to)
        except OSError:
            self.sock.close()
            raise
        self.buf = bytearray()
        self.next_pid = 0

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # sending

    def send(self, *parts):
        self.sock.sendall(b"".join(parts))

    def send_pieces(self, data, size=1, pause=0.0):
        for at in range(0, len(data), size):
            self.sock.sendall(data[at:at + size])
            if pause:
                time.sleep(pause)

    def try_send(self, data):
        """For bytes that the broker may refuse by closing meanwhile."""
        try:
            self.sock.sendall(data)
            return True
        except OSError:
            return False

    # receiving

    def _cut(self):
        """The first whole packet in the buffer, or None."""
        n = shift = 0
        for at in range(1, 5):
            if at >= len(self.buf):
                return None
            b = self.buf[at]
            n |= (b & 0x7F) << shift
            shift += 7
            if not b & 0x80:
                break
        else:
            raise AssertionError("broker sent a length over four bytes")
        if len(self.buf) < at + 1 + n:
            return None
        body = bytes(self.buf[at + 1:at + 1 + n])
        first = self.buf[0]
        del self.buf[:at + 1 + n]
        return Packet(first, body, self.version)

    def recv(self, timeout=TIMEOUT):
        """The next packet. Closed when the broker closed, Silence when nothing came."""
        deadline = time.monotonic() + timeout
        while True:
            found = self._cut()
            if found is not None:
                return found
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise Silence("nothing within %.1f s" % timeout)
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Closed("closed by the broker" + (", part of a packet: " + self.buf.hex(" ")
                                                       if self.buf else ""))
            self.buf += data

    def expect(self, *wanted, timeout=TIMEOUT):
        """Exactly these packets, in this order."""
        got = None
        for want in wanted:
            got = self.recv(timeout)
            if got.raw != want:
                raise AssertionError("got %r (%s), expected %s" % (got, got.raw[:60].hex(" "),
                                                                   want[:60].hex(" ")))
        return got

    def expect_type(self, kind, timeout=TIMEOUT):
        got = self.recv(timeout)
        if got.type != kind:
            raise AssertionError("got %r, expected %s" % (got, NAMES[kind]))
        return got

    def expect_publish(self, topic=None, payload=None, qos=None, retain=None, dup=None, timeout=TIMEOUT):
        got = self.expect_type(PUBLISH, timeout)
        for name, want in (("topic", topic), ("payload", payload), ("qos", qos), ("retain", retain),
                           ("dup", dup)):
            if name == "payload" and want is not None:
                want = raw_bytes(want)
            if want is not None and getattr(got, name) != want:
                raise AssertionError("got %r, expected %s %r" % (got, name, want))
        return got

    def expect_nothing(self, timeout=QUIET):
        try:
            got = self.recv(timeout)
        except Silence:
            return
        raise AssertionError("got %r, expected nothing" % got)

    def expect_closed(self, timeout=TIMEOUT):
        """The broker closes without another packet (v5: a DISCONNECT before it is allowed)."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                got = self.recv(max(0.0, deadline - time.monotonic()))
            except Closed:
                return
            except Silence:
                raise AssertionError("connection still open after %.1f s" % timeout)
            if not (self.version == 5 and got.type == DISCONNECT):
                raise AssertionError("got %r, expected a close" % got)

    def is_alive(self):
        """PINGREQ is answered (packets before the answer are dropped)."""
        self.send(pingreq())
        while self.recv().type != PINGRESP:
            pass
        return True

    # verbs: one exchange each, for tests that are about something else

    def pid(self):
        self.next_pid = self.next_pid % 65535 + 1
        return self.next_pid

    def connect(self, client_id="", present=False, rc=0, **fields):
        self.send(connect(client_id, version=self.version, **fields))
        got = self.expect_type(CONNACK)
        if (got.body[0], got.body[1]) != (1 if present else 0, rc):
            raise AssertionError("CONNACK %s, expected present %d, code %d" % (
                got.body.hex(" "), present, rc))
        return self

    def subscribe(self, *filters, codes=None):
        pid = self.pid()
        self.send(subscribe(pid, *filters, version=self.version))
        got = self.expect_type(SUBACK)
        want = [o & 3 for _, o in filters] if codes is None else list(codes)
        if (got.pid, got.codes) != (pid, want):
            raise AssertionError("SUBACK %d %r, expected %d %r" % (got.pid, got.codes, pid, want))
        return self

    def unsubscribe(self, *filters):
        pid = self.pid()
        self.send(unsubscribe(pid, *filters, version=self.version))
        got = self.expect_type(UNSUBACK)
        if got.pid != pid:
            raise AssertionError("UNSUBACK %d, expected %d" % (got.pid, pid))
        return self

    def publish(self, topic, payload=b"", qos=0, retain=False):
        """The whole flow up to the last acknowledgement."""
        pid = self.pid() if qos else None
        self.send(publish(topic, payload, qos, pid, retain, version=self.version))
        if qos == 1:
            self.expect_type(PUBACK)
        elif qos == 2:
            self.expect_type(PUBREC)
            self.send(pubrel(pid))
            self.expect_type(PUBCOMP)
        return self

    def settle(self, got):
        """Acknowledges a PUBLISH that came, up to the end of its flow."""
        if got.qos == 1:
            self.send(puback(got.pid))
        elif got.qos == 2:
            self.send(pubrec(got.pid))
            self.expect(pubrel(got.pid))
            self.send(pubcomp(got.pid))
        return got

    def take(self, n, timeout=TIMEOUT):
        """n messages, QoS 1 and 2 answered as they come; PUBRELs are answered, too."""
        out, rels = [], 0
        while len(out) < n or rels > 0:
            got = self.recv(timeout)
            if got.type == PUBLISH:
                out.append(got)
                if got.qos == 1:
                    self.send(puback(got.pid))
                elif got.qos == 2:
                    rels += 1
                    self.send(pubrec(got.pid))
            elif got.type == PUBREL:
                rels -= 1
                self.send(pubcomp(got.pid))
            else:
                raise AssertionError("got %r, expected PUBLISH or PUBREL" % got)
        return out

    def disconnect(self):
        """DISCONNECT, then waits for the close: the session has ended when this returns."""
        self.send(disconnect())
        try:
            self.expect_closed()
        finally:
            self.close()

    def close(self):
        self.sock.close()

    def reset(self):
        """Ends the connection by RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
