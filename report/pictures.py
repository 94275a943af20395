"""The pictures of a sweep. Each answers the question that is its title; its caption names unit and source."""

import math
import warnings
from dataclasses import dataclass

import altair as alt

from cells import OUTCOMES, PARTS, SHAPES, STRATEGIES
from look import CONFIG, GRID, INK, OUTCOMES as OUTCOME_COLOURS, PAPER, PARTS as PART_COLOURS, SOFT, STRATEGY

WIDTH, HEIGHT, ROW = 290, 300, 15
LABEL_GAP = 14  # pixels between two names at the ends of lines
NAMES = 0.31    # share of a panel's width that the names at the ends of lines take
MS = "datum.value >= 1000 ? datum.value / 1000 + ' s' : datum.value + ' ms'"
HOLLOW = " A hollow mark is a cell that the machine spoiled; pointing at it says how."


@dataclass
class Picture:
    name: str
    title: str
    caption: str
    chart: alt.TopLevelMixin
    points: int  # how many figures it draws


def all_of(sweep):
    """Every picture that the sweep has figures for."""
    drawn = [lock_wait(sweep), throughput(sweep), latency(sweep), overtaking(sweep), processors(sweep), answers(sweep)]
    return [picture for picture in drawn if picture.points]


def replicas(sweep):
    """The two that matter most, for the README: one hot coupon alone."""
    wait, issued = (hot(sweep.points(column)) for column in ("lock wait p99 ms", "issued /s"))
    offered = next((row["offered /s"] for row in sweep.rows if row["shape"] == "hot"), None)
    panels = [
        panel(sweep, 0, wait, Scale.log(wait), "lock wait, p99", None),
        panel(sweep, 1, issued, Scale.linear(issued), "coupons issued a second", None, offered_at(sweep, "hot", offered)),
    ]
    caption = "One hot coupon, by strategy, against the number of replicas: lock wait p99 at the replicas (logarithmic), and coupons issued a second."
    return Picture("replicas", "One hot coupon: what do more replicas cost?", caption + HOLLOW, joined(panels, spacing=36), len(wait) + len(issued))


def hot(points):
    return [point for point in points if point["shape"] == "hot"]


def lock_wait(sweep):
    points = sweep.points("lock wait p99 ms")
    caption = ("Lock wait p99 in ms, logarithmic: from a request's entry to its exclusive right, from the histogram "
               "<code>coupon_lock_wait_seconds</code> of all replicas over the measured window. <code>unlocked</code> and "
               "<code>optimistic</code> wait for no right.")
    return by_shape(sweep, "lock-wait", "What does the lock cost as replicas are added?", caption, points, Scale.log, "lock wait p99")


def throughput(sweep):
    points = sweep.points("issued /s")
    caption = ("Coupons issued a second: counted by the replicas over the measured window; in the rush from the wallet's rows, while there was "
               "stock. Dashed: the offered rate; a strategy that reaches it might do more.")
    return by_shape(sweep, "throughput", "How many coupons a second?", caption, points, Scale.linear, "coupons a second", offered=True)


def latency(sweep):
    points = sweep.points("latency p99 ms")
    caption = ("Latency p99 in ms, logarithmic: from a request's sending to its answer, refusals too, as the loader saw it. In the "
               "open model it counts from when a request was due, so that a slow service cannot hide behind what it kept from being asked.")
    return by_shape(sweep, "latency", "How long until the answer?", caption, points, Scale.log, "latency p99")


@dataclass
class Scale:
    """A vertical axis: where values stand in its height, so that names beside lines can be moved apart."""
    kind: str
    low: float
    high: float
    ticks: list

    @classmethod
    def log(cls, points):
        values = [value for point in points for value in (point["low"], point["high"]) if value > 0] or [1, 10]
        span = math.log10(max(values) / min(values))
        digits = (1, 2, 5) if span < 1.5 else (1, 3) if span < 2.6 else (1,)
        ticks = [round(digit * 10.0**power, 9) for power in range(-3, 7) for digit in digits]
        low, high = min(values) * 0.7, max(values) * 1.3
        return cls("log", low, high, [tick for tick in ticks if low <= tick <= high])

    @classmethod
    def linear(cls, points):
        high = max([point["high"] for point in points], default=1) or 1
        step = next(size * 10**power for power in range(-2, 9) for size in (1, 2, 5) if high / (size * 10**power) <= 6)
        return cls("linear", 0, high * 1.08, [step * number for number in range(int(high * 1.08 / step) + 1)])

    def height(self, value):
        place = math.log if self.kind == "log" else float
        low, high = place(self.low), place(self.high)
        return (place(max(value, self.low)) - low) / (high - low) * HEIGHT

    def value(self, height):
        share = height / HEIGHT
        return self.low * (self.high / self.low) ** share if self.kind == "log" else self.low + (self.high - self.low) * share


