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
PARTS = ["#8c959f", "#56a3d8", "#0067ad", "#00805f", "#cf4a01", "#e0a33e", "#c9a0bd", "#b04a8b"]
OUTCOMES = {"issued": "#0067ac", "replayed": "#56a3d7", "already issued": "#9fcbe8", "sold out": "#aeb6bf", "not open": "#e0a33f",
            "busy": "#cf4a02", "unexpected": "#24292e", "not sent": "#eceff2"}
# The same colours where it is dark. A picture has each colour for one purpose, so a colour can be looked up by what it is.
DARK = {
    INK: "#d1d7e0", SOFT: "#9198a1", GRID: "#30363d", PAPER: "#0d1117",
    "#6e7781": "#9aa4af", "#a86b00": "#e3a33b", "#b04a8a": "#e08dc0", "#00805e": "#2fb68e", "#cf4a00": "#f5793b", "#0067ae": "#58a9f0",
    "#8c959f": "#7d8690", "#56a3d8": "#8ccbf5", "#0067ad": "#3d8fdb", "#00805f": "#2aa27f", "#cf4a01": "#ea6c2f", "#e0a33e": "#e3b25c",
    "#c9a0bd": "#b58aa8", "#b04a8b": "#d67ab3",
    "#0067ac": "#3d8fda", "#56a3d7": "#8ccbf4", "#9fcbe8": "#b9dcf3", "#aeb6bf": "#69727c", "#e0a33f": "#e3b25d", "#cf4a02": "#ea6c30",
    "#24292e": "#ffffff", "#eceff2": "#21262d",
}
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
CONFIG = {
    "background": "transparent", "font": FONT, "padding": 8,
    "view": {"stroke": None},
    "title": {"color": INK, "fontSize": 13, "fontWeight": 600, "anchor": "start", "offset": 10, "subtitleColor": SOFT, "subtitleFontSize": 11.5},
    "axis": {"labelColor": SOFT, "titleColor": SOFT, "gridColor": GRID, "domain": False, "tickColor": GRID, "labelFontSize": 11,
             "titleFontSize": 11.5, "titleFontWeight": "normal", "labelPadding": 6, "titlePadding": 10},
    "header": {"labelColor": INK, "labelFontSize": 12, "title": None},
    "legend": {"labelColor": INK, "titleColor": SOFT, "labelFontSize": 11.5, "symbolType": "square", "symbolSize": 110},
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
