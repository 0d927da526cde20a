# SPDX-License-Identifier: Apache-2.0
"""Clients people use: mosquitto_pub and _sub, Paho for Python and Go, MQTT.js.

Each: QoS 0 to 2, retained, will, clean_session=false over a reconnect with messages queued meanwhile, takeover.
"""

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


class ClientsTest(BrokerTest):
    def run_scenario(self, argv, **more):
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                              timeout=50 * SLOW, **more)
        self.assertEqual((done.returncode, done.stdout.decode()), (0, "ok\n"))


class Mosquitto(BrokerTest):
    """mosquitto_pub and mosquitto_sub."""

    def options(self, *args):
        return ["-h", "127.0.0.1", "-p", str(self.broker.port)] + list(args)

    def pub(self, *args, data=None):
        done = subprocess.run(["mosquitto_pub"] + self.options(*args), input=data, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stdout), (0, b""))

    def sub(self, *args, background=False, ready=None):
        """The lines it prints. In the background: the process, once its subscription stands."""
        argv = ["mosquitto_sub"] + self.options("-W", str(int(PATIENCE)), *args)
        if not background:
            done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=PATIENCE + 5)
            return done.stdout.decode().splitlines()
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.addCleanup(process.kill)
        if ready is not None:  # a retained message on the filter says that SUBSCRIBE was served
            self.assertEqual(process.stdout.readline().decode().strip(), ready)
        return process

    def test_qos(self):
        for qos in "012":
            topic = "mq/qos/" + qos
            self.pub("-t", topic + "/0", "-m", "ready", "-r")
            s = self.sub("-t", topic + "/#", "-q", "2", "-C", "101", "-F", "%q %p", background=True,
                         ready="0 ready")
            self.pub("-t", topic, "-q", qos, "-l", data=b"".join(b"m%d\n" % i for i in range(100)))
            out, _ = s.communicate(timeout=PATIENCE)
            self.assertEqual(out.decode().splitlines(), ["%s m%d" % (qos, i) for i in range(100)])
            self.assertEqual(s.returncode, 0)

    def test_versions(self):
        for version in ("mqttv31", "mqttv311"):
            self.pub("-V", version, "-t", "mq/v/" + version, "-m", "x", "-q", "1", "-r")
            self.assertEqual(self.sub("-V", version, "-t", "mq/v/" + version, "-C", "1"), ["x"])

    def test_retained(self):
        self.pub("-t", "mq/ret/a", "-m", "kept", "-r", "-q", "1")
        self.assertEqual(self.sub("-t", "mq/ret/#", "-C", "1", "-q", "1", "-F", "%r %q %t %p"),
                         ["1 1 mq/ret/a kept"])
        self.pub("-t", "mq/ret/a", "-n", "-r", "-q", "1")
        self.pub("-t", "mq/ret/b", "-m", "only", "-r", "-q", "1")
        self.assertEqual(self.sub("-t", "mq/ret/#", "-C", "1", "-F", "%t %p"), ["mq/ret/b only"])

    def test_will(self):
        watch = self.connect().subscribe(("mq/will", 1), ("mq/up", 0))
        self.pub("-t", "mq/up", "-m", "ready", "-r")
        watch.expect_publish("mq/up", "ready")
        s = self.sub("-t", "mq/up", "--will-topic", "mq/will", "--will-payload", "gone", "--will-qos", "1",
                     background=True, ready="ready")
        s.kill()
        watch.settle(watch.expect_publish("mq/will", "gone", 1))
        s = self.sub("-t", "mq/up", "--will-topic", "mq/will", "--will-payload", "gone", "-C", "1",
                     background=True)
        self.assertEqual(s.wait(PATIENCE), 0)
        watch.expect_nothing()

    def test_durable(self):
        args = ("-i", "mq-dur", "-c", "-q", "2", "-t", "mq/dur/#")
        self.sub(*args, "-E")  # subscribes and leaves
        for qos in "12":
            self.pub("-t", "mq/dur/t", "-q", qos, "-l",
                     data=b"".join(b"%s-%d\n" % (qos.encode(), i) for i in range(30)))
        self.assertEqual(self.sub(*args, "-C", "60", "-F", "%q %p"),
                         ["%s %s-%d" % (qos, qos, i) for qos in "12" for i in range(30)])

    def test_takeover(self):
        self.pub("-t", "mq/over", "-m", "ready", "-r")
        first = self.connect("mq-over", clean=False).subscribe(("mq/over", 1))
        first.expect_publish("mq/over", "ready")
        s = self.sub("-i", "mq-over", "-c", "-q", "1", "-t", "mq/over", "-C", "2", background=True,
                     ready="ready")
        first.expect_closed()
        self.pub("-t", "mq/over", "-m", "to the second", "-q", "1")
        self.assertEqual(s.communicate(timeout=PATIENCE)[0].decode().split("\n")[0], "to the second")


