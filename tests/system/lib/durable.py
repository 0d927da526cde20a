# SPDX-License-Identifier: Apache-2.0
"""A broker with a store on disk that is stopped or killed and started again over the same directory."""

import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import broker  # noqa: E402

_SLOW_SYNC = os.path.join(broker.ROOT, "tests", "crash", "slow_sync.c")


class DurableBroker(broker.Broker):
    """
    shards: a number that start() may be given anew. sync_us: every sync of the disk takes so much longer.

        with DurableBroker() as b:
            ...
            b.again("kill")    # or "stop"
    """

    def __init__(self, config="", shards=3, sync_us=0, location=None, **options):
        self.sync_us = sync_us
        self._tools = None
        self.location = location
        super().__init__("shards %d\nacceptors 1\npersistence true\npersistence_location %s\n%s" % (
            shards, location or "{dir}/store", config), **options)

    @property
    def store(self):
        return self.location or os.path.join(self.dir, "store")

    def _slow_sync(self):
        if self._tools is None:
            self._tools = tempfile.mkdtemp(prefix="noctule-test-")
            subprocess.run(["cc", "-D_GNU_SOURCE", "-O1", "-fPIC", "-shared", "-o",
                            os.path.join(self._tools, "slow_sync.so"), _SLOW_SYNC, "-ldl"], check=True)
        return os.path.join(self._tools, "slow_sync.so")

    def start(self, shards=None, sync_us=None):
        if shards is not None:
            with open(self.conf_path) as f:
                lines = f.read().split("\n")
            with open(self.conf_path, "w") as f:
                f.write("\n".join("shards %d" % shards if line.startswith("shards ") else line
                                  for line in lines))
        if sync_us is not None:
            self.sync_us = sync_us
        if self.sync_us == 0:
            return super().start()
        ours = {"LD_PRELOAD": self._slow_sync(), "NOCTULE_SLOW_SYNC_US": str(self.sync_us),
                # the sanitizer's library is linked first, ours is loaded before it and takes no memory
                "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "detect_leaks=1") +
                ":verify_asan_link_order=0"}
        old = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            return super().start()
        finally:
            for name, value in old.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def end(self, how):
        if how == "stop":
            self.stop()
        else:
            self.kill()
            self.judge()

    def again(self, how, **options):
        """how: "stop" or "kill"."""
        self.end(how)
        return self.start(**options)

    def files(self):
        """(path, size, change time) of what the store consists of; LMDB's lock tables are no data."""
        found = []
        for folder, _, names in os.walk(self.store):
            for name in names:
                if name == "data.mdb":
                    path = os.path.join(folder, name)
                    s = os.stat(path)
                    found.append((path, s.st_size, s.st_mtime_ns))
        return sorted(found)

    def close(self):
        try:
            super().close()
        finally:
            if self._tools is not None:
                shutil.rmtree(self._tools, ignore_errors=True)
