//! `report.html`: one file that asks for nothing else, for light and dark, wide and narrow.

use super::data::Data;
use super::findings::{self, Findings};
use super::pictures::{self, Figure};
use super::svg::escaped;
use super::table::COLUMNS;
use super::{axis::short, rows::percent};
use crate::sweep::plan::Shape;

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn page(data: &Data) -> String {
    let mut body = header(data);
    body += &findings_section(&findings::all(data));
    for shape in data.shapes() {
        body += &shape_section(data, shape);
    }
    body += &raw(data);
    body += &setting(data);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>coupon-rush: a sweep</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n{body}<footer></footer>\n</body>\n</html>\n"
    )
}

fn header(data: &Data) -> String {
    let machine = &data.setting.machine;
    let facts = format!(
        "{} cells, begun {} on {} processors ({}), commit {}",
        data.found.len(),
        data.setting.started.get(..16).unwrap_or_default().replace('T', " ") + " UTC",
        machine.processors,
        machine.model,
        machine.commit
    );
    format!(
        "<header><h1>What replicas, strategies and the lock cost</h1>\n<p class=\"soft\">{}</p></header>\n<main>\n",
        escaped(&facts)
    )
}

fn findings_section(findings: &Findings) -> String {
    format!(
        "<h2>What the figures say</h2>\n<p class=\"soft\">Made from the figures by plain rules; in brackets the least and the most \
         that was seen. A difference within that spread is called none.</p>\n{}<h3>What limits them</h3>\n{}",
        list(&findings.results),
        list(&findings.limits)
    )
}

fn list(items: &[String]) -> String {
    format!("<ul>\n{}</ul>\n", together(items.iter().map(|item| format!("<li>{}</li>\n", escaped(item)))))
}

fn shape_section(data: &Data, shape: Shape) -> String {
    let settings = &data.plan.settings;
    let (name, what) = match shape {
        Shape::Hot => (
            "One hot coupon",
            format!("Open model: {} requests a second, each from a new user, all for one coupon.", settings.rate),
        ),
        Shape::Many => (
            "32 coupons",
            format!("Open model: {} requests a second, each from a new user, spread over 32 coupons.", settings.rate),
        ),
        Shape::Rush => (
            "The rush",
            format!(
                "Closed model: {} users who come back at once for {} s, and 1,600 coupons of three kinds. Throughput is that of the \
                 time while there was stock; everything else is over the whole rush, which begins cold.",
                settings.users, settings.seconds
            ),
        ),
    };
    let figures = together(pictures::all(data, shape).iter().map(figure));
    format!(
        "<h2>{name}</h2>\n<p class=\"soft\">{what}</p>\n<div class=\"figures\">\n{figures}</div>\n<h3>What more replicas did</h3>\n{}{}",
        list(&findings::of_shape(data, shape)),
        laws(data, shape)
    )
}

fn figure(figure: &Figure) -> String {
    let key = together(
        figure.key.iter().map(|(class, name)| format!("<span><i class=\"{class}\"></i>{}</span>", escaped(name))),
    );
    let key = if key.is_empty() { key } else { format!("<div class=\"key\">{key}</div>") };
    format!(
        "<figure><figcaption>{}<small>{}</small></figcaption>{key}{}</figure>\n",
        escaped(figure.title),
        escaped(&figure.note),
        figure.picture
    )
}

/// A figure's picture as a file that needs no page.
pub fn alone(figure: &Figure) -> String {
    let with_style = format!("><style>{STYLE}</style><title>{}</title>", escaped(figure.title));
    figure.picture.replacen("<svg", "<svg xmlns=\"http://www.w3.org/2000/svg\"", 1).replacen('>', &with_style, 1)
}

fn laws(data: &Data, shape: Shape) -> String {
    let mut rows = Vec::new();
    for strategy in data.strategies(shape) {
        let cells = match findings::law(data, shape, strategy) {
            Ok(fit) => {
                let range = |value, low, high| format!("{} ({} to {})", short(value), short(low), short(high));
                let (law, low, high) = (fit.law, fit.low, fit.high);
                [
                    range(law.lambda, low.lambda, high.lambda),
                    range(law.sigma, low.sigma, high.sigma),
                    range(law.kappa, low.kappa, high.kappa),
                    percent(fit.error) + if fit.describes() { "" } else { ": too far off" },
                ]
                .map(|text| format!("<td>{text}</td>"))
                .concat()
            }
            Err(why) => format!("<td colspan=\"4\" style=\"text-align:left\">not fitted: {}</td>", escaped(&why)),
        };
        rows.push(format!("<tr><td>{strategy}</td>{cells}</tr>\n"));
    }
    let rows = rows.concat();
    format!(
        "<h3>Universal Scalability Law</h3>\n<div class=\"scroll\"><table><thead><tr><th>strategy</th><th>one replica λ, /s</th>\
         <th>contention σ</th><th>coherence κ</th><th>error</th></tr></thead><tbody>\n{rows}</tbody></table></div>\n\
         <p class=\"soft\">X(n) = λn / (1 + σ(n − 1) + κn(n − 1)), least squares of relative errors, σ and κ not below zero; in \
         brackets 90 % of a residual bootstrap. The replicas share the processors with each other and with k6, so σ and κ hold that, \
         too. It holds for the measured numbers of replicas on this machine and is not extended beyond them.</p>\n"
    )
}

