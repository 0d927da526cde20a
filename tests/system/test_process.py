# SPDX-License-Identifier: Apache-2.0
"""The process: start, signals, log, end."""

import os
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from wire import *  # noqa: E402,F403


class Life(unittest.TestCase):
    def test_ready_soon(self):
        with Broker() as b:
            self.assertLess(b.ready_s, 2.0 * SLOW)

    def test_term_with_clients(self):
        """SIGTERM: exit code 0, the clients are disconnected."""
        with Broker() as b:
            cs = [b.connect("c%d" % i).subscribe(("t/#", 1)) for i in range(20)]
            half = b.client()
            half.send(connect("half")[:7])
            b.stop()
            for c in cs:
                c.expect_closed()
            half.expect_closed()

    def test_term_under_load(self):
        with Broker() as b:
            s = b.connect("s").subscribe(("t", 1))
            p = b.connect("p")
            p.send(*(publish("t", "x", 1, i + 1) for i in range(5000)))
            s.expect_publish()
            begin = time.monotonic()
            b.stop()
            self.assertLess(time.monotonic() - begin, 5 * SLOW)

    def test_int(self):
        with Broker() as b:
            b.connect("c")
            b.signal(signal.SIGINT)
            self.assertEqual(b.process.wait(10 * SLOW), 0)
            b.process = None

    def test_restart_on_the_same_port(self):
        """Old connections in TIME_WAIT do not keep the port."""
        with Broker() as b:
            c = b.connect("c")
            b.restart()
            c.close()
            b.connect("c").is_alive()

    def test_kill_leaves_a_unix_socket_that_is_no_obstacle(self):
        with Broker(listeners=["listener {port} 127.0.0.1", "listener 0 {dir}/s"]) as b:
            b.connect("c", which=1)
            b.kill()
            b.start()
            b.connect("c", which=1).is_alive()


class Signals(BrokerTest):
    def test_hup_keeps_clients(self):
        c = self.connect("stays").subscribe(("hup/t", 1))
        for _ in range(3):
            self.broker.signal(signal.SIGHUP)
            time.sleep(0.1)
            self.assertTrue(c.is_alive())
        self.connect().publish("hup/t", "x", 1)
        c.settle(c.expect_publish("hup/t", "x"))

    def test_usr_are_accepted(self):
        c = self.connect()
        for which in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
            self.broker.signal(which)
            time.sleep(0.05)
            self.assertTrue(c.is_alive())


class Reload(unittest.TestCase):
    def change(self, b, old, new):
        with open(b.conf_path) as f:
            text = f.read()
        assert old in text
        with open(b.conf_path, "w") as f:
            f.write(text.replace(old, new))
        b.signal(signal.SIGHUP)

    def test_reloadable_key(self):
        with Broker("allow_zero_length_clientid true") as b:
            c = b.connect("")
            self.change(b, "clientid true", "clientid false")

            def refused():
                with b.client() as x:
                    x.send(connect(""))
                    return x.expect_type(CONNACK).body[1] == 2
            wait_until(refused, "the new value counts")
            self.assertTrue(c.is_alive())

    def test_broken_file_keeps_the_old_one(self):
        """Said in the log; nobody is disturbed."""
        with Broker("max_packet_size 1000") as b:
            c = b.connect("c")
            size = len(b.log())
            self.change(b, "max_packet_size 1000", "max_packet_size lots")
            if not IS_MOSQUITTO:
                wait_until(lambda: "max_packet_size" in b.log()[size:], "complaint in the log")
            self.assertTrue(c.is_alive())
            b.connect("d").is_alive()

    def test_broken_included_file_keeps_the_old_one(self):
        """The same in a directory that the file includes."""
        b = Broker(start=False)
        part = os.path.join(b.dir, "more", "default.conf")
        os.mkdir(os.path.dirname(part))
        with open(part, "w") as f:
            f.write("max_packet_size 1000\n")
        with open(b.conf_path, "a") as f:
            f.write("include_dir %s/more\n" % b.dir)
        with b:
            c = b.start().connect("c")
            for text, name in (("max_packet_size lots\n", "max_packet_size"), ("no_such_key 1\n", "no_such_key"),
                               ("auth_plugin /lib/x.so\n", "auth_plugin")):
                size = len(b.log())
                with open(part, "w") as f:
                    f.write(text)
                b.signal(signal.SIGHUP)
                if not IS_MOSQUITTO:
                    wait_until(lambda: "default.conf:1: " + name in b.log()[size:], "complaint in the log")
                self.assertTrue(c.is_alive())