class PahoPython(BrokerTest):
    def paho(self, client_id, clean=True, protocol=4, will=None):
        import paho.mqtt.client as mqtt
        c = mqtt.Client(client_id=client_id, clean_session=clean, protocol=protocol)
        c.inbox = queue.Queue()
        c.gone = threading.Event()
        c.session_present = None
        up = threading.Event()

        def on_connect(client, data, flags, rc):
            c.session_present = flags["session present"]
            if rc == 0:
                up.set()

        c.on_connect = on_connect
        c.on_message = lambda client, data, m: c.inbox.put(m)
        c.on_disconnect = lambda client, data, rc: c.gone.set()
        c.on_subscribe = lambda client, data, mid, granted: c.inbox.put(granted)
        if will:
            c.will_set(*will)
        c.connect("127.0.0.1", self.broker.port)
        c.loop_start()
        self.addCleanup(c.loop_stop)
        self.assertTrue(up.wait(PATIENCE))
        return c

    def subscribe(self, c, *args):
        c.subscribe(*args)
        return tuple(c.inbox.get(timeout=PATIENCE))

    def publish(self, c, *args):
        info = c.publish(*args)
        info.wait_for_publish(PATIENCE)
        self.assertTrue(info.is_published())

    def expect(self, c, topic, payload, qos, retain=False):
        m = c.inbox.get(timeout=PATIENCE)
        self.assertEqual((m.topic, m.payload.decode(), m.qos, bool(m.retain)), (topic, payload, qos, retain))

    def expect_nothing(self, c):
        with self.assertRaises(queue.Empty):
            c.inbox.get(timeout=QUIET)

    def test_qos(self):
        for protocol in (3, 4):
            s, p = self.paho("pp-s", protocol=protocol), self.paho("pp-p", protocol=protocol)
            self.assertEqual(self.subscribe(s, [("pp/qos/+", 2), ("pp/x", 0)]), (2, 0))
            for qos in (0, 1, 2):
                for i in range(50):
                    self.publish(p, "pp/qos/t", "%d-%d" % (qos, i), qos)
                for i in range(50):
                    self.expect(s, "pp/qos/t", "%d-%d" % (qos, i), qos)
            s.disconnect()
            p.disconnect()

    def test_retained(self):
        p = self.paho("pp-p")
        self.publish(p, "pp/ret/a", "kept", 1, True)
        s = self.paho("pp-s")
        s.subscribe("pp/ret/#", 2)
        got = [s.inbox.get(timeout=PATIENCE) for _ in range(2)]
        m = [g for g in got if not isinstance(g, (tuple, list))][0]
        self.assertEqual((m.topic, m.payload, m.qos, bool(m.retain)), ("pp/ret/a", b"kept", 1, True))
        self.publish(p, "pp/ret/a", "", 1, True)
        self.expect(s, "pp/ret/a", "", 1)
        late = self.paho("pp-late")
        self.subscribe(late, "pp/ret/#", 2)
        self.expect_nothing(late)

    def test_will(self):
        s = self.paho("pp-s")
        self.subscribe(s, "pp/will", 2)
        dying = self.paho("pp-will", will=("pp/will", "gone", 2))
        dying.loop_stop()
        dying.socket().close()
        self.expect(s, "pp/will", "gone", 2)
        polite = self.paho("pp-will", will=("pp/will", "not sent", 1))
        polite.disconnect()
        self.expect_nothing(s)

    def test_durable(self):
        s = self.paho("pp-dur", clean=False)
        self.subscribe(s, "pp/dur/#", 2)
        s.disconnect()
        self.assertTrue(s.gone.wait(PATIENCE))
        p = self.paho("pp-p")
        for i in range(60):
            self.publish(p, "pp/dur/t", "%d" % i, 1 if i < 30 else 2)  # it gives QoS 2 out at PUBREL
        s = self.paho("pp-dur", clean=False)
        self.assertEqual(s.session_present, 1)
        for i in range(60):
            self.expect(s, "pp/dur/t", "%d" % i, 1 if i < 30 else 2)
        self.expect_nothing(s)

    def test_takeover(self):
        a = self.paho("pp-over", clean=False)
        self.subscribe(a, "pp/over", 1)
        a.reconnect_delay_set(3600)
        b = self.paho("pp-over", clean=False)
        self.assertTrue(a.gone.wait(PATIENCE))
        a.loop_stop()
        p = self.paho("pp-p")
        self.publish(p, "pp/over", "to the second", 1)
        self.expect(b, "pp/over", "to the second", 1)
        self.assertTrue(a.inbox.empty())