def by_shape(sweep, name, title, caption, points, scale, label, offered=False):
    """A panel for each shape of load, all with one vertical axis."""
    scale = scale(points)
    panels = []
    for shape in sweep.shapes:
        here = [point for point in points if point["shape"] == shape]
        rate = next((row["offered /s"] for row in sweep.rows if row["shape"] == shape), None) if offered else None
        panels.append(panel(sweep, len(panels), here, scale, SHAPES[shape], None if panels else label, offered_at(sweep, shape, rate), first=not panels))
    return Picture(name, title, caption + HOLLOW + repeats(points), joined(panels), len(points))


def repeats(points):
    runs = max((point["runs"] for point in points), default=1)
    return f" Marks are medians of {runs} runs, bars the least and the most." if runs > 1 else " Each cell ran once: a small difference is none."


def joined(panels, spacing=14):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Automatically deduplicated")  # Pointing is meant for all panels together.
        return alt.hconcat(*panels, spacing=spacing, config=CONFIG)


def offered_at(sweep, shape, rate):
    return [{"rate": rate, "replicas": sweep.replicas[0], "text": "offered"}] if rate else []


def panel(sweep, place, points, scale, title, label, offered=(), first=True):
    """Lines by strategy, each with its name at its end."""
    lows, highs = sweep.replicas[0], max(sweep.replicas[-1], sweep.replicas[0] * 2)
    left = (highs / lows) ** 0.06
    x = alt.X("replicas:Q", title="replicas", axis=alt.Axis(values=sweep.replicas, format="d", grid=False, tickSize=4),
              scale=alt.Scale(type="log", base=2, nice=False, domain=[lows / left, lows * (highs / lows) ** (1 / (1 - NAMES))]))
    axis = alt.Axis(values=scale.ticks, labels=first, ticks=False, labelExpr=MS if scale.kind == "log" else "format(datum.value, ',')")
    y = alt.Y("value:Q", title=label, axis=axis, scale=alt.Scale(type=scale.kind, nice=False, zero=False, domain=[scale.low, scale.high]))
    colour = by_strategy(sweep, 0)
    near = alt.selection_point(name="near", fields=["strategy"], on="pointerover", clear="pointerout")
    zoom = alt.selection_interval(name=f"zoom{place}", bind="scales", zoom="wheel![event.ctrlKey || event.metaKey]")
    dim = alt.condition(near, alt.value(1), alt.value(0.2))
    base = alt.Chart(alt.Data(values=points)).encode(x=x, y=y, color=colour, opacity=dim)
    names = alt.Chart(alt.Data(values=named_ends(points, scale)))
    font = {"align": "left", "dx": 11, "fontSize": 12, "fontWeight": 600, "clip": True}
    layers = [
        base.mark_line(clip=True, interpolate="linear"),
        base.transform_filter("datum.low < datum.high").mark_rule(clip=True, strokeWidth=1.5).encode(y=y, y2="high:Q").transform_calculate(value="datum.low"),
        marks(base, sweep).add_params(near, zoom),
        names.mark_text(**font, color=PAPER, stroke=PAPER, strokeWidth=5, strokeJoin="round").encode(x=x, y=y, text="strategy:N"),
        names.mark_text(**font).encode(x=x, y=y, color=colour, opacity=dim, text="strategy:N"),
    ]
    if offered:
        rule = alt.Chart(alt.Data(values=list(offered)))
        layers.insert(0, rule.mark_rule(strokeDash=[5, 4], strokeWidth=1.5, color=SOFT, clip=True).encode(y="rate:Q"))
        layers.append(rule.mark_text(align="left", dx=-4, dy=-13, color=SOFT, fontSize=11).encode(x=x, y="rate:Q", text="text:N"))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=title)


