# SPDX-License-Identifier: Apache-2.0
"""Keys of the configuration file, each by what it does to clients; and files that are refused."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from wire import *  # noqa: E402,F403


def refused(c, data):
    """The CONNACK code, or None when the connection was closed without one."""
    c.try_send(data)
    try:
        got = c.expect_type(CONNACK)
    except Closed:
        return None
    assert got.body[1] != 0, "accepted"
    c.expect_closed()
    return got.body[1]


class Listeners(BrokerTest):
    """Several listeners at once share sessions and messages."""

    listeners = ["listener {port} 127.0.0.1", "listener {port} ::1", "listener 0 {dir}/s",
                 "listener {port} 127.0.0.1\nmount_point inner/",
                 "listener {port} 127.0.0.1\nmax_connections 2",
                 "listener {port} 127.0.0.1\nmax_qos 1",
                 "listener {port} 127.0.0.1\nuse_username_as_clientid true"]

    def test_v4_v6_and_unix(self):
        subs = [self.connect("fam-%d" % i, which=i).subscribe(("fam/t", 0)) for i in range(3)]
        for i in range(3):
            self.connect(which=i).publish("fam/t", "%d" % i)
            for s in subs:
                s.expect_publish("fam/t", "%d" % i)

    def test_takeover_over_listeners(self):
        a = self.connect("both", which=0, clean=False)
        b = self.connect("both", which=2, clean=False, present=True)
        a.expect_closed()
        c = self.connect("both", which=1, clean=False, present=True)
        b.expect_closed()
        self.assertTrue(c.is_alive())

    def test_mount_point(self):
        """Topics below the prefix, which the listener's clients never see."""
        inner = self.connect(which=3).subscribe(("t/+", 1), ("#", 0))
        outer = self.connect(which=0).subscribe(("inner/t/+", 0))
        inner.publish("t/a", "x")
        outer.expect_publish("inner/t/a", "x")
        inner.expect_publish("t/a", "x")
        self.connect(which=0).publish("inner/t/b", "y", 1).publish("t/c", "not seen inside", 1)
        inner.settle(inner.expect_publish("t/b", "y", 1))
        outer.expect_publish("inner/t/b", "y")
        inner.expect_nothing()
        inner.unsubscribe("t/+", "#")
        self.connect().publish("inner/t/b", "z", 1)
        inner.expect_nothing()

    if IS_MOSQUITTO:  # one copy for each of the two subscriptions
        test_mount_point = unittest.expectedFailure(test_mount_point)

    @deviates("does not take the prefix off retained messages")
    def test_mount_point_retained_and_will(self):
        c = self.connect(which=3, will=Will("w", "gone", 0, True))
        c.publish("r", "x", 1, retain=True)
        s = self.connect(which=0).subscribe(("inner/r", 0))
        s.expect_publish("inner/r", "x", retain=True)
        s = self.connect(which=3).subscribe(("r", 0))
        s.expect_publish("r", "x", retain=True)
        w = self.connect(which=0).subscribe(("inner/w", 0))
        c.reset()
        w.expect_publish("inner/w", "gone")

    @deviates("a connection closed before CONNECT is counted off twice")
    def test_max_connections(self):
        a = self.connect("m1", which=4)
        self.connect("m2", which=4)
        third = self.client(which=4)
        third.try_send(connect("m3"))
        third.expect_closed()
        a.disconnect()

        def free():
            c = self.client(which=4)
            c.try_send(connect("m4"))
            try:
                return c.recv().type == CONNACK
            except (Closed, OSError):
                return False
        wait_until(free, "a slot freed by the one who left")
        self.connect("elsewhere", which=0)

    def test_max_qos(self):
        """A higher one than the listener allows ends the connection."""
        c = self.connect(which=5)
        c.publish("mq/t", "x", 1)
        c.try_send(publish("mq/t", "x", 2, 9))
        c.expect_closed()
        self.connect(which=0).publish("mq/t", "x", 2)

    def test_use_username_as_clientid(self):
        a = self.connect("one", which=6, username="ann", clean=False)
        b = self.connect("two", which=6, username="ann", clean=False, present=True)
        a.expect_closed()
        other = self.connect("two", which=6, username="bob")
        self.assertTrue(b.is_alive() and other.is_alive())
        self.assertIn(refused(self.client(which=6), connect("anon")), (2, 4, 5, None))