fn raw(data: &Data) -> String {
    let header = together(COLUMNS.iter().map(|(name, _)| format!("<th>{}</th>", escaped(name))));
    let mut cells: Vec<_> = data.found.iter().collect();
    cells.sort_by_key(|it| it.cell);
    let rows = together(cells.iter().map(|found| {
        let fields =
            COLUMNS.iter().map(|(_, value)| value(found, &data.plan.settings).unwrap_or_else(|| "–".to_owned()));
        let fields = together(fields.map(|text| format!("<td>{}</td>", escaped(&text))));
        format!("<tr>{fields}</tr>\n")
    }));
    format!(
        "<h2>Every cell</h2>\n<p class=\"soft\">Also in cells.csv and cells.json; raw results of k6 and Prometheus in cells/. \
         Latencies are k6's, lock waits the replicas'. CPU is in processors.</p>\n<div class=\"scroll\"><table class=\"raw\"><thead>\
         <tr>{header}</tr></thead><tbody>\n{rows}</tbody></table></div>\n"
    )
}

fn setting(data: &Data) -> String {
    let (settings, machine) = (&data.plan.settings, &data.setting.machine);
    #[expect(clippy::cast_precision_loss, reason = "bytes of a machine's memory")]
    let gibibytes = machine.memory as f64 / f64::from(1 << 30);
    let knobs: Vec<String> = settings.knobs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let knobs = if knobs.is_empty() { "defaults".to_owned() } else { knobs.join(" ") };
    let facts = [
        (
            "Machine",
            format!(
                "{} processors, {}, {} GiB, Linux {}",
                machine.processors,
                machine.model,
                short(gibibytes),
                machine.kernel
            ),
        ),
        ("Load average before", short(machine.load_before)),
        ("Commit", machine.commit.clone()),
        ("Programs", data.setting.versions.join("; ")),
        ("Open model", format!("{}/s; {} s warm-up, {} s measured", settings.rate, settings.warm_up, settings.seconds)),
        ("Closed model", format!("{} users, {} s", settings.users, settings.seconds)),
        (
            "Fairness",
            format!(
                "{} rounds of {} pieces a cell, asked for by {} times as many users at {}/s",
                settings.fairness_rounds, settings.fairness_pieces, settings.fairness_over, settings.rate
            ),
        ),
        ("Order", format!("random within each repeat, seed {}", settings.seed)),
        ("Knobs of the cluster", knobs),
        ("Where", "everything on one machine, over loopback".to_owned()),
    ];
    let facts = together(facts.iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>\n", escaped(value))));
    format!("<h2>How it was measured</h2>\n<dl>\n{facts}</dl>\n</main>\n")
}

fn together(pieces: impl Iterator<Item = String>) -> String {
    pieces.collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::super::data::tests::data;
    use super::*;
    use crate::strategy::Strategy;

    fn html() -> String {
        page(&data(Shape::Hot, &Strategy::ALL, &[1, 2, 4, 8], |_| ()))
    }

    #[test]
    fn the_page_asks_for_nothing_else() {
        let html = html();

        for word in ["http:", "https:", "src=", "href=", "@import", "url(", "<script"] {
            assert!(!html.contains(word), "{word}");
        }
    }

    #[test]
    fn every_figure_is_a_number() {
        let html = html();

        assert!(!html.contains("NaN") && !html.contains("inf\""), "a figure is no number");
        assert_eq!(html.matches("<figure>").count(), html.matches("</svg>").count());
    }

    #[test]
    fn every_class_of_a_picture_has_a_color() {
        let html = html();
        let (style, body) = html.split_once("</style>").unwrap();

        for class in body.split("class=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            let is_known =
                ["soft", "raw", "scroll", "figures", "key"].contains(&class) || style.contains(&format!(".{class} "));
            assert!(is_known || style.contains(&format!(".{class},")), "{class}");
        }
    }
}
