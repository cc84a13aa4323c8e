//! What was found, for people: a page that stands alone, and a table for the terminal.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::model::{FollowerOutcome, Outcome};
use super::plot::{Line, escaped, number, plot};
use super::scenario::{Scenario, written};

const STYLE: &str = include_str!("report.css");

/// What the model knows, does not know, and takes for granted.
const ASSUMPTIONS: [&str; 9] = [
    "Merges, hot sets and what a cache keeps are decided by the product's own functions; everything else \
     here is a model, and no node ran.",
    "One database with one table. Rows come in evenly within a commit, and each commit is one extent.",
    "A request to the bucket takes a log-normally distributed time through both percentiles.",
    "A follower that hears its leader sees a commit 2 ms after it; one that does not looks into the bucket \
     once a second.",
    "Queries read the same share of each extent in the span that they look at, and spans are asked in fixed \
     proportions.",
    "What is cold and fits into the twentieth of the disk that is kept for it is fetched once; what does \
     not fit is fetched each time. A cold extent costs two requests.",
    "Extents are as large on a follower's disk as in the bucket.",
    "Processors, memory and queues are not modelled: no query waits for another one, and merging keeps up.",
    "Before the beginning there were full extents only, and caches were as full as they could be.",
];

/// One table for all followers, and what else there is to say.
pub(super) fn text(scenario: &Scenario, outcome: &Outcome) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_BORDERS_ONLY)
        .set_header(HEADER);
    for follower in &outcome.followers {
        table.add_row(row(follower));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{arguments}");
    };
    if !outcome.followers.is_empty() {
        line(format_args!("{table}"));
    }
    for (name, value) in facts(scenario, outcome) {
        line(format_args!("{name:<28} {value}"));
    }
    text
}

const HEADER: [&str; 10] = [
    "follower",
    "lag p50",
    "p99",
    "max",
    "hit rate",
    "hot",
    "does not fit",
    "disk",
    "warmed",
    "requests",
];

fn row(follower: &FollowerOutcome) -> [String; 10] {
    [
        follower.name.clone(),
        duration(follower.lag_ms.p50),
        duration(follower.lag_ms.p99),
        duration(follower.lag_ms.max),
        format!("{:.1} %", follower.hit_percent),
        bytes(follower.hot_bytes),
        bytes(follower.shortfall_bytes),
        bytes(follower.disk_bytes),
        bytes(follower.warmed_bytes),
        number(follower.requests as f64),
    ]
}

fn facts(scenario: &Scenario, outcome: &Outcome) -> Vec<(String, String)> {
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let acknowledged = &outcome.acknowledged_ms;
    let mut facts = vec![
        fact("simulated", written(scenario.duration).to_string()),
        fact("rows", number(outcome.rows as f64)),
        fact("commits", number(outcome.commits as f64)),
        fact(
            "rows acknowledged after",
            format!(
                "{} p50, {} p99, {} at most",
                duration(acknowledged.p50),
                duration(acknowledged.p99),
                duration(acknowledged.max)
            ),
        ),
        fact(
            "extents",
            format!(
                "{} at the end, {} at most, by {} merges",
                number(outcome.extents as f64),
                number(outcome.extents_at_most as f64),
                number(outcome.merges as f64)
            ),
        ),
        fact(
            "in the bucket",
            format!(
                "{}, and {} that wait to be deleted",
                bytes(outcome.stored_bytes),
                bytes(outcome.garbage_bytes)
            ),
        ),
    ];
    for (name, count) in outcome.requests.named() {
        facts.push(fact(name, number(count as f64)));
    }
    let cost = &outcome.cost;
    for (name, cost) in [
        ("a month: PUT", cost.put),
        ("a month: GET", cost.get),
        ("a month: storage", cost.storage),
        ("a month: egress", cost.egress),
        ("a month: machines", cost.machines),
        ("a month: all", cost.total()),
    ] {
        facts.push(fact(name, format!("{cost:.2}")));
    }
    let outages = outcome.outages.iter().filter(|(_, count)| **count > 0);
    for (what, count) in outages {
        facts.push(fact(&format!("outages, {what}"), number(*count as f64)));
    }
    facts
}

