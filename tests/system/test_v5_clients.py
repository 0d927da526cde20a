# SPDX-License-Identifier: Apache-2.0
"""MQTT 5.0 as clients speak it: Paho for Python and C, MQTT.js, mosquitto_pub, _sub and _rr, libmosquitto."""

import os
import queue
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from wire import *  # noqa: E402,F403

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("NOCTULE_BUILD", os.path.join(ROOT, "build", "dev"))
PATIENCE = 20 * SLOW


def build_c(source, library):
    """Compiled once per build folder; the program's path."""
    folder = os.path.join(BUILD, "tests", "v5-clients")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(HERE, "clients", source)
    program = os.path.join(folder, source[:-2])
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(path):
        fresh = "%s.%d" % (program, os.getpid())
        subprocess.run(["gcc", "-std=gnu17", "-Wall", "-Wextra", "-O1", "-o", fresh, path, "-l" + library], check=True)
        os.rename(fresh, program)
    return program


class ClientsTest(BrokerTest):
    config = "shards 4"

    def run_scenario(self, argv, **more):
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                              timeout=50 * SLOW, **more)
        self.assertEqual((done.returncode, done.stdout.decode()), (0, "ok\n"))


class PahoC(ClientsTest):
    @classmethod
    def setUpClass(cls):
        cls.program = build_c("paho5.c", "paho-mqtt3c")
        super().setUpClass()

    def scenario(self, name):
        self.run_scenario([self.program, "tcp://127.0.0.1:%d" % self.broker.port, name])

    def test_qos(self):
        self.scenario("qos")

    def test_properties(self):
        self.scenario("properties")

    def test_session(self):
        self.scenario("session")

    def test_will(self):
        self.scenario("will")

    def test_shared(self):
        self.scenario("shared")

    def test_refused(self):
        self.scenario("refused")


class Libmosquitto(ClientsTest):
    @classmethod
    def setUpClass(cls):
        cls.program = build_c("mosq5.c", "mosquitto")
        super().setUpClass()

    def scenario(self, name):
        self.run_scenario([self.program, "%d" % self.broker.port, name])

    def test_qos(self):
        self.scenario("qos")

    def test_properties(self):
        self.scenario("properties")

    def test_session(self):
        self.scenario("session")

    def test_takeover(self):
        self.scenario("takeover")

    def test_limits(self):
        self.scenario("limits")


class MqttJs(ClientsTest):
    MODULES = os.path.join(ROOT, "build", "npm", "node_modules")

    @classmethod
    def setUpClass(cls):
        if not os.path.isdir(os.path.join(cls.MODULES, "mqtt")):
            raise AssertionError("no %s/mqtt: run packaging/deps test" % cls.MODULES)
        super().setUpClass()

    def scenario(self, name):
        self.run_scenario([shutil.which("node"), os.path.join(HERE, "clients", "mqttjs5.js"),
                           "127.0.0.1:%d" % self.broker.port, name], env=dict(os.environ, NODE_PATH=self.MODULES))

    def test_qos(self):
        self.scenario("qos")

    def test_properties(self):
        self.scenario("properties")

    def test_aliases(self):
        self.scenario("aliases")

    def test_session(self):
        self.scenario("session")

    def test_will(self):
        self.scenario("will")

    def test_shared(self):
        self.scenario("shared")

    def test_takeover(self):
        self.scenario("takeover")

    def test_refused(self):
        self.scenario("refused")