def by_strategy(sweep, part):
    """The scale of colours (0) or of marks (1)."""
    scale = alt.Scale(domain=sweep.strategies, range=[STRATEGY[name][part] for name in sweep.strategies])
    return (alt.Color, alt.Shape)[part]("strategy:N", scale=scale, legend=None)


def marks(base, sweep, clip=True):
    hollow = alt.condition("datum.spoiled", alt.value(PAPER), by_strategy(sweep, 0))
    tooltip = [alt.Tooltip("strategy:N"), alt.Tooltip("replicas:Q"), alt.Tooltip("value:Q", title="median", format=",.4~g"),
               alt.Tooltip("low:Q", title="least", format=",.4~g"), alt.Tooltip("high:Q", title="most", format=",.4~g"),
               alt.Tooltip("runs:Q"), alt.Tooltip("why:N", title="spoiled")]
    return base.mark_point(size=62, strokeWidth=1.8, opacity=1, clip=clip).encode(shape=by_strategy(sweep, 1), fill=hollow, tooltip=tooltip)


def named_ends(points, scale):
    """The last point of each strategy with its name, moved apart from the others' names by as little as will do."""
    ends = {}
    for point in sorted(points, key=lambda point: point["replicas"]):
        ends[point["strategy"]] = point
    ends = sorted(ends.values(), key=lambda point: point["value"])
    heights = [scale.height(end["value"]) for end in ends]
    for _ in range(200):
        for i in range(len(heights) - 1):
            overlap = LABEL_GAP - (heights[i + 1] - heights[i])
            if overlap > 0:
                heights[i], heights[i + 1] = heights[i] - overlap / 2, heights[i + 1] + overlap / 2
        heights = [min(max(height, LABEL_GAP / 2), HEIGHT - LABEL_GAP / 2) for height in heights]
    return [end | {"value": scale.value(height)} for end, height in zip(ends, heights)]


def rows_of(sweep, chart, first=True):
    """A row a number of replicas, in groups by strategy."""
    header = alt.Header(labelAngle=0, labelAlign="left", labelPadding=4, labels=first, title=None)
    return chart.facet(row=alt.Row("strategy:N", sort=STRATEGIES, header=header), spacing=7)


def replicas_axis(first=True):
    axis = alt.Axis(labels=first, ticks=False, grid=False, labelExpr="'×' + datum.label")
    return alt.Y("replicas:O", title=None, axis=axis, scale=alt.Scale(paddingInner=0.2))


def bars(sweep, pieces, names, colours, label, domain, axis, label_format):
    """Bars that add up, a panel for each shape of load."""
    panels = []
    scale = alt.Scale(domain=names, range=colours)
    for shape in sweep.shapes:
        here = alt.Data(values=[piece for piece in pieces if piece["shape"] == shape])
        tooltip = [alt.Tooltip("strategy:N"), alt.Tooltip("replicas:O"), alt.Tooltip("piece:N", title="what"),
                   alt.Tooltip("value:Q", title=label, format=label_format), alt.Tooltip("why:N", title="spoiled")]
        chart = alt.Chart(here).mark_bar(stroke=PAPER, strokeWidth=0.5).encode(
            x=alt.X("value:Q", title=label, stack="zero", scale=alt.Scale(domain=domain, nice=False, clamp=True), axis=axis),
            y=replicas_axis(not panels), order="place:Q", tooltip=tooltip,
            color=alt.Color("piece:N", scale=scale, legend=alt.Legend(title=None, orient="bottom", columns=9)),
        ).properties(width=WIDTH - 25, height=alt.Step(ROW))
        panels.append(rows_of(sweep, chart, first=not panels).properties(title=SHAPES[shape]))
    return joined(panels, spacing=18).resolve_scale(color="shared")