@ours("acceptors")
class MaxConnections(BrokerTest):
    config = "shards 1\nacceptors 8"
    listeners = ["listener {port} 127.0.0.1\nmax_connections 5"]

    def test_exact_when_acceptors_race(self):
        for _ in range(20):
            cs = [self.client() for _ in range(40)]
            for i, c in enumerate(cs):
                c.try_send(connect("race-%d" % i))
            taken = 0
            for c in cs:
                try:
                    taken += c.recv().type == CONNACK
                except (Closed, OSError):
                    pass
            self.assertLessEqual(taken, 5)
            for c in cs:
                c.close()


class MountPoints(BrokerTest):
    listeners = ["listener {port} 127.0.0.1", "listener {port} 127.0.0.1\nmount_point inner/",
                 "listener {port} 127.0.0.1\nmount_point bare"]

    def test_nothing_but_what_is_below_the_mount_point(self):
        """ "#" is "inner/#" for the broker, which matches "inner" as well."""
        outer = self.connect(which=0)
        outer.publish("inner", "kept", 1, retain=True)
        for version in (4, 5):
            inner = self.connect(which=1, version=version).subscribe(("#", 1))
            for qos in (0, 1, 2):
                outer.publish("inner", "x", qos)
            outer.publish("inner/y", "y", 1)
            inner.settle(inner.expect_publish("y", "y", 1))
            inner.expect_nothing()
            inner.disconnect()
        outer.publish("inner", "", 1, retain=True)

    if IS_MOSQUITTO:  # loses count of what it swallows, and takes nothing off retained messages
        test_nothing_but_what_is_below_the_mount_point = unittest.expectedFailure(
            test_nothing_but_what_is_below_the_mount_point)

    @ours("the prefix is counted")
    def test_too_long_with_the_mount_point(self):
        """65,535 bytes are counted where the topic is used."""
        fits, long = "x" * (65535 - 6), "x" * (65535 - 5)
        s = self.connect(which=0).subscribe(("inner/" + fits, 0))
        c = self.connect(which=1).subscribe((fits, 0))
        c.publish(fits, "x")
        s.expect_publish("inner/" + fits, "x")
        c.expect_publish(fits, "x")
        c.send(subscribe(9, (long, 0), ("fine", 0)))
        c.expect(suback(9, 0x80, 0))
        for version, data in ((4, publish(long, "x", 1, 1)), (5, publish(long, "x", 1, 1, version=5))):
            c = self.connect(which=1, version=version)
            c.send(data)
            if version == 5:
                self.assertEqual(c.expect_type(DISCONNECT).body, b"\x90")
            c.expect_closed()
            c = self.client(version, which=1)
            c.send(connect("w", version=version, will=Will(long, "x")))
            if version == 5:
                self.assertEqual(c.expect_type(CONNACK).body[1], 0x90)
            c.expect_closed()
        wait_until(lambda: "topic too long with the mount point" in self.broker.log(), "said so")
        self.assertNotIn("out of memory", self.broker.log())

    @ours("the prefix is counted")
    def test_separators_with_the_mount_point(self):
        good, bad = "/" * 199, "/" * 200  # and one in the prefix
        c = self.connect(which=1, version=5).subscribe((good, 0))
        c.publish(good, "x", 0)
        c.expect_publish(good, "x")
        c.send(subscribe(9, (bad, 0), version=5))
        c.expect(suback(9, 0x8F, version=5))
        c.send(publish(bad, "x", 1, 9, version=5))
        self.assertEqual(c.expect_type(DISCONNECT).body, b"\x90")

    @ours("mosquitto grants it, and nothing ever comes")
    def test_filter_that_is_none_behind_the_mount_point(self):
        """ "bare#" and "bare+/x" are no filters."""
        for version, failed in ((4, 0x80), (5, 0x8F)):
            c = self.connect(which=2, version=version)
            c.send(subscribe(9, ("#", 0), ("/#", 0), ("+/x", 0), ("x/+", 0), version=version))
            c.expect(suback(9, failed, 0, failed, 0, version=version))
            c.disconnect()


