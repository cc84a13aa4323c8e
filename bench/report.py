"""RESULTS.md and its plots, from the measured figures."""

import json
import math
import pathlib

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "slipstream"
from matplotlib import pyplot  # noqa: E402

BASE = "DuckDB on the same Parquet"


def write(folder: pathlib.Path) -> None:
    renders = {"hot": hot, "cold": cold, "ingest": ingest, "small": small, "beside": beside}
    parts = {name: read(folder / f"{name}.json") for name in renders}
    text = ["# Measured", "", "Written by `bench/run.py`, which says how to run it. All figures of a table are of one run."]
    for name, render in renders.items():
        if parts[name]:
            text += ["", *render(parts[name], folder), "", *machine(parts[name])]
    (folder / "RESULTS.md").write_text("\n".join(text) + "\n")


def read(path: pathlib.Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def machine(part: dict) -> list[str]:
    m = part["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in part.get("versions", {}).items())
    built = f"Slipstream built {part['built']}" if part.get("built") else ""
    parts = [m["cpu"], f"{m['cores']} cores", m["memory"], m["system"], versions, built]
    return ["*" + ", ".join(filter(None, parts)) + "*"]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *("| " + " | ".join(row) + " |" for row in rows)]


def hot(part: dict, folder: pathlib.Path) -> list[str]:
    seconds = part["seconds"]
    queries = list(next(iter(seconds.values())))
    sums = {name: sum(times[q] for q in queries) for name, times in seconds.items()}
    rows = [[name, f"{total:.2f}", f"{total / sums[BASE]:.2f}"] for name, total in sums.items()]
    each = [[q, *(f"{seconds[name][q]:.3f}" for name in seconds)] for q in queries]
    plot(seconds, queries, folder / "hot.svg")
    return [
        f"## TPC-H, scale {part['scale']}: 22 queries, {part['threads']} threads, best of {part['rounds']}",
        "",
        f"A follower whose hot set is resident. {part['bucket_bytes'] / 1e6:.0f} MB of Parquet were on its disk after "
        f"{part['resident_after_s']:.1f} s and encoded as {part['resident_bytes'] / 1e6:.0f} MB after {part['encoded_after_s']:.1f} s.",
        "",
        *table(["", "sum, s", f"to {BASE}"], rows),
        "",
        "![seconds of each query](hot.svg)",
        "",
        *table(["query", *seconds], each),
    ]


def plot(seconds: dict, queries: list[str], path: pathlib.Path) -> None:
    figure, axes = pyplot.subplots(figsize=(11, 4))
    width = 0.8 / len(seconds)
    for number, (name, times) in enumerate(seconds.items()):
        values = [0 if math.isnan(times[q]) else times[q] for q in queries]
        axes.bar([at + number * width for at in range(len(queries))], values, width, label=name)
    axes.set_xticks([at + 0.4 - width / 2 for at in range(len(queries))], queries, rotation=90)
    axes.set_ylabel("seconds")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def cold(part: dict, _: pathlib.Path) -> list[str]:
    rows = []
    for query, needed in part["needed_bytes"].items():
        for name, measured in part["cold"].items():
            m = measured[query]
            share = f"{m['bytes'] / needed * 100 - 100:+.0f} %"
            rows.append([query, name, f"{m['seconds']:.2f}", str(m["requests"]), f"{m['bytes'] / 1e6:.1f}", share])
    links = []
    for name, link in part["warming"]["links"].items():
        plain, ours = link["plain_bytes_per_s"], link["follower_bytes_per_s"]
        links.append([name, f"{plain / 1e6:.0f}", f"{ours / 1e6:.0f}", f"{ours / plain * 100:.0f} %"])
    return [
        f"## Cold, from S3 with {part['delay_ms']:.0f} ms added to each request, best of {part['rounds']}",
        "",
        "Requests and bytes as the server's side of the line saw them; the last column compares the bytes with the "
        "column chunks that the query needs.",
        "",
        *table(["query", "", "s", "requests", "MB", "to needed"], rows),
        "",
        "## Warming",
        "",
        f"{next(iter(part['warming']['links'].values()))['bytes'] / 1e6:.0f} MB of extents on the same S3 server: a plain GET of "
        f"them, {part['warming']['parallel_gets']} at a time, and a follower from attaching until all are on its disk, each "
        "checked by SHA-256. On one machine the server, the network and the follower share its cores; over 1 Gbit/s each "
        f"request takes {part['delay_ms']:.0f} ms more.",
        "",
        *table(["", "plain GET, MB/s", "follower, MB/s", "share"], links),
    ]


def ingest(part: dict, _: pathlib.Path) -> list[str]:
    rows = [[name, f"{seconds:.2f}"] for name, seconds in part["seconds"].items()]
    return [
        f"## Ingesting lineitem of scale {part['scale']}: a CSV of {part['csv_bytes'] / 1e6:.0f} MB, best of {part['rounds']}",
        "",
        *table(["", "s"], rows),
        "",
        f"The leader held at most {part['leader_peak_memory_bytes'] / 1e6:.0f} MB (`VmHWM`).",
    ]


def small(part: dict, _: pathlib.Path) -> list[str]:
    rows = [[name, f"{m['queries_per_s']:.0f}", f"{m['p50_ms']:.1f}", f"{m['p99_ms']:.1f}"] for name, m in part["systems"].items()]
    return [
        f"## Small queries: {part['clients']} clients for {part['seconds']} s, best of {part['rounds']}",
        "",
        f"`{part['sql']}`",
        "",
        f"The table is lineitem of scale {part['scale']} by the day of shipping, in {part['extents']} extents: one for each "
        f"quarter. A follower's query opens {part['extents_scanned']} of them, with {part['requests']} requests to the bucket. "
        "All systems read the same files, the follower its own copies of them.",
        "",
        *table(["", "queries/s", "p50, ms", "p99, ms"], rows),
        "",
        f"{'`wrk` asks' if part['client'] == 'wrk' else 'A client in Python asks, which takes more of the cores,'} over HTTP. "
        f"What says *in process* is called from {part['clients']} threads of the harness and pays for no HTTP.",
    ]


def beside(part: dict, _: pathlib.Path) -> list[str]:
    alone, with_scan, share = part["alone_ms"], part["beside_ms"], part["cpu_share_of_scan"]
    hot, cold, cache, queries = part["hot"], part["cold"], part["cache_disk_bytes"], part["hot_queries"]
    fetched = part["fetched_bytes"]["after"] - part["fetched_bytes"]["before"]
    unchanged = "the same names, sizes and SHA-256" if part["hot_files_unchanged"] else "**not the same files**"
    rows = [
        ["a hot query alone, median of " + str(queries["alone"]), f"{alone:.1f} ms"],
        ["beside a cold scan, median of " + str(queries["beside"]), f"{with_scan:.1f} ms"],
        ["that is, so many times as long", f"{with_scan / alone:.2f}"],
        ["and so much of its speed is lost", f"{(1 - alone / with_scan) * 100:.0f} %"],
        ["the scan alone takes of the cores", f"{share * 100:.0f} %"],
    ]
    return [
        "## Hot queries beside a scan of cold data",
        "",
        f"A cache of {cache / 1e6:.0f} MB. `{hot['table']}` is hot by its policy and stands in it with {hot['bytes'] / 1e6:.0f} MB; "
        f"`{cold['table']}` is not, has {cold['bytes'] / 1e6:.0f} MB in the bucket, {cold['bytes'] / cache:.1f} times the cache, and "
        f"a scan reads {cold['bytes_of_a_scan'] / 1e6:.0f} MB of it.",
        "",
        *table(["", ""], rows),
        "",
        f"Afterwards the directory of hot extents has {unchanged} as before ({part['hot_files']} files). {fetched} bytes were "
        f"fetched for it meanwhile, and a hot query made {queries['requests_max']} requests to the bucket.",
        "",
        f"Hot: `{hot['sql']}`",
        "",
        f"Cold: `{cold['sql']}`",
    ]
