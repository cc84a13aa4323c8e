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
    parts = {name: read(folder / f"{name}.json") for name in ("hot", "cold", "ingest", "small")}
    text = ["# Measured", "", "Written by `bench/run.py`, which says how to run it. All figures of a table are of one run."]
    for name, render in (("hot", hot), ("cold", cold), ("ingest", ingest), ("small", small)):
        if parts[name]:
            text += ["", *render(parts[name], folder), "", *machine(parts[name])]
    (folder / "RESULTS.md").write_text("\n".join(text) + "\n")


def read(path: pathlib.Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def machine(part: dict) -> list[str]:
    m = part["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in part.get("versions", {}).items())
    parts = [m["cpu"], f"{m['cores']} cores", m["memory"], m["system"], versions]
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
    for query in next(iter(part["cold"].values())):
        for name, measured in part["cold"].items():
            m = measured[query]
            rows.append([query, name, f"{m['seconds']:.2f}", str(m["requests"]), f"{m['bytes'] / 1e6:.1f}"])
    w = part["warming"]
    return [
        f"## Cold, from S3 with {part['delay_ms']:.0f} ms added to each request, best of {part['rounds']}",
        "",
        *table(["query", "", "s", "requests", "MB"], rows),
        "",
        f"Warming: {w['follower_bytes_per_s'] / 1e6:.0f} MB/s, of {w['plain_bytes_per_s'] / 1e6:.0f} MB/s that a plain GET "
        f"of the same objects reaches with {w['parallel_gets']} at a time.",
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
        f"## Small queries: {part['clients']} clients for {part['seconds']} s",
        "",
        f"`{part['sql']}`",
        "",
        *table(["", "queries/s", "p50, ms", "p99, ms"], rows),
    ]