class ProtocolVersions(BrokerTest):
    listeners = ["listener {port} 127.0.0.1\naccept_protocol_versions 4",
                 "listener {port} 127.0.0.1\naccept_protocol_versions 3,5"]

    @classmethod
    def setUpClass(cls):
        if IS_MOSQUITTO:
            raise unittest.SkipTest("mosquitto 2.0.11 does not know the key")
        super().setUpClass()

    def test_versions(self):
        self.connect(version=4, which=0)
        self.connect(version=3, which=1)
        self.assertEqual(refused(self.client(3, 0), connect("x", version=3)), 1)
        self.assertEqual(refused(self.client(4, 1), connect("x", version=4)), 1)


class Anonymous(BrokerTest):
    anonymous = False

    def test_refused(self):
        self.assertEqual(refused(self.client(), connect("anon")), 5)
        self.assertEqual(refused(self.client(3), connect("anon", version=3)), 5)


class AnonymousDefault(BrokerTest):
    anonymous = None

    def test_a_listener_makes_it_false(self):
        self.assertEqual(refused(self.client(), connect("anon")), 5)


class AnonymousPerListener(BrokerTest):
    anonymous = None
    config = "per_listener_settings true"
    listeners = ["listener {port} 127.0.0.1\nallow_anonymous true",
                 "listener {port} 127.0.0.1\nallow_anonymous false",
                 "listener {port} 127.0.0.1\nallow_anonymous true\nallow_zero_length_clientid false"]

    def test_each_its_own(self):
        self.connect(which=0)
        self.assertEqual(refused(self.client(which=1), connect("anon")), 5)
        self.connect("", which=0)
        self.assertEqual(refused(self.client(which=2), connect("")), 2)


class General(BrokerTest):
    config = """
        allow_zero_length_clientid false
        max_keepalive 30
        retain_available false
        upgrade_outgoing_qos true
        queue_qos0_messages true
        message_size_limit 1000
        """

    def test_allow_zero_length_clientid(self):
        self.assertEqual(refused(self.client(), connect("")), 2)

    def connect(self, *args, **fields):
        fields.setdefault("keepalive", 30)
        return super().connect(*args, **fields)

    @deviates("2.0.11 limits 5.0 clients only")
    def test_max_keepalive(self):
        self.connect(keepalive=30)
        self.assertEqual(refused(self.client(), connect("long", keepalive=31)), 2)
        self.assertEqual(refused(self.client(), connect("never", keepalive=0)), 2)

    def test_retain_available(self):
        c = self.connect()
        c.publish("ra/t", "x", 1)
        c.try_send(publish("ra/t", "x", 1, 2, retain=True))
        c.expect_closed()
        refused(self.client(), connect("w", keepalive=30, will=Will("ra/w", "x", 0, True)))
        self.connect().subscribe(("ra/#", 0)).expect_nothing()

    def test_upgrade_outgoing_qos(self):
        s = self.connect().subscribe(("up/t", 2))
        self.connect().publish("up/t", "x", 0)
        s.settle(s.expect_publish("up/t", "x", 2))

    def test_queue_qos0_messages(self):
        self.connect("q0", clean=False).subscribe(("q0/t", 0)).disconnect()
        p = self.connect().publish("q0/t", "a", 0)
        p.publish("q0/t", "b", 1)
        s = self.connect("q0", clean=False, present=True)
        self.assertEqual([m.payload for m in s.take(2)], [b"a", b"b"])

    def test_message_size_limit(self):
        """Answered, but not delivered."""
        s = self.connect().subscribe(("size/t", 1))
        p = self.connect()
        p.publish("size/t", bytes(1001), 1).publish("size/t", bytes(1001), 0).publish("size/t", bytes(1001), 2)
        p.publish("size/t", bytes(1000), 1)
        got = s.settle(s.expect_publish("size/t"))
        self.assertEqual(len(got.payload), 1000)
        s.expect_nothing()

    @deviates("takes it")
    def test_message_size_limit_of_a_will(self):
        """Refused at once: it could never be sent."""
        for version, code in ((3, 5), (4, 5), (5, 0x97)):
            c = self.client(version)
            self.assertEqual(refused(c, connect("w", version=version, keepalive=30, will=Will("w", bytes(1001)))), code)
            self.connect("w", version=version, will=Will("w", bytes(1000))).disconnect()

    @deviates("says 0x95")
    def test_message_size_limit_in_v5(self):
        """Refused with a code that PUBACK and PUBREC have: 0x95 is none of them, and clients die of it."""
        c = self.connect(version=5)
        for qos, answer in ((1, PUBACK), (2, PUBREC)):
            for pid in (1, 2):
                c.send(publish("size/v5", bytes(1001), qos, pid, version=5))
                self.assertEqual(c.expect_type(answer).body[2], 0x97)
        self.assertTrue(c.is_alive())


