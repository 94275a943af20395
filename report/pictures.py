"""The pictures of a sweep. Each answers the question that is its title; its caption names unit and source."""

import math
import warnings
from collections import defaultdict
from dataclasses import dataclass

import altair as alt

from cells import STRATEGIES
from look import CONFIG, DASHES, INK, PAPER, SOFT, STRATEGY

WIDTH, HEIGHT, ROW = 190, 170, 15
WIDE, HIGH = 330, 230   # of a panel of the README's picture
LABEL_GAP = 14  # pixels between two names at the ends of lines
NAMES = 0.42    # share of a panel's width that the names at the ends of lines take
SUMMED_UP = ["pessimistic", "redlock", "batched"]
MS = "datum.value >= 1000 ? datum.value / 1000 + ' s' : datum.value + ' ms'"
COUNT = "format(datum.value, ',')"
COLUMNS = " A column says where the orders for a code go, and how long a round trip between the replicas and their servers takes longer."
HOLLOW = " A hollow mark is a cell that the machine spoiled; pointing at it says how. A missing one failed."


@dataclass
class Picture:
    name: str
    title: str
    caption: str
    chart: alt.TopLevelMixin
    points: int  # how many figures it draws


def all_of(sweep):
    """Every picture that the sweep has figures for."""
    drawn = [lock_wait(sweep), throughput(sweep), latency(sweep), overtaking(sweep)]
    return [picture for picture in drawn if picture.points]


def lock_wait(sweep):
    caption = ("Lock wait p99, logarithmic: from a request's entry to its exclusive right, from the histogram "
               "<code>coupon_lock_wait_seconds</code> of all replicas over the measured window. <code>unlocked</code> and "
               "<code>optimistic</code> wait for no right." + LATE)
    return table_of(sweep, "lock-wait", "What does the lock cost as replicas are added?", caption, "lock wait p99 ms", MS)


def throughput(sweep):
    caption = "Coupons issued a second, logarithmic, counted by the replicas over the measured window."
    return table_of(sweep, "throughput", "How many coupons a second?", caption, "issued /s", COUNT)


def latency(sweep):
    caption = ("Latency p99, logarithmic: from a request's sending to its answer, refusals too, as the loader saw it. In the "
               "open model it counts from when a request was due, so that a slow service cannot hide behind what it kept from being asked." + LATE)
    return table_of(sweep, "latency", "How long until the answer?", caption, "latency p99 ms", MS)


LATE = " A strategy that does not keep up has no steady figure: its queue grows as long as the load lasts, until the deadline of 5 s."


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
        return (place(max(value, self.low)) - low) / (high - low) * HIGH

    def value(self, height):
        share = height / HIGH
        return self.low * (self.high / self.low) ** share if self.kind == "log" else self.low + (self.high - self.low) * share

    def axis(self, label, text, labels=True):
        axis = alt.Axis(values=self.ticks, labels=labels, ticks=False, labelExpr=text)
        return alt.Y("value:Q", title=label, axis=axis, scale=alt.Scale(type=self.kind, nice=False, zero=False, domain=[self.low, self.high]))


def table_of(sweep, name, title, caption, column, text):
    """A row for each shape of load, with one vertical axis; a column for each distance and balance."""
    points, rows = [point for point in sweep.points(column) if point["shape"] != "contests"], []
    shapes = [shape for shape in sweep.shapes if any(point["shape"] == shape for point in points)]
    for row, shape in enumerate(shapes):
        here = [point for point in points if point["shape"] == shape]
        rows.append(row_of(sweep, here, row, text, is_last=shape == shapes[-1]))
    chart = quietly(alt.vconcat, *rows, spacing=14).configure(**CONFIG) if rows else alt.Chart()
    return Picture(name, title, caption + COLUMNS + HOLLOW + repeats(points), chart, len(points))


def row_of(sweep, points, row, text, is_last):
    scale, label, panels = Scale.log(points), load(sweep, points[0]["shape"]), []
    for column, (distance, balance) in enumerate(columns(sweep)):
        here = [point for point in points if (point["distance"], point["balance"]) == (distance, balance)]
        y = scale.axis(None if column else label, text, labels=not column)
        lines = panel(sweep, f"{row}{column}", here, replicas_axis(sweep, is_titled=is_last), y)
        panels.append(lines if row else lines.properties(title=place(distance, balance)))
    return quietly(alt.hconcat, *panels, spacing=12)


