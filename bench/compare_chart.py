# SPDX-License-Identifier: Apache-2.0
"""The rows as bars of an SVG: noctule's share of mosquitto's figure, its target, and the floor."""

from xml.sax.saxutils import escape

import compare_report

WIDTH, LEFT, RIGHT = 960, 330, 150  # px
TOP, PITCH, BAR = 84, 27, 15
SCALE_END = 1.2  # shares above are cut off and say so
INK, FAINT, OURS, MISSED, FLOOR = "#222222", "#d0d0d0", "#0b6e8f", "#c2571a", "#8a8a8a"


def x_of(share):
    return LEFT + (WIDTH - LEFT - RIGHT) * min(share, SCALE_END) / SCALE_END


def text(x, y, what, size=13, anchor="start", fill=INK, weight="normal"):
    return '<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s" fill="%s" font-weight="%s">%s</text>' % (
        x, y, size, anchor, fill, weight, escape(what))


def rect(x, y, w, h, fill, more=""):
    return '<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"%s/>' % (x, y, w, h, fill, more)


def line(x, y1, y2, stroke, width=1, more=""):
    return '<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s" stroke-width="%g"%s/>' % (
        x, x, y1, y2, stroke, width, more)


def grid(bottom):
    out = []
    for percent in range(0, 121, 20):
        x = x_of(percent / 100)
        strong = percent == 100
        out.append(line(x, TOP - 6, bottom, INK if strong else FAINT))
        out.append(text(x, TOP - 12, "%d %%" % percent, 11, "middle"))
    out.append(text(x_of(1), TOP - 26, "mosquitto", 11, "middle"))
    out.append(text(WIDTH - 12, TOP - 12, "noctule : mosquitto", 11, "end"))
    return out


def bar(row, y):
    unit = row["unit"]
    out = [text(LEFT - 10, y + 12, row["row"], anchor="end")]
    if row["failed"]:
        return out + [text(LEFT + 4, y + 12, "failed", fill=MISSED)]
    share = row["share"]
    out.append(rect(LEFT, y, x_of(share) - LEFT, BAR, OURS if row["pass"] else MISSED))
    out.append(line(x_of(row["target"]), y - 4, y + BAR + 4, INK, 2))
    if row["floor"] is not None:
        out.append(line(x_of(row["floor"] / row["mosquitto"]), y - 2, y + BAR + 2, FLOOR, 3))
    label = "%.1f %%" % (100 * share)
    ends = [share, row["target"]] + ([row["floor"] / row["mosquitto"]] if row["floor"] is not None else [])
    out.append(text(x_of(max(ends)) + 7, y + 12, label, 12, weight="bold"))
    out.append(text(WIDTH - 12, y + 12, "%s : %s" % (compare_report.in_unit(row["noctule"], unit),
                                                     compare_report.in_unit(row["mosquitto"], unit)), 11, "end"))
    return out


def legend(y):
    out = []
    x = LEFT
    for colour, what, width in ((OURS, "noctule, within its target", 185), (MISSED, "above it", 80)):
        out += [rect(x, y - 10, 14, 11, colour), text(x + 19, y, what, 12)]
        x += width
    for colour, what, width in ((INK, "target", 60), (FLOOR, "relay without logic", 130)):
        out += [line(x + 4, y - 12, y + 3, colour, 3), text(x + 12, y, what, 12)]
        x += width + 10
    return out


def wrapped(about):
    return ["%(noctule)s beside %(mosquitto)s, %(date)s: median of %(rounds)d interleaved rounds of %(seconds)g s"
            % about,
            "%(cpu)s, %(cpus)d CPUs, Linux %(kernel)s; %(settings)s" % about,
            "offline durable sessions: noctule acknowledges what is on disk, mosquitto what is in memory "
            "(persistence true for both, autosave_interval as it comes)"]


def draw(about, rows):
    bottom = TOP + PITCH * len(rows)
    height = bottom + 94
    body = [rect(0, 0, WIDTH, height, "#ffffff"),
            text(14, 26, "What a message costs the broker, as a share of mosquitto's cost", 18, weight="bold"),
            text(14, 46, "CPU time per delivered message (per connection, per delivery), or memory; shorter is better",
                 12)]
    body += grid(bottom)
    for i, row in enumerate(rows):
        body += bar(row, TOP + PITCH * i + (PITCH - BAR) / 2)
    body += legend(bottom + 22)
    for i, words in enumerate(wrapped(about)):
        body.append(text(14, bottom + 48 + 16 * i, words, 11))
    return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" '
            'font-family="DejaVu Sans, Verdana, sans-serif">\n%s\n</svg>\n'
            % (WIDTH, height, WIDTH, height, "\n".join(body)))
