"""How pictures look: colours that people with colour-blindness tell apart (after Okabe and Ito), by day and by night."""

import re

INK, SOFT, GRID, PAPER = "#3d444d", "#59636e", "#d9dee4", "#ffffff"
STRATEGY = {  # colour, mark
    "unlocked": ("#6e7781", "cross"),
    "conditional": ("#a86b00", "square"),
    "optimistic": ("#b04a8a", "triangle-up"),
    "pessimistic": ("#00805e", "diamond"),
    "redlock": ("#cf4a00", "triangle-down"),
    "batched": ("#0067ae", "circle"),
}
# How lines are broken.
DASHES = {"home": [1, 0], "scattered": [5, 4]}
# The same colours where it is dark.
DARK = {
    INK: "#d1d7e0", SOFT: "#9198a1", GRID: "#30363d", PAPER: "#0d1117",
    "#6e7781": "#9aa4af", "#a86b00": "#e3a33b", "#b04a8a": "#e08dc0", "#00805e": "#2fb68e", "#cf4a00": "#f5793b", "#0067ae": "#58a9f0",
}
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
CONFIG = {
    "background": "transparent", "font": FONT, "padding": 8,
    "view": {"stroke": None},
    "title": {"color": INK, "fontSize": 13, "fontWeight": 600, "anchor": "start", "offset": 10, "subtitleColor": SOFT, "subtitleFontSize": 11.5},
    "axis": {"labelColor": SOFT, "titleColor": SOFT, "gridColor": GRID, "domain": False, "tickColor": GRID, "labelFontSize": 11,
             "titleFontSize": 11.5, "titleFontWeight": "normal", "labelPadding": 6, "titlePadding": 10},
    "header": {"labelColor": INK, "labelFontSize": 12, "title": None},
    "legend": {"labelColor": INK, "titleColor": SOFT, "labelFontSize": 11.5, "symbolSize": 80},
    "line": {"strokeWidth": 2},
}


def dark(text):
    """A specification or a picture by night."""
    return re.sub(r"#[0-9a-f]{6}", lambda colour: DARK.get(colour[0], colour[0]), text)


def both(svg):
    """An SVG that follows its reader: the query wins over attributes, and where nobody asks it the colours of the day are legible on dark."""
    rules = "".join(f'[fill="{day}"]{{fill:{night}}}[stroke="{day}"]{{stroke:{night}}}' for day, night in DARK.items() if day in svg)
    start = svg.index(">") + 1
    return f"{svg[:start]}<style>@media (prefers-color-scheme:dark){{{rules}}}</style>{svg[start:]}"
