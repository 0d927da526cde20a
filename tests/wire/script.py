# SPDX-License-Identifier: Apache-2.0
"""The language of the .txt files: bytes, patterns, macros, steps. README.md describes it.

Nothing here opens a socket: a file is read into tests, a step's expression into nodes, nodes become bytes
(encode) or are compared with bytes (match).
"""

import re

HEX = "0123456789abcdefABCDEF"


class ScriptError(Exception):
    """The file is wrong, not the broker."""


# --- expressions: text -> nodes -------------------------------------------------------------------
#
# Nodes are tuples: ("lit", bytes), ("any",) one byte, ("star",) any bytes, ("range", low, high, width),
# ("cap", name) two bytes, ("field", name) a string with its length, ("var", nodes) behind its variable byte
# length, ("u16", nodes) behind its two-byte length.

class Parser:
    def __init__(self, text, macros, unique, depth=0):
        self.s, self.at = text, 0
        self.macros, self.unique, self.depth = macros, unique, depth
        if depth > 20:
            raise ScriptError("macros nested too deeply: " + text)

    def fail(self, why):
        raise ScriptError("%s at column %d of: %s" % (why, self.at + 1, self.s))

    def parse(self):
        return self.until("")

    def until(self, end):
        nodes = []
        while True:
            while self.at < len(self.s) and self.s[self.at] in " \t,":
                self.at += 1
            if self.at >= len(self.s):
                if end:
                    self.fail("missing " + end)
                return merged(nodes)
            c = self.s[self.at]
            if end and c == end:
                self.at += 1
                return merged(nodes)
            nodes += self.item(c)

    def item(self, c):
        s, at = self.s, self.at
        if c in "[{":
            self.at += 1
            return [("var", self.until("]" if c == "[" else "}"))]
        if c == "<":
            self.at += 1
            return [("u16", self.until(">"))]
        if c == '"' or c == "'":
            raw = self.quoted(c)
            return [("lit", (len(raw).to_bytes(2, "big") if c == '"' else b"") + raw)]
        if c == "*":
            self.at += 1
            return [("star",)]
        if s.startswith("??", at):
            self.at += 2
            return [("any",)]
        m = re.compile(r"@(@?)([a-z][a-z0-9]*)").match(s, at)
        if m:
            self.at = m.end()
            return [("field" if m.group(1) else "cap", m.group(2))]
        m = re.compile(r"(\d+)x\(").match(s, at)
        if m:
            self.at = m.end()
            return self.until(")") * int(m.group(1))
        m = re.compile(r"([A-Z][A-Za-z0-9_]*)\(").match(s, at)
        if m:
            self.at = m.end()
            return self.macro(m.group(1), self.arguments())
        m = re.compile(r"([0-9A-Fa-f]+)\.\.([0-9A-Fa-f]+)").match(s, at)
        if m:
            self.at = m.end()
            low, high = m.groups()
            if len(low) != len(high) or len(low) % 2:
                self.fail("both ends of a range have the same, even number of digits")
            return [("range", int(low, 16), int(high, 16), len(low) // 2)]
        m = re.compile(r"[0-9A-Fa-f]+").match(s, at)
        if m:
            if len(m.group()) % 2:
                self.fail("odd number of hexadecimal digits")
            self.at = m.end()
            return [("lit", bytes.fromhex(m.group()))]
        return self.fail("not understood: " + s[at:at + 20])

    def quoted(self, quote):
        out = bytearray()
        self.at += 1
        while self.at < len(self.s) and self.s[self.at] != quote:
            c = self.s[self.at]
            if c == "\\":
                out += bytes([int(self.s[self.at + 2:self.at + 4], 16)])  # \xNN
                self.at += 4
            else:
                out += (self.unique if c == "%" else c).encode("utf-8")
                self.at += 1
        if self.at >= len(self.s):
            self.fail("string without end")
        self.at += 1
        return bytes(out)

    def arguments(self):
        """The text of each argument, up to the closing parenthesis."""
        out, start, depth, quote = [], self.at, 0, None
        while self.at < len(self.s):
            c = self.s[self.at]
            if quote:
                quote = None if c == quote else quote
            elif c in "\"'":
                quote = c
            elif c in "([{<":
                depth += 1
            elif c in ")]}>":
                if c == ")" and depth == 0:
                    out.append(self.s[start:self.at].strip())
                    self.at += 1
                    return out if out != [""] else []
                depth -= 1
            elif c == "," and depth == 0:
                out.append(self.s[start:self.at].strip())
                start = self.at + 1
            self.at += 1
        return self.fail("missing )")

    def macro(self, name, args):
        if name not in self.macros:
            self.fail("no macro " + name)
        count, body = self.macros[name]
        if count != len(args):
            self.fail("%s takes %d argument(s)" % (name, count))
        return Parser(fill(body, args), self.macros, self.unique, self.depth + 1).parse()


def merged(nodes):
    """The same with neighbouring literals as one."""
    out, run = [], []
    for node in nodes + [None]:
        if node is not None and node[0] == "lit":
            run.append(node[1])
            continue
        if run:
            out.append(("lit", b"".join(run)))
            run = []
        if node is not None:
            out.append(node)
    return out


def fill(body, args):
    return re.sub(r"\$(\d)", lambda m: args[int(m.group(1)) - 1], body)


def varint(n):
    out = bytearray()
    while True:
        n, digit = divmod(n, 128)
        out.append(digit | (0x80 if n else 0))
        if not n:
            return bytes(out)


def encode(nodes, env):
    out = b""
    for node in nodes:
        kind = node[0]
        if kind == "lit":
            out += node[1]
        elif kind in ("cap", "field"):
            if node[1] not in env:
                raise ScriptError("nothing was captured as @" + node[1])
            out += env[node[1]][1]
        elif kind == "var":
            inner = encode(node[1], env)
            out += varint(len(inner)) + inner
        elif kind == "u16":
            inner = encode(node[1], env)
            out += len(inner).to_bytes(2, "big") + inner
        else:
            raise ScriptError("a wildcard cannot be sent")
    return out


def read_varint(data, at):
    n = shift = 0
    for i in range(4):
        if at >= len(data):
            return None, at
        b = data[at]
        at += 1
        n |= (b & 0x7F) << shift
        shift += 7
        if not b & 0x80:
            return n, at
    return None, at


def captured(env, name, value):
    """env with the capture, or None: differs from what it was, is 0, or another of this connection is equal."""
    if name in env:
        return env if env[name][1] == value else None
    new = (env.get("conn"), value)
    if new in env.values() or not any(value):
        return None
    return {**env, name: new}


def match(nodes, data, env, at=0, k=0):
    """
    Every way in which nodes[k:] fit the whole of data[at:]: yields the captures. env: name -> (connection,
    bytes), and under "conn" the connection that received the data.
    """
    if k == len(nodes):
        if at == len(data):
            yield env
        return
    node = nodes[k]
    kind = node[0]
    if kind == "lit":
        if data.startswith(node[1], at):
            yield from match(nodes, data, env, at + len(node[1]), k + 1)
    elif kind == "any":
        if at < len(data):
            yield from match(nodes, data, env, at + 1, k + 1)
    elif kind == "star":
        for end in range(len(data), at - 1, -1):
            yield from match(nodes, data, env, end, k + 1)
    elif kind == "range":
        low, high, width = node[1:]
        if at + width <= len(data) and low <= int.from_bytes(data[at:at + width], "big") <= high:
            yield from match(nodes, data, env, at + width, k + 1)
    else:
        yield from match_sized(nodes, data, env, at, k)


def match_sized(nodes, data, env, at, k):
    kind, inner = nodes[k]
    if kind == "var":
        n, start = read_varint(data, at)
        if n is None:
            return
    elif kind == "cap":
        start, n = at, 2
    else:
        if at + 2 > len(data):
            return
        start, n = at + 2, int.from_bytes(data[at:at + 2], "big")
    end = start + n
    if end > len(data):
        return
    if kind in ("cap", "field"):
        found = captured(env, inner, bytes(data[at:end]))
        if found is not None:
            yield from match(nodes, data, found, end, k + 1)
        return
    for found in match(inner, data[start:end], env):
        yield from match(nodes, data, found, end, k + 1)


def match_set(patterns, packets, env):
    """Captures with which the packets fit the patterns in some order, or None."""
    if not patterns:
        return env
    for i, packet in enumerate(packets):
        for found in match(patterns[0], packet, env):
            rest = match_set(patterns[1:], packets[:i] + packets[i + 1:], found)
            if rest is not None:
                return rest
    return None


# --- files ----------------------------------------------------------------------------------------

class Step:
    def __init__(self, line, conn, verb, text):
        self.line, self.conn, self.verb, self.text = line, conn, verb, text

    def __repr__(self):
        return ("%s %s %s" % (self.conn or "", self.verb, self.text)).strip()


class Test:
    def __init__(self, path, line, ids, name, config):
        self.path, self.line, self.ids, self.name, self.config = path, line, ids, name, config
        self.steps = []
        self.unique = None

    def __repr__(self):
        return "%s:%d %s (%s)" % (self.path, self.line, self.name, " ".join(self.ids))


class Config:
    def __init__(self, name, serial, anonymous, general, listener):
        self.name, self.serial, self.anonymous = name, serial, anonymous
        self.general, self.listener = general, listener


ID = r"(?:MQTT-)?(\d+(?:\.\d+){1,2}-\d+)"
HEAD = re.compile(r"^((?:%s[\s,]*)+):\s*([a-z0-9][a-z0-9-]*)\s*(?:@([a-z0-9_]+))?\s*$" % ID)
STEP = re.compile(r"^\s+([a-z][0-9]?)\s+(send|drip|recv|any|quiet|closed|close|reset|[a-z][a-z0-9]+\()\s*(.*)$")
VERBS_ALONE = ("closed", "close", "reset")


def strip_comment(line):
    """A # outside quotes begins a comment."""
    quote = None
    for i, c in enumerate(line):
        if quote:
            quote = None if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c == "#":
            return line[:i].rstrip()
    return line.rstrip()


class Script:
    """Macros, configurations and tests of some files."""

    def __init__(self):
        self.macros, self.actions = {}, {}
        self.configs = {"plain": Config("plain", False, True, [], [])}
        self.tests = []

    def load(self, path):
        with open(path, encoding="utf-8") as f:
            lines = f.read().split("\n")
        test = None
        for number, raw in enumerate(lines, 1):
            line = strip_comment(raw)
            try:
                if not line.strip():
                    continue
                if line[0] in " \t":
                    if test is None:
                        raise ScriptError("a step outside a test")
                    test.steps += self.steps(number, line)
                else:
                    test = self.head(path, number, line)
            except ScriptError as e:
                raise ScriptError("%s:%d: %s" % (path, number, e))
        return self

    def head(self, path, number, line):
        words = line.split(None, 1)
        if words[0] in ("def", "do", "config"):
            getattr(self, words[0] + "_line")(words[1])
            return None
        m = HEAD.match(line)
        if not m:
            raise ScriptError("not a test, def, do or config: " + line)
        ids = re.findall(ID, m.group(1))
        test = Test(path, number, ids, m.group(3), m.group(4) or "plain")
        if test.config not in self.configs:
            raise ScriptError("no configuration " + test.config)
        if any(t.path == path and t.name == test.name for t in self.tests):
            raise ScriptError("two tests are called " + test.name)
        test.unique = "t%dz" % len(self.tests)
        self.tests.append(test)
        return test

    def def_line(self, rest):
        """def NAME(n) expression with $1 to $n"""
        m = re.match(r"([A-Z][A-Za-z0-9_]*)\((\d)\)\s+(.+)$", rest)
        if not m:
            raise ScriptError("def NAME(count) bytes")
        self.macros[m.group(1)] = (int(m.group(2)), m.group(3))

    def do_line(self, rest):
        """do name(n) verb expression ;; verb expression"""
        m = re.match(r"([a-z][a-z0-9]+)\((\d)\)\s+(.+)$", rest)
        if not m:
            raise ScriptError("do name(count) step ;; step")
        self.actions[m.group(1)] = (int(m.group(2)), [p.strip() for p in m.group(3).split(";;")])

    def config_line(self, rest):
        """config NAME [serial] [no-anonymous]: key value; key value | listener key value"""
        head, _, body = rest.partition(":")
        words = head.split()
        general, _, listener = body.partition("|")

        def cut(text):
            return [p.strip() for p in text.split(";") if p.strip()]
        self.configs[words[0]] = Config(words[0], "serial" in words, "no-anonymous" not in words,
                                        cut(general), cut(listener))

    def steps(self, number, line):
        m = re.match(r"^\s+wait\s+([0-9.]+)$", line)
        if m:
            return [Step(number, None, "wait", m.group(1))]
        m = STEP.match(line)
        if not m:
            raise ScriptError("not a step: " + line.strip())
        conn, verb, text = m.groups()
        if verb.endswith("("):
            return self.action(number, conn, verb[:-1], text)
        if verb in VERBS_ALONE and text:
            raise ScriptError("nothing follows " + verb)
        return [Step(number, conn, verb, text)]

    def action(self, number, conn, name, text):
        if name not in self.actions:
            raise ScriptError("no action " + name)
        p = Parser(text, self.macros, "")
        args = p.arguments()
        if text[p.at:].strip():
            raise ScriptError("something follows " + name)
        count, parts = self.actions[name]
        if len(args) != count:
            raise ScriptError("%s takes %d argument(s)" % (name, count))
        out = []
        for part in parts:
            out += self.steps(number, "  %s %s" % (conn, fill(part, args)))
        return out

    def nodes(self, text, unique):
        return Parser(text, self.macros, unique).parse()