class Mosquitto(ClientsTest):
    """mosquitto_pub, _sub and _rr with -V 5 and -D."""

    def options(self, *args):
        return ["-h", "127.0.0.1", "-p", str(self.broker.port), "-V", "5"] + list(args)

    def pub(self, *args, rc=0):
        done = subprocess.run(["mosquitto_pub"] + self.options(*args), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE)
        self.assertEqual(done.returncode, rc, done.stdout)
        return done.stdout.decode()

    def sub(self, *args):
        done = subprocess.run(["mosquitto_sub"] + self.options("-W", str(int(PATIENCE)), *args),
                              stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=PATIENCE + 5)
        return done.stdout.decode().splitlines()

    def test_properties(self):
        self.pub("-t", "m5/p", "-m", "x", "-q", "1", "-r",
                 "-D", "publish", "content-type", "text/plain",
                 "-D", "publish", "correlation-data", "c-1",
                 "-D", "publish", "message-expiry-interval", "100",
                 "-D", "publish", "payload-format-indicator", "1",
                 "-D", "publish", "response-topic", "m5/answer",
                 "-D", "publish", "user-property", "k", "1",
                 "-D", "publish", "user-property", "k", "2")
        got = self.sub("-t", "m5/p", "-q", "1", "-C", "1", "-D", "subscribe", "subscription-identifier", "9",
                       "-F", "%C|%D|%F|%R|%P|%S|%E|%p")
        words = got[0].split("|")
        self.assertIn(int(words[6]), (97, 98, 99, 100))
        del words[6]
        self.assertEqual(words, ["text/plain", "c-1", "1", "m5/answer", "k:1 k:2", "9", "x"])
        self.pub("-t", "m5/p", "-n", "-r", "-q", "1")

    def test_session(self):
        args = ("-i", "m5-dur", "-c", "-x", "100", "-q", "1", "-t", "m5/dur")
        self.sub(*args, "-E")
        for i in range(5):
            self.pub("-t", "m5/dur", "-m", "%d" % i, "-q", "1")
        self.assertEqual(self.sub(*args, "-C", "5"), ["%d" % i for i in range(5)])
        self.sub("-i", "m5-short", "-c", "-x", "1", "-q", "1", "-t", "m5/dur", "-E")
        self.pub("-t", "m5/dur", "-m", "late", "-q", "1")
        time.sleep(2.2)
        c = self.connect("m5-short", version=5, clean=False, present=False)
        c.expect_nothing()

    def test_qos_and_alias(self):
        s = self.connect(version=5).subscribe(("m5/q", 2))
        for qos in "012":
            self.pub("-t", "m5/q", "-m", "q" + qos, "-q", qos, "-D", "publish", "topic-alias", "3")
            s.settle(s.expect_publish("m5/q", "q" + qos, int(qos)))

    def test_will(self):
        s = self.connect(version=5).subscribe(("m5/will", 1))
        self.pub("-t", "m5/up", "-m", "ready", "-r")
        p = subprocess.Popen(["mosquitto_sub"] + self.options(
            "-t", "m5/up", "-x", "60", "-c", "-i", "m5-will", "--will-topic", "m5/will", "--will-payload", "gone",
            "--will-qos", "1", "-D", "will", "will-delay-interval", "1", "-D", "will", "content-type", "text/will"),
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.kill)
        self.assertEqual(p.stdout.readline(), b"ready\n")
        p.kill()
        p.wait()
        s.expect_nothing(0.5)
        m = s.settle(s.expect_publish("m5/will", "gone"))
        self.assertEqual(m.props, [(0x03, b"text/will")])

    def test_refused(self):
        self.assertIn("Not authorized", self.pub("-t", "$SYS/broker/x", "-m", "x", "-q", "1"))
        self.assertEqual(self.pub("-t", "m5/nobody", "-m", "x", "-q", "1"), "")

    def test_request_response(self):
        """mosquitto_rr against a responder of one line."""
        server = self.connect(version=5).subscribe(("m5/ask", 1))
        answers = []

        def serve():
            m = server.settle(server.expect_publish("m5/ask", timeout=PATIENCE))
            found = dict(m.props)
            answers.append(found)
            more = props((0x09, found[0x09])) if 0x09 in found else b"\0"
            server.send(publish(found[0x08].decode(), b"answer to " + m.payload, 0, version=5, props=more))

        t = threading.Thread(target=serve)
        t.start()
        done = subprocess.run(["mosquitto_rr"] + self.options("-t", "m5/ask", "-e", "m5/answers", "-m", "question",
                                                              "-q", "1", "-W", str(int(PATIENCE)),
                                                              "-D", "publish", "correlation-data", "c-77"),
                              stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=PATIENCE + 5)
        t.join()
        self.assertEqual((done.returncode, done.stdout), (0, b"answer to question\n"))
        self.assertEqual(answers[0], {0x08: b"m5/answers", 0x09: b"c-77"})

    def test_shared(self):
        ps = [subprocess.Popen(["mosquitto_sub"] + self.options("-t", "$share/g/m5/sh", "-q", "1", "-C", "5", "-W",
                                                                str(int(PATIENCE))),
                               stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) for _ in range(2)]
        for p in ps:
            self.addCleanup(p.stdout.close)
            self.addCleanup(p.kill)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:  # until both are there
            text = self.broker.log()
            if text.count("new client connected") - text.count(" disconnected") >= 2:
                break
            time.sleep(0.05)
        time.sleep(0.3)
        p = self.connect(version=5)
        for i in range(10):
            p.publish("m5/sh", "%d" % i, 1)
        got = [p.communicate(timeout=PATIENCE)[0].decode().split() for p in ps]
        self.assertEqual([len(x) for x in got], [5, 5])
        self.assertEqual(sorted(map(int, got[0] + got[1])), list(range(10)))


