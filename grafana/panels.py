"""The few kinds of panel that the boards are made of, so that all of them look and read alike."""

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as queries
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale

DATASOURCE = looks.DataSourceRef(type_val="prometheus", uid="${datasource}")
# What every expression about the service selects by.
SERVICE = 'job=~"$job", instance=~"$instance"'
ISSUE = f'{SERVICE}, route="/coupons/issue"'
# Not `up`: with "All" as the job it would count every other target, too.
REPLICAS = f"count(coupon_build_info{{{SERVICE}}})"

# By code, the largest of the replicas' views; without the coupons of the experiments (k6/lib/stock.js), of which there are
# hundreds, or a million pieces each.
STOCK = f'max by (code) (coupon_remaining{{{SERVICE}, code!~"L-.*|F-.*"}})'

# Okabe and Ito's palette: told apart with every kind of colour vision. One meaning each, on every board.
BLUE, SKY, GREEN, YELLOW, ORANGE, VERMILION, PURPLE, GREY = (
    "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC3311", "#CC79A7", "#8C8C8C")
QUANTILE_COLORS = {"p50": SKY, "p95": BLUE, "p99": ORANGE}
OUTCOME_COLORS = {
    "issued": GREEN, "replayed": SKY, "already-issued": BLUE, "sold-out": GREY, "not-open": PURPLE,
    "unknown-coupon": YELLOW, "busy": ORANGE, "unavailable": VERMILION,
}

FULL, HALF, QUARTER = 24, 12, 6


def lines(title, description, unit, *targets, span=HALF, stacked=False, steps=False, colors=None, limit=None):
    """Curves over time, from zero up. A target is (expression, legend). `limit` draws a line at what should not be crossed."""
    panel = (
        timeseries.Panel().title(title).description(description).datasource(DATASOURCE).unit(unit).span(span).height(8)
        .line_width(2).fill_opacity(35 if stacked else 8).show_points(looks.VisibilityMode.NEVER)
        .line_interpolation(looks.LineInterpolation.STEP_AFTER if steps else looks.LineInterpolation.LINEAR)
        .legend(common.VizLegendOptions().show_legend(True).placement(looks.LegendPlacement.BOTTOM)
                .display_mode(looks.LegendDisplayMode.LIST).calcs(["lastNotNull"]))
        .tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)).min(0)
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL))
    if limit is not None:
        panel.thresholds(thresholds(limit)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(looks.GraphThresholdsStyleMode.DASHED))
    for name, color in (colors or {}).items():
        panel.override_by_name(name, [models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})])
    return with_targets(panel, targets)


def number(title, description, unit, expression, span=QUARTER, limit=None, decimals=None, legend="", text="auto"):
    """One value, now. Beyond `limit` it takes the colour of trouble."""
    panel = (
        stat.Panel().title(title).description(description).datasource(DATASOURCE).unit(unit).span(span).height(4)
        .graph_mode(looks.BigValueGraphMode.AREA).text_mode(looks.BigValueTextMode(text))
        .color_mode(looks.BigValueColorMode.VALUE).thresholds(thresholds(limit))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if decimals is not None:
        panel.decimals(decimals)
    return with_targets(panel, [(expression, legend)])


def heat(title, description, buckets, unit="s"):
    """How a histogram's observations spread over its buckets; `buckets` is the selector of a `_bucket` series."""
    panel = (
        heatmap.Panel().title(title).description(description).datasource(DATASOURCE).unit(unit).span(HALF).height(8)
        .calculate(False).cell_gap(0).show_legend().y_axis(heatmap.YAxisConfig().unit(unit))
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Viridis")
               .scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5).steps(64).reverse(False))
    )
    query = target(f"sum by (le) (increase({buckets}[$__rate_interval]))", "{{le}}", "A").format(queries.PromQueryFormat.HEATMAP)
    return panel.with_target(query)


def quantiles(title, description, buckets, limit=None):
    """p50, p95 and p99 of a histogram of seconds."""
    found = [(quantile(share, buckets), name) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))]
    return lines(title, description, "s", *found, colors=QUANTILE_COLORS, limit=limit)


def quantile(share, buckets):
    """A quantile of a histogram: summed over the replicas first, because quantiles do not add up."""
    return f"histogram_quantile({share}, sum by (le) (rate({buckets}[$__rate_interval])))"


def rate(name, labels=SERVICE):
    return f"rate({name}{{{labels}}}[$__rate_interval])"


def per(label, expression):
    """A curve for every value of a label."""
    return f"sum by ({label}) ({expression})", f"{{{{{label}}}}}"


def nonzero(expression, legend):
    """Curves to stack. Those at zero are left out, because they would be drawn over the topmost one."""
    return f"({expression}) > 0", legend


def thresholds(limit):
    steps = [models.Threshold(value=None, color=BLUE)]
    if limit is not None:
        steps.append(models.Threshold(value=limit, color=VERMILION))
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def with_targets(panel, targets):
    for letter, (expression, legend) in zip("ABCDEFGH", targets, strict=False):
        panel.with_target(target(expression, legend, letter))
    return panel


def target(expression, legend, letter):
    return (prometheus.Dataquery().datasource(DATASOURCE).expr(expression).legend_format(legend or "__auto")
            .range().ref_id(letter))


def board(uid, title, description, *variables):
    """An empty board with what all of them share: the time range, the links between them, the events."""
    made = (
        dashboard.Dashboard(title).uid(uid).description(description).tags(["coupon"]).readonly()
        .time("now-15m", "now").refresh("5s").tooltip(models.DashboardCursorSync.CROSSHAIR).timezone("browser")
        .link(dashboard.DashboardLink("Boards").type(models.DashboardLinkType.DASHBOARDS).tags(["coupon"])
              .as_dropdown(False).include_vars(True).keep_time(True))
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
                       .current(models.VariableOption(text="Prometheus", value="prometheus")))
    )
    for variable in variables:
        made.with_variable(variable)
    return made


def service_variables():
    return (
        variable("job", "Job", 'label_values(coupon_build_info, job)'),
        variable("instance", "Replica", 'label_values(coupon_build_info{job=~"$job"}, instance)'),
    )


def variable(name, label, query):
    return (
        dashboard.QueryVariable(name).label(label).datasource(DATASOURCE).query(query).multi(True).include_all(True)
        .all_value(".+").current(models.VariableOption(text="All", value="$__all"))
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def scale_events():
    """Marks the moments at which the number of replicas changed."""
    return (
        dashboard.AnnotationQuery().name("Replicas changed").datasource(DATASOURCE).enable(True).icon_color(PURPLE)
        .expr(f"({REPLICAS} - count(coupon_build_info{{{SERVICE}}} offset 5s)) != 0")
    )


def fill(made, *rows):
    """Adds rows of panels; a row is (title, panel, panel ...)."""
    for title, *panels in rows:
        made.with_row(dashboard.Row(title))
        for panel in panels:
            made.with_panel(panel)
    return made