ODD = ["\x01", "\x0a", "\x1f", "\x7f", "\x80", "\x9b", "\ufdd0", "\ufdef", "\ufffe", "\uffff", "\U0001fffe", "\U0010ffff"]
FINE = [" ", "~", "\xa0", "\ufdcf", "\ufdf0", "\ufffd", "\ufeff", "\U0001fffd"]


def packets_with(s, version):
    """What may hold a string, as (name, what comes first, the packet that is answered or ends it all)."""
    name = "a%sb" % s
    five = [("user property", None, publish("cc/t", "x", 1, 1, version=5, props=props((0x26, (name, "v"))))),
            ("response topic", None, publish("cc/t", "x", 1, 1, version=5, props=props((0x08, name))))]
    return [("topic", None, publish(name, "x", 1, 1, version=version)),
            ("filter", None, subscribe(1, (name, 0), version=version)),
            ("filter to leave", None, unsubscribe(1, name, version=version)),
            ("client id", connect(name, version=version), None),
            ("will topic", connect("cc-w", version=version, will=Will(name, "x")), None),
            ("user name", connect("cc-u", version=version, username=name), None)] + (five if version == 5 else [])


def is_taken(broker, hello, data, version):
    with broker.client(version) as c:
        try:
            c.send(hello or connect("cc", version=version))
            if c.expect_type(CONNACK).body[1] != 0:
                return False
            if data is not None:
                c.send(data)
                return c.recv().type in (PUBACK, SUBACK, UNSUBACK)
            return True
        except Closed:
            return False


def check_strings(test, strings, wanted):
    for version in (3, 4, 5):
        for s in strings:
            for name, hello, data in packets_with(s, version):
                if IS_MOSQUITTO and name == "user name" and version == 3:
                    continue  # not looked at
                with test.subTest("%s with U+%04X, version %d" % (name, ord(s), version)):
                    test.assertEqual(is_taken(test.broker, hello, data, version), wanted)


class ControlCharacters(BrokerTest):
    """Refused as mosquitto does it, whose own clients end their connection when they receive one."""

    def test_refused(self):
        check_strings(self, ODD, False)

    def test_the_rest_is_fine(self):
        check_strings(self, FINE, True)


@ours("accept_control_characters")
class ControlCharactersAccepted(BrokerTest):
    config = "accept_control_characters true"

    def test_taken(self):
        check_strings(self, ODD + FINE, True)


class Prefixes(BrokerTest):
    config = "clientid_prefixes dev-\nauto_id_prefix zz-"

    def test_clientid_prefixes(self):
        self.connect("dev-1")
        self.assertEqual(refused(self.client(), connect("other")), 5)
        self.assertEqual(refused(self.client(), connect("de")), 5)

    def test_an_id_that_the_broker_makes(self):
        """It begins with auto_id_prefix, and has to begin with clientid_prefixes like any other."""
        self.assertEqual(refused(self.client(), connect("")), 5)
        self.assertEqual(refused(self.client(5), connect("", version=5)), 0x87)