def processors(sweep):
    pieces = sweep.pieces(PARTS)
    used = [name for name in PARTS.values() if any(piece["piece"] == name and piece["value"] > 0 for piece in pieces)]
    colours = [colour for name, colour in zip(PARTS.values(), PART_COLOURS) if name in used]
    machine = max((row["processors"] or 0 for row in sweep.rows), default=0)
    end = machine or math.ceil(max((sum(row.get(part) or 0 for part in PARTS) for row in sweep.rows), default=1))
    axis = alt.Axis(values=[end * share / 4 for share in range(5)], format="~g", ticks=False)
    caption = ("Processors in use on average over the measured window, from <code>/proc</code>; the axis ends where the machine does. Watching: "
               "Prometheus and the laboratory. Others: what belongs to no sweep, and the kernel.")
    chart = bars(sweep, pieces, used, colours, "processors", [0, end], axis, ".2f")
    return Picture("processors", "Where does the processor time go?", caption + repeats(pieces), chart, len(pieces))


def answers(sweep):
    columns = {name: name for name in OUTCOMES} | {"unsent": "not sent"}
    pieces = sweep.pieces(columns)
    sums = {}
    for piece in pieces:
        place = piece["shape"], piece["strategy"], piece["replicas"]
        sums[place] = sums.get(place, 0) + piece["value"]
    shares = [piece | {"value": piece["value"] / (sums[piece["shape"], piece["strategy"], piece["replicas"]] or 1)} for piece in pieces]
    used = [name for name in columns.values() if any(piece["piece"] == name and piece["value"] > 0 for piece in shares)]
    missing = [name for name in OUTCOMES if not any(name in row for row in sweep.rows)]
    caption = ("Shares of the requests by what the loader was answered. Not sent: the offered rate was not reached, because every connection "
               "still waited.")
    caption += f" Not in these cells' table: {', '.join(missing)}." if missing else ""
    axis = alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".0%", ticks=False)
    chart = bars(sweep, shares, used, [OUTCOME_COLOURS[name] for name in used], "share of the requests", [0, 1], axis, ".1%")
    return Picture("answers", "What did the answers say?", caption, chart, len(shares))


def overtaking(sweep):
    points = sweep.jumps()
    most = max((point["most"] for point in points), default=10)
    ticks = [0] + [digit * 10**power for power in range(5) for digit in (1, 3) if digit * 10**power <= most * 1.6]
    axis = alt.Axis(values=ticks, ticks=False, labelExpr=MS, labelFlush=False, grid=True)
    scale = alt.Scale(type="symlog", constant=1, domain=[0, most * 1.6], nice=False)
    x = alt.X("p50:Q", title="queue-jump (arrival stamps are whole milliseconds)", axis=axis, scale=scale)
    most_x = alt.X("most:Q", axis=axis, scale=scale)
    base = alt.Chart().encode(y=replicas_axis(), color=by_strategy(sweep, 0))
    value = marks(base, sweep, clip=False).encode(x=x, tooltip=[
        alt.Tooltip("strategy:N"), alt.Tooltip("replicas:O"), alt.Tooltip("p50:Q", title="p50, ms"), alt.Tooltip("value:Q", title="p95, ms"),
        alt.Tooltip("most:Q", title="most, ms"), alt.Tooltip("contests:Q"), alt.Tooltip("why:N", title="spoiled")])
    layers = alt.layer(
        base.mark_rule(strokeWidth=1.2, opacity=0.7).encode(x=x, x2="most:Q"),
        base.mark_tick(thickness=1.5, size=8, opacity=0.8).encode(x=most_x),
        base.mark_rule(strokeWidth=5, strokeCap="round").encode(x=x, x2="value:Q"),
        value,
        base.mark_text(align="left", dx=8, fontSize=10.5).encode(x=most_x, text=alt.Text("value:Q", format=".0f")),
        data=alt.Data(values=points),
    ).properties(width=620, height=alt.Step(ROW + 2))
    missing = [name for name in sweep.strategies if not any(point["strategy"] == name for point in points)]
    caption = ("How much later than the first who was refused the last winner had reached nginx, in ms, from the replicas' audits of tiny coupons that "
               "sold out. Mark: p50; thick: to p95, which is also the number; thin: to the most. These contests are the same after every shape of load, so the "
               f"shapes are repeats here: medians of up to {max((point['runs'] for point in points), default=0)} cells.")
    caption += f" Too few of their coupons sold out: {', '.join(missing)}." if missing else ""
    chart = rows_of(sweep, layers).properties(config=CONFIG)
    return Picture("overtaking", "Who gets it: how far can a later arrival overtake?", caption + HOLLOW, chart, len(points))