class PahoGo(ClientsTest):
    @classmethod
    def setUpClass(cls):
        """Built once; Debian's package is a source tree in a GOPATH, nothing is fetched."""
        folder = os.path.join(BUILD, "tests", "paho-go")
        cls.program = os.path.join(folder, "paho")
        source = os.path.join(HERE, "clients", "paho.go")
        os.makedirs(folder, exist_ok=True)
        if not os.path.exists(cls.program) or os.path.getmtime(cls.program) < os.path.getmtime(source):
            env = dict(os.environ, GO111MODULE="off", GOPATH="/usr/share/gocode", GOFLAGS="",
                       GOCACHE=os.path.join(folder, "cache"), GOPROXY="off")
            fresh = "%s.%d" % (cls.program, os.getpid())
            subprocess.run(["go", "build", "-o", fresh, source], check=True, env=env, cwd=folder)
            os.rename(fresh, cls.program)
        super().setUpClass()

    def scenario(self, name):
        self.run_scenario([self.program, "127.0.0.1:%d" % self.broker.port, name])

    def test_qos(self):
        self.scenario("qos")

    def test_retained(self):
        self.scenario("retained")

    def test_will(self):
        self.scenario("will")

    def test_durable(self):
        self.scenario("durable")

    def test_takeover(self):
        self.scenario("takeover")


class MqttJs(ClientsTest):
    MODULES = os.path.join(ROOT, "build", "npm", "node_modules")

    @classmethod
    def setUpClass(cls):
        if not os.path.isdir(os.path.join(cls.MODULES, "mqtt")):
            raise AssertionError("no %s/mqtt: run packaging/deps test" % cls.MODULES)
        super().setUpClass()

    def scenario(self, name):
        self.run_scenario([shutil.which("node"), os.path.join(HERE, "clients", "mqttjs.js"),
                           "127.0.0.1:%d" % self.broker.port, name], env=dict(os.environ, NODE_PATH=self.MODULES))

    def test_qos(self):
        self.scenario("qos")

    def test_retained(self):
        self.scenario("retained")

    def test_will(self):
        self.scenario("will")

    def test_durable(self):
        self.scenario("durable")

    def test_takeover(self):
        self.scenario("takeover")


if __name__ == "__main__":
    main()