class PrefixesAgree(BrokerTest):
    config = "clientid_prefixes dev-\nauto_id_prefix dev-auto-"

    def test_an_id_that_the_broker_makes(self):
        self.connect("")
        self.connect("dev-1")


class AutoId(BrokerTest):
    config = "auto_id_prefix zz-"

    def test_auto_id_prefix(self):
        """The log names the client; a prefix must not make it equal to another."""
        a, b = self.connect(""), self.connect("")
        self.assertTrue(a.is_alive() and b.is_alive())
        wait_until(lambda: len({w for w in self.broker.log().split() if w.startswith("zz-")}) >= 2,
                   "two names in the log")


class InflightBytes(BrokerTest):
    config = "max_inflight_bytes 100\nmax_inflight_messages 50"

    @deviates("2.0.11 sends them all")
    def test_counts_payloads(self):
        """Topic, properties and what the broker itself needs do not count."""
        topic = "ib/%s" % ("long/" * 30)
        for version, qos in ((4, 1), (5, 1), (4, 2)):
            with self.subTest(version=version, qos=qos):
                s = self.connect(version=version).subscribe((topic, qos))
                p = self.connect(version=version)
                for payload in ("a" * 60, "b" * 39, "c", "d", "e"):
                    p.publish(topic, payload, 1 if qos == 1 else 2)
                got = [s.expect_publish(topic) for _ in range(3)]  # 60, 99, 100: that is enough
                self.assertEqual([m.payload[:1] for m in got], [b"a", b"b", b"c"])
                s.expect_nothing()
                s.send(*(puback(m.pid) if qos == 1 else pubrec(m.pid) for m in got))
                rest = [m for m in (s.recv() for _ in range(2 if qos == 1 else 5)) if m.type == PUBLISH]
                self.assertEqual([m.payload for m in rest], [b"d", b"e"])
                s.disconnect()

    @deviates("2.0.11 sends them all")
    def test_one_may_always_be_on_its_way(self):
        s = self.connect().subscribe(("ib/large", 1))
        p = self.connect()
        for i in range(3):
            p.publish("ib/large", bytes(1000 + i), 1)
        for i in range(3):
            got = s.expect_publish("ib/large", bytes(1000 + i))
            s.expect_nothing()
            s.settle(got)


class PacketSize(BrokerTest):
    config = "max_packet_size 2000"

    @deviates("compares the remaining length, not the packet")
    def test_max_packet_size(self):
        s = self.connect().subscribe(("ps/t", 0))
        fits = publish("ps/t", bytes(2000 - 3 - 6))
        self.assertEqual(len(fits), 2000)
        c = self.connect()
        c.send(fits)
        s.expect_publish("ps/t", bytes(1991))
        c.try_send(publish("ps/t", bytes(1992)))
        c.expect_closed()
        s.expect_nothing()

    @deviates("compares the remaining length, not the packet")
    def test_connect_is_a_packet(self):
        c = self.connect("x" * (2000 - 3 - 12))
        self.assertTrue(c.is_alive())
        c = self.client()
        c.try_send(connect("x" * (2000 - 3 - 11)))
        c.expect_closed()

    def test_closed_at_the_header(self):
        """Not only when the whole packet has come."""
        c = self.connect()
        c.send(b"\x30" + varint(100000))
        c.expect_closed()