/// The page. `command` is what was typed.
pub(super) fn page(
    command: &str,
    scenario: &Scenario,
    outcome: &Outcome,
) -> anyhow::Result<String> {
    let mut page = String::new();
    let mut put = |part: &str| page.push_str(part);
    put("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    put(
        "<meta name=\"viewport\" content=\"width=device-width\"><title>slipstream simulate</title><style>",
    );
    put(STYLE);
    put("</style></head><body>\n<h1>slipstream simulate</h1>\n<pre>");
    put(&escaped(command));
    put("</pre>\n<table><thead><tr>");
    for name in HEADER {
        put(&format!("<th scope=\"col\">{name}</th>"));
    }
    put("</tr></thead><tbody>");
    for follower in &outcome.followers {
        put("<tr>");
        for cell in row(follower) {
            put(&format!("<td>{}</td>", escaped(&cell)));
        }
        put("</tr>");
    }
    put("</tbody></table>\n<table><tbody>");
    for (name, value) in facts(scenario, outcome) {
        put(&format!(
            "<tr><td>{}</td><td>{}</td></tr>",
            escaped(&name),
            escaped(&value)
        ));
    }
    put("</tbody></table>\n");
    for plot in plots(outcome) {
        put(&plot);
        put("\n");
    }
    put("<h2>What this is made of</h2>\n<ul>");
    for assumption in ASSUMPTIONS {
        put(&format!("<li>{assumption}</li>"));
    }
    put("</ul>\n<pre>");
    put(&escaped(&serde_json::to_string_pretty(scenario)?));
    put("</pre>\n</body></html>\n");
    Ok(page)
}

fn plots(outcome: &Outcome) -> Vec<String> {
    let series = &outcome.series;
    let names = outcome
        .followers
        .iter()
        .map(|follower| follower.name.as_str());
    let of_followers = names.zip(&series.followers);
    let lag: Vec<Line<'_>> = of_followers
        .clone()
        .map(|(name, follower)| (name, &follower.lag_ms[..]))
        .collect();
    let hits: Vec<Line<'_>> = of_followers
        .clone()
        .map(|(name, follower)| (name, &follower.hit_percent[..]))
        .collect();
    let near: Vec<(String, &[f64])> = of_followers
        .flat_map(|(name, follower)| {
            [
                (format!("{name}: hot"), &follower.hot_gb[..]),
                (format!("{name}: on its disk"), &follower.resident_gb[..]),
            ]
        })
        .collect();
    let near: Vec<Line<'_>> = near
        .iter()
        .map(|(name, values)| (name.as_str(), *values))
        .collect();
    let hours = &series.hours;
    let stored = [
        ("tables", &series.stored_gb[..]),
        ("waits to be deleted", &series.garbage_gb[..]),
    ];
    let requests = [("PUT", &series.puts[..]), ("GET", &series.gets[..])];
    vec![
        plot(
            "Lag from commit to visible, the largest of each tick",
            " ms",
            hours,
            &lag,
        ),
        plot("Bytes that queries found near", " %", hours, &hits),
        plot("Hot, and on the disk", " GB", hours, &near),
        plot(
            "Extents of the table",
            "",
            hours,
            &[("extents", &series.extents[..])],
        ),
        plot("In the bucket", " GB", hours, &stored),
        plot("Requests to the bucket", "/s", hours, &requests),
    ]
}

/// Milliseconds for people.
fn duration(millis: f64) -> String {
    match millis {
        short if short < 1_000.0 => format!("{} ms", number(short)),
        middle if middle < 120_000.0 => format!("{} s", number(middle / 1e3)),
        long if long < 7_200_000.0 => format!("{} min", number(long / 60e3)),
        long => format!("{} h", number(long / 3_600e3)),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        small if small < 1e6 => format!("{} kB", number(small / 1e3)),
        middle if middle < 1e9 => format!("{} MB", number(middle / 1e6)),
        large => format!("{} GB", number(large / 1e9)),
    }
}