class PahoPython(ClientsTest):
    def paho(self, client_id, clean=True, will=None, **connect_props):
        import paho.mqtt.client as mqtt
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties
        self.Properties, self.PacketTypes = Properties, PacketTypes
        c = mqtt.Client(client_id=client_id, protocol=mqtt.MQTTv5)
        c.inbox, c.granted, c.up, c.gone = queue.Queue(), queue.Queue(), queue.Queue(), queue.Queue()
        c.on_connect = lambda client, data, flags, reason, found: c.up.put((flags, reason, found))
        c.on_message = lambda client, data, m: c.inbox.put(m)
        c.on_disconnect = lambda client, data, reason, found=None: c.gone.put(reason)
        c.on_subscribe = lambda client, data, mid, codes, found: c.granted.put([x.value for x in codes])
        if will:
            topic, payload, qos, delay = will
            found = Properties(PacketTypes.WILLMESSAGE)
            found.WillDelayInterval = delay
            c.will_set(topic, payload, qos, properties=found)
        c.connect("127.0.0.1", self.broker.port, clean_start=clean,
                  properties=self.properties(PacketTypes.CONNECT, connect_props))
        c.loop_start()
        self.addCleanup(c.loop_stop)
        flags, reason, c.connack = c.up.get(timeout=PATIENCE)
        self.assertEqual(reason.value, 0)
        c.session_present = flags["session present"]
        return c

    def properties(self, kind, values):
        found = self.Properties(kind)
        for name, value in values.items():
            setattr(found, name, value)
        return found

    def subscribe(self, c, topic, want, **options):
        from paho.mqtt.subscribeoptions import SubscribeOptions
        found = self.Properties(self.PacketTypes.SUBSCRIBE)
        if "identifier" in options:
            found.SubscriptionIdentifier = options.pop("identifier")
        c.subscribe(topic, options=SubscribeOptions(**options), properties=found)
        self.assertEqual(c.granted.get(timeout=PATIENCE), [want])

    def publish(self, c, topic, payload, qos=1, retain=False, **values):
        info = c.publish(topic, payload, qos, retain,
                         properties=self.properties(self.PacketTypes.PUBLISH, values))
        info.wait_for_publish(PATIENCE)
        self.assertTrue(info.is_published())

    def expect(self, c, topic, payload, qos):
        m = c.inbox.get(timeout=PATIENCE)
        self.assertEqual((m.topic, m.payload.decode(), m.qos), (topic, payload, qos))
        return m

    def expect_nothing(self, c, seconds=QUIET):
        with self.assertRaises(queue.Empty):
            c.inbox.get(timeout=seconds)

    def test_connack(self):
        c = self.paho("", SessionExpiryInterval=10)
        self.assertTrue(c.connack.AssignedClientIdentifier.startswith("auto-"))
        self.assertEqual(c.connack.TopicAliasMaximum, 10)

    def test_qos(self):
        s, p = self.paho("p5-s", ReceiveMaximum=3), self.paho("p5-p")
        self.subscribe(s, "p5/qos/+", 2, qos=2)
        for qos in (0, 1, 2):
            for i in range(40):
                self.publish(p, "p5/qos/t", "%d-%d" % (qos, i), qos)
            for i in range(40):
                self.expect(s, "p5/qos/t", "%d-%d" % (qos, i), qos)

    def test_properties(self):
        c = self.paho("p5-s")
        self.subscribe(c, "p5/pr/#", 1, qos=1, identifier=5)
        self.publish(c, "p5/pr/a", "x", ContentType="text/plain", ResponseTopic="p5/answer", CorrelationData=b"c-1",
                     MessageExpiryInterval=100, PayloadFormatIndicator=1,
                     UserProperty=[("k", "1"), ("k", "2")])
        found = self.expect(c, "p5/pr/a", "x", 1).properties
        self.assertEqual((found.ContentType, found.ResponseTopic, found.CorrelationData,
                          found.PayloadFormatIndicator, found.UserProperty, found.SubscriptionIdentifier),
                         ("text/plain", "p5/answer", b"c-1", 1, [("k", "1"), ("k", "2")], [5]))
        self.assertIn(found.MessageExpiryInterval, (98, 99, 100))

    def test_options(self):
        """No local, retain as published, retain handling."""
        c = self.paho("p5-o")
        self.publish(c, "p5/o", "kept", 1, True)
        self.subscribe(c, "p5/o", 1, qos=1, noLocal=True, retainAsPublished=True, retainHandling=2)
        self.expect_nothing(c)
        self.publish(c, "p5/o", "mine", 1)
        self.expect_nothing(c)
        other = self.paho("p5-o2")
        self.publish(other, "p5/o", "kept", 1, True)
        self.assertTrue(self.expect(c, "p5/o", "kept", 1).retain)
        self.publish(other, "p5/o", "", 1, True)

    def test_session(self):
        s = self.paho("p5-dur", SessionExpiryInterval=100)
        self.subscribe(s, "p5/dur", 2, qos=2)
        s.disconnect()
        self.assertEqual(getattr(s.gone.get(timeout=PATIENCE), "value", 0), 0)
        p = self.paho("p5-p")
        for i in range(30):
            self.publish(p, "p5/dur", "%d" % i, 1)
        s = self.paho("p5-dur", clean=False, SessionExpiryInterval=1)
        self.assertEqual(s.session_present, 1)
        for i in range(30):
            self.expect(s, "p5/dur", "%d" % i, 1)
        s.disconnect()
        time.sleep(2.2)
        self.assertEqual(self.paho("p5-dur", clean=False).session_present, 0)

    def test_will(self):
        s = self.paho("p5-s")
        self.subscribe(s, "p5/will", 1, qos=1)
        dying = self.paho("p5-w", will=("p5/will", "gone", 1, 1), SessionExpiryInterval=60)
        dying.loop_stop()
        dying.socket().close()
        self.expect_nothing(s, 0.5)
        self.expect(s, "p5/will", "gone", 1)

    def test_takeover(self):
        a = self.paho("p5-over", SessionExpiryInterval=60)
        a.reconnect_delay_set(3600, 3600)
        b = self.paho("p5-over", clean=False)
        self.assertEqual(b.session_present, 1)
        a.gone.get(timeout=PATIENCE)  # 1.6 reads the reason only where there are properties, too
        self.subscribe(b, "p5/over", 1, qos=1)
        self.publish(b, "p5/over", "to the second")
        self.expect(b, "p5/over", "to the second", 1)
        self.assertTrue(a.inbox.empty())

    def test_aliases(self):
        """It asks for and uses them."""
        s = self.paho("p5-s", TopicAliasMaximum=0)
        self.subscribe(s, "p5/al/+", 1, qos=1)
        p = self.paho("p5-p")
        for i in range(20):
            n = i % 4 + 1
            self.publish(p, "p5/al/%d" % n if i < 4 else "", "%d" % i, TopicAlias=n)
            self.expect(s, "p5/al/%d" % n, "%d" % i, 1)


if __name__ == "__main__":
    main()