class Files(unittest.TestCase):
    """What is refused: exit code 1; the file, the line, the key and a reason are named."""

    def check(self, text, line, *words):
        code, out = run_broken(text)
        self.assertEqual(code, 3 if IS_MOSQUITTO else 1, out)
        if not IS_MOSQUITTO:
            self.assertRegex(out, r"conf:%d\b|conf, line %d\b|conf.*line %d\b" % (line, line, line))
            for w in words:
                self.assertIn(w, out)

    def test_unknown_key(self):
        self.check("# a comment\n\nno_such_key 1\n", 3, "no_such_key")

    def test_bad_values(self):
        for text, key in (("allow_anonymous maybe", "allow_anonymous"),
                          ("max_packet_size many", "max_packet_size"),
                          ("listener 99999", "listener"), ("listener x", "listener"),
                          ("persistent_client_expiration 3x", "persistent_client_expiration"),
                          ("log_type nonsense", "log_type")):
            with self.subTest(text):
                self.check("allow_anonymous true\n%s\n" % text, 2, key)

    @deviates("accepts it")
    def test_bad_values_too(self):
        for text, key in (("max_inflight_messages 65536", "max_inflight_messages"),
                          ("max_queued_messages -5", "max_queued_messages"),
                          ("max_inflight_messages 12x", "max_inflight_messages")):
            with self.subTest(text):
                self.check("allow_anonymous true\n%s\n" % text, 2, key)

    def test_missing_value(self):
        self.check("allow_anonymous true\nmax_packet_size\n", 2, "max_packet_size")

    @deviates("2.0.11 takes what it does not know about to be the bridge's")
    def test_refused_with_a_replacement(self):
        self.check("allow_anonymous true\nauth_plugin /lib/x.so\n", 2, "auth_plugin")

    def test_no_such_file(self):
        code, out = run_broken("", args=("-c", "/nonexistent/conf"))
        self.assertNotIn(code, (0, None), out)

    def test_port_in_use(self):
        with Broker() as b:
            code, out = run_broken("user root\nlistener %d 127.0.0.1\n" % b.port)
            self.assertNotIn(code, (0, None), out)
            self.assertTrue(b.connect("still").is_alive())

    def test_line_ends(self):
        """CRLF, and a missing last newline."""
        b = Broker(start=False)
        with open(b.conf_path, "wb") as f:
            f.write(b"user root\r\n\r\n# comment\r\nallow_anonymous true\r\nlistener %d 127.0.0.1" % b.port)
        with b:
            b.start()
            b.connect("crlf").is_alive()

    @ours("include_dir is read by mosquitto, too, but this needs --test-config")
    def test_test_config(self):
        self.assertEqual(run_broken("allow_anonymous true\n", args=("--test-config",))[0], 0)
        self.assertEqual(run_broken("nonsense true\n", args=("--test-config",))[0], 1)

    def test_include_dir(self):
        b = Broker(start=False)
        os.mkdir(os.path.join(b.dir, "more"))
        for name, text in (("b.conf", "max_packet_size 300\n"), ("a.conf", "max_packet_size 200\n"),
                           ("c.txt", "max_packet_size 20000\n")):
            with open(os.path.join(b.dir, "more", name), "w") as f:
                f.write(text)
        with open(b.conf_path) as f:
            old = f.read()
        with open(b.conf_path, "w") as f:
            f.write("include_dir %s/more\n%s" % (b.dir, old))
        with b:
            b.start()
            c = b.connect("inc")
            c.publish("t", bytes(250), 1)  # b.conf is read after a.conf, c.txt not at all
            c.try_send(publish("t", bytes(350)))
            c.expect_closed()

    def test_general_keys_are_accepted(self):
        """All that is named in the compatibility list and needs nothing else."""
        with Broker("""
                per_listener_settings false
                autosave_interval 30
                autosave_on_changes false
                check_retain_source true
                connection_messages false
                log_dest stderr
                log_type all
                log_timestamp true
                log_timestamp_format %Y-%m-%dT%H:%M:%S
                max_inflight_bytes 0
                max_inflight_messages 40
                max_queued_bytes 0
                max_queued_messages 2000
                memory_limit 0
                persistence false
                persistence_location {dir}/
                persistent_client_expiration 14d
                pid_file {dir}/pid
                set_tcp_nodelay true
                sys_interval 10
                allow_duplicate_messages true
                retry_interval 20
                websockets_log_level 0
                """, listeners=["listener {port} 127.0.0.1\nmax_connections -1\nmax_topic_alias 5\n"
                                "protocol mqtt\nsocket_domain ipv4"]) as b:
            b.connect("accepted").is_alive()
            wait_until(lambda: self.number_in(os.path.join(b.dir, "pid")) == b.pid, "pid file")

    def number_in(self, path):
        try:
            with open(path) as f:
                return int(f.read())
        except (FileNotFoundError, ValueError):  # not yet, or not yet whole
            return None


if __name__ == "__main__":
    main()