def columns(sweep):
    return [(distance, balance) for distance in sweep.distances for balance in sweep.balances]


def place(distance, balance):
    return f"{'with a home' if balance == 'home' else balance}, {distance} ms"


def load(sweep, shape):
    return {"few": "64 users in a closed loop", "crowd": "1,000 users in a closed loop", "rate": f"{sweep.offered() or 0:,.0f} a second",
            "codes": "200 users for 8 coupons"}[shape]


def repeats(points):
    runs = max((point["runs"] for point in points), default=1)
    return f" Marks are medians of {runs} runs, bars the least and the most." if runs > 1 else " Each cell ran once: a small difference is none."


def quietly(join, *charts, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Automatically deduplicated")  # Pointing is meant for all panels together.
        return join(*charts, **options)


def replicas_axis(sweep, names=0.0, is_titled=True):
    """Replicas from left to right; `names` is the share of the width that is left free on the right."""
    lows, highs = sweep.replicas[0], max(sweep.replicas[-1], sweep.replicas[0] * 2)
    edge = (highs / lows) ** 0.06
    axis = alt.Axis(values=sweep.replicas, format="d", grid=False, tickSize=4)
    right = lows * (highs / lows) ** (1 / (1 - names)) if names else highs * edge
    return alt.X("replicas:Q", title="replicas" if is_titled else None, axis=axis, scale=alt.Scale(type="log", base=2, nice=False, domain=[lows / edge, right]))


def panel(sweep, place, points, x, y):
    """Lines by strategy."""
    near = alt.selection_point(name="near", fields=["strategy"], on="pointerover", clear="pointerout")
    zoom = alt.selection_interval(name=f"zoom{place}", bind="scales", zoom="wheel![event.ctrlKey || event.metaKey]")
    dim = alt.condition(near, alt.value(1), alt.value(0.2))
    base = alt.Chart(alt.Data(values=points)).encode(x=x, y=y, color=colours(sweep), opacity=dim)
    layers = [base.mark_line(clip=True), spread(base, y), marks(base, sweep).add_params(near, zoom)]
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def spread(base, y):
    """From the least repeat to the most."""
    bars = base.transform_filter("datum.low < datum.high").transform_calculate(value="datum.low")
    return bars.mark_rule(clip=True, strokeWidth=1.5).encode(y=y, y2="high:Q")


def replicas(sweep):
    """For the README: what one hot coupon gains and pays, of three strategies, a row for each distance."""
    wait, issued = ([point for point in sweep.points(column) if point["shape"] == "few" and point["strategy"] in SUMMED_UP]
                    for column in ("lock wait p99 ms", "issued /s"))
    scales, rows = (Scale.log(wait), Scale.linear(issued)), []
    for distance in sweep.distances:
        x, at = replicas_axis(sweep, NAMES, is_titled=distance == sweep.distances[-1]), f", servers {distance} ms away" if distance else ""
        panels = [named(sweep, [point for point in points if point["distance"] == distance], x, scale.axis(None, text), scale).properties(title=title + at)
                  for points, scale, title, text in zip((wait, issued), scales, ("lock wait, p99", "coupons issued a second"), (MS, COUNT))]
        rows.append(quietly(alt.hconcat, *panels, spacing=30))
    caption = ("One hot coupon, asked for by 64 users in a closed loop, against the number of replicas. Lines: orders go to the coupon's home. Dashes: they are "
               "scattered over all replicas. Left: lock wait p99 at the replicas, logarithmic. Right: coupons issued a second.")
    chart = quietly(alt.vconcat, *rows, spacing=20).configure(**CONFIG) if rows else alt.Chart()
    return Picture("replicas", "One hot coupon, 64 users: what do more replicas cost?", caption + HOLLOW, chart, len(wait) + len(issued))


def shares(sweep):
    """Replicas that have processors of their own, as many coupons and one hot one use them; a row for each distance."""
    titles = {"codes": "8 coupons, 200 users", "crowd": "one hot coupon, 1,000 users"}
    points = [point for point in sweep.points("issued /s") if point["shape"] in titles] if sweep.share() else []
    scale, rows = Scale.log(points + times_one(points)), []
    for distance in sweep.distances if points else []:
        x, at = replicas_axis(sweep, NAMES, is_titled=distance == sweep.distances[-1]), f", servers {distance} ms away" if distance else ""
        panels = []
        for shape, title in titles.items():
            here = [point for point in points if (point["shape"], point["distance"]) == (shape, distance)]
            y = scale.axis(None, COUNT)
            ideal = alt.Chart(alt.Data(values=times_one(here))).encode(x=x, y=y, detail="strategy:N")
            dots = ideal.mark_line(clip=True, color=SOFT, strokeWidth=1.2, strokeDash=[2, 4])
            panels.append(alt.layer(dots, named(sweep, here, x, y, scale)).properties(title=title + at))
        rows.append(quietly(alt.hconcat, *panels, spacing=30))
    caption = (f"Coupons issued a second, logarithmic, by replicas that have {sweep.share()} of a processor each. Dots: as many times the figure of one replica as "
               "there are replicas." + repeats(points) + " The names of the 8 coupons, and so their homes, are others in each run.")
    chart = quietly(alt.vconcat, *rows, spacing=20).configure(**CONFIG) if rows else alt.Chart()
    return Picture("shares", "When does a replica more help?", caption + HOLLOW, chart, len(points))


def times_one(points):
    """What replicas would do if each did as much as one that is alone."""
    line = lambda point: tuple(point[name] for name in ("shape", "distance", "strategy", "balance"))
    alone = {line(point): point["value"] for point in points if point["replicas"] == 1}
    ideal = [(point, alone[line(point)] * point["replicas"]) for point in points if line(point) in alone]
    return [{"strategy": point["strategy"], "replicas": point["replicas"], "value": value, "low": value, "high": value} for point, value in ideal]


def named(sweep, points, x, y, scale):
    """Lines by strategy and balance, each with its name at its end."""
    colour = colours(sweep, legend=False)
    dash = alt.StrokeDash("balance:N", scale=alt.Scale(domain=list(DASHES), range=list(DASHES.values())), legend=None)
    base = alt.Chart(alt.Data(values=points)).encode(x=x, y=y, color=colour, detail="balance:N")
    names = alt.Chart(alt.Data(values=named_ends(points, scale))).encode(x=x, y=y, text="name:N")
    font = {"align": "left", "dx": 11, "fontSize": 12, "fontWeight": 600, "clip": True}
    layers = [
        base.mark_line(clip=True).encode(strokeDash=dash),
        spread(base, y),
        marks(base, sweep, legend=False),
        names.mark_text(**font, color=PAPER, stroke=PAPER, strokeWidth=5, strokeJoin="round"),
        names.mark_text(**font).encode(color=colour),
    ]
    return alt.layer(*layers).properties(width=WIDE, height=HIGH)


def colours(sweep, legend=True):
    return by_strategy(sweep, alt.Color, 0, legend)


def by_strategy(sweep, channel, part, legend):
    """The scale of colours (0) or of marks (1)."""
    scale = alt.Scale(domain=sweep.strategies, range=[STRATEGY[name][part] for name in sweep.strategies])
    legend = alt.Legend(title=None, orient="bottom", columns=6) if legend else None
    return channel("strategy:N", scale=scale, legend=legend)


def marks(base, sweep, clip=True, legend=True):
    hollow = alt.condition("datum.spoiled", alt.value(PAPER), colours(sweep, legend=False))
    tooltip = [alt.Tooltip("strategy:N"), alt.Tooltip("balance:N"), alt.Tooltip("replicas:Q"), alt.Tooltip("value:Q", title="median", format=",.4~g"),
               alt.Tooltip("low:Q", title="least", format=",.4~g"), alt.Tooltip("high:Q", title="most", format=",.4~g"),
               alt.Tooltip("runs:Q"), alt.Tooltip("why:N", title="spoiled")]
    shape = by_strategy(sweep, alt.Shape, 1, legend)
    return base.mark_point(size=48, strokeWidth=1.8, opacity=1, clip=clip).encode(shape=shape, fill=hollow, tooltip=tooltip)


def named_ends(points, scale):
    """The last point of each line with its name, moved apart from the others' names by as little as will do. Lines of one strategy that
    end at one place share a name."""
    lines, ends = defaultdict(dict), []
    for point in sorted(points, key=lambda point: point["replicas"]):
        lines[point["strategy"]][point["balance"]] = point
    for strategy, last in lines.items():
        heights = [scale.height(end["value"]) for end in last.values()]
        if max(heights) - min(heights) < LABEL_GAP:
            ends.append(list(last.values())[0] | {"name": strategy})
        else:
            ends += [end | {"name": f"{strategy}, {balance}"} for balance, end in last.items()]
    ends.sort(key=lambda point: point["value"])
    heights = [scale.height(end["value"]) for end in ends]
    for _ in range(200):
        for i in range(len(heights) - 1):
            overlap = LABEL_GAP - (heights[i + 1] - heights[i])
            if overlap > 0:
                heights[i], heights[i + 1] = heights[i] - overlap / 2, heights[i + 1] + overlap / 2
        heights = [min(max(height, LABEL_GAP / 2), HIGH - LABEL_GAP / 2) for height in heights]
    return [end | {"value": scale.value(height)} for end, height in zip(ends, heights)]


def overtaking(sweep):
    """A column for each distance and balance, a group of rows for each strategy, a row for each number of replicas."""
    points = sweep.jumps()
    most = max((point["most"] for point in points), default=10) * 2
    ticks = [0] + [10**power for power in range(5) if 10**power <= most]
    axis = alt.Axis(values=ticks, ticks=False, labelExpr=MS, labelFlush=False, grid=True)
    scale = alt.Scale(type="symlog", constant=1, domain=[0, most], nice=False)
    panels = []
    for distance, balance in columns(sweep):
        here = [point for point in points if (point["distance"], point["balance"]) == (distance, balance)]
        if here:
            panels.append(jumps(sweep, here, axis, scale, not panels).properties(title=place(distance, balance)))
    missing = [name for name in sweep.strategies if not any(point["strategy"] == name for point in points)]
    caption = ("How much later than the first who was refused the last winner had reached nginx, in whole ms, from the replicas' audits of tiny coupons that "
               "sold out one after the other. Mark: p50; thick: to p95, which is also the number; thin: to the most." + COLUMNS + repeats(points))
    caption += f" Too few of their coupons sold out: {', '.join(missing)}." if missing else ""
    chart = quietly(alt.hconcat, *panels, spacing=14, config=CONFIG) if panels else alt.Chart()
    return Picture("overtaking", "Who gets it: how far can a later arrival overtake?", caption + HOLLOW, chart, len(points))


def jumps(sweep, points, axis, scale, first):
    p50, most = alt.X("p50:Q", title="queue-jump", axis=axis, scale=scale), alt.X("most:Q", axis=axis, scale=scale)
    rows = alt.Axis(labels=first, ticks=False, grid=False, labelExpr="'×' + datum.label")
    y = alt.Y("replicas:O", title=None, axis=rows, scale=alt.Scale(paddingInner=0.2))
    base = alt.Chart().encode(y=y, color=colours(sweep, legend=False))
    tooltip = [alt.Tooltip("strategy:N"), alt.Tooltip("replicas:O"), alt.Tooltip("p50:Q", title="p50, ms"), alt.Tooltip("value:Q", title="p95, ms"),
               alt.Tooltip("most:Q", title="most, ms"), alt.Tooltip("contests:Q"), alt.Tooltip("why:N", title="spoiled")]
    layers = alt.layer(
        base.mark_rule(strokeWidth=1.2, opacity=0.7).encode(x=p50, x2="most:Q"),
        base.mark_tick(thickness=1.5, size=8, opacity=0.8).encode(x=most),
        base.mark_rule(strokeWidth=5, strokeCap="round").encode(x=p50, x2="value:Q"),
        marks(base, sweep, clip=False, legend=False).encode(x=p50, tooltip=tooltip),
        base.mark_text(align="left", dx=8, fontSize=10.5).encode(x=most, text=alt.Text("value:Q", format=".0f")),
        data=alt.Data(values=points),
    ).properties(width=WIDTH, height=alt.Step(ROW + 2))
    header = alt.Header(labelAngle=0, labelAlign="left", labelPadding=4, labels=first, title=None)
    return layers.facet(row=alt.Row("strategy:N", sort=STRATEGIES, header=header), spacing=7)