class TwoBrokers(unittest.TestCase):
    """What another process uses is refused, with words of its own; what a dead one left is taken."""

    def start_beside(self, b, line):
        code, out = run_broken("allow_anonymous true\nuser root\n" + line + "\n")
        self.assertEqual(code, 1, out)
        self.assertTrue(b.connect("alive").is_alive())
        return out

    def test_unix_socket(self):
        with Broker(listeners=["listener 0 {dir}/s"]) as b:
            out = self.start_beside(b, "listener 0 %s" % b.unix)
            self.assertIn("unix socket %s: another process listens on it" % b.unix, out)
            b.kill()
            self.assertTrue(os.path.exists(b.unix))
            b.start()
            self.assertTrue(b.connect("again").is_alive())

    def test_port(self):
        with Broker() as b:
            out = self.start_beside(b, "listener %d 127.0.0.1" % b.addresses[0][1])
            self.assertIn("cannot listen on 127.0.0.1:%d: Address already in use" % b.addresses[0][1], out)

    def test_one_reason(self):
        """A start that fails says why once, and nothing of what came before."""
        with Broker() as b:
            path = os.path.join(b.dir, "no-folder")
            with open(path, "w") as f:
                f.write("x")
            out = self.start_beside(b, "listener 0 %s/t\npersistence true\npersistence_location %s" % (b.dir, path))
            self.assertIn("cannot open the store: %s/lock: Not a directory" % path, out)
            self.assertNotIn("cannot start", out)
            self.assertNotIn("File exists", out)


class Log(unittest.TestCase):
    @deviates("blocks")
    def test_pipe_nobody_reads(self):
        """-v into a full pipe: lines are lost, clients are served."""
        r, w = os.pipe()
        with Broker("log_type all", stderr=w) as b:
            os.close(w)
            begin = time.monotonic()
            for i in range(1500):
                c = b.connect("client-with-a-long-name-%050d" % i)
                if i % 10 == 0:
                    c.publish("a/topic/for/the/log", "x", 1)
                c.close()
            self.assertLess(time.monotonic() - begin, 9 * SLOW)
            self.assertTrue(b.connect("last").is_alive())
            b.stop()
        os.close(r)

    def test_pipe_closed(self):
        """Nobody at the other end any more."""
        r, w = os.pipe()
        with Broker(stderr=w) as b:
            os.close(w)
            os.close(r)
            for i in range(50):
                b.connect("c%d" % i).close()
            self.assertTrue(b.connect("last").is_alive())

    def test_file(self):
        with Broker("log_dest file {dir}/file.log\nlog_type all") as b:
            b.connect("who-is-this").disconnect()
            path = os.path.join(b.dir, "file.log")

            def logged():
                with open(path) as f:
                    return "who-is-this" in f.read()
            wait_until(logged, "the client's name in the file")
            os.rename(path, path + ".1")
            b.signal(signal.SIGHUP)
            wait_until(lambda: os.path.exists(path), "a new file after SIGHUP")


class CommandLine(unittest.TestCase):
    def run_it(self, *args):
        done = subprocess.run([BIN] + list(args), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, timeout=10 * SLOW)
        return done.returncode, done.stdout.decode()

    def test_help(self):
        code, out = self.run_it("-h")
        if not IS_MOSQUITTO:
            self.assertEqual(code, 0)
        for word in ("-c", "-p", "-v", "-d"):
            self.assertIn(word, out)

    @ours("--version")
    def test_version(self):
        code, out = self.run_it("--version")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"\d+\.\d+")

    def test_misuse(self):
        for args in (("--nonsense",), ("-p", "0"), ("-p", "x"), ("-c",)):
            self.assertNotEqual(self.run_it(*args)[0], 0, args)

    def test_port_alone_is_local_and_anonymous(self):
        port = Port()
        process = subprocess.Popen([BIN, "-p", str(port.number)], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            def up():
                try:
                    return Client(("127.0.0.1", port.number)).connect("c").is_alive()
                except OSError:
                    return False
            wait_until(up, "listening")
            with open("/proc/net/tcp") as f:
                local = [line.split()[1] for line in f if line.split()[3] == "0A"]
            self.assertIn("0100007F:%04X" % port.number, local)
            self.assertNotIn("00000000:%04X" % port.number, local)
        finally:
            process.terminate()
            self.assertEqual(process.wait(10 * SLOW), 0)
            port.release()


class Idle(BrokerTest):
    def test_sleeps(self):
        """Nothing to do: no CPU, with clients connected."""
        cs = [self.connect() for _ in range(20)]
        time.sleep(0.3)
        before = self.broker.cpu_s()
        time.sleep(2.0)
        self.assertLess(self.broker.cpu_s() - before, 0.06 * SLOW)
        self.assertTrue(cs[0].is_alive())

    @unittest.skipIf(SLOW > 1, "sanitizers need memory of their own")
    def test_small(self):
        """Resident below 16 MB, virtual below 150 MB."""
        self.assertLess(self.broker.status_kb("VmRSS"), 16 * 1024)
        self.assertLess(self.broker.status_kb("VmSize"), 150 * 1024)


if __name__ == "__main__":
    main()
