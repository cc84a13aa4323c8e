"""Measures a follower against its peers, in one run, and writes RESULTS.md with its plots.

    cargo build --release
    python3 -m venv bench/venv && bench/venv/bin/pip install -r bench/requirements.txt
    bench/venv/bin/python bench/run.py --binary target/release/slipstream

Every figure is of this run: each system reads the same files on the same machine, with as many
threads, one after the other, `--rounds` times; the best counts. Only `beside` compares a follower with
itself, and by medians. `--only NAME` runs one part of it, and leaves the others' results as they were.

Two peers need an environment of their own, and are left out without it. SLIPSTREAM_BENCH_HTTPFS_PYTHON
names a Python with `duckdb==1.4.4 duckdb-ext-httpfs==1.4.4.20260205`, the newest DuckDB whose httpfs
comes as a package; SLIPSTREAM_BENCH_ROAPI names the program of `roapi==0.12.7`. Small queries are asked
by `wrk`, which Debian has as a package; without it a slower client in Python asks, and the report says so.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "python")]

import beside  # noqa: E402
import cold  # noqa: E402
import hot  # noqa: E402
import ingest  # noqa: E402
import report  # noqa: E402
import small  # noqa: E402
import world  # noqa: E402

PARTS = {
    "hot": hot.measure,
    "ingest": ingest.measure,
    "cold": cold.measure,
    "small": small.measure,
    "beside": beside.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="a slipstream program, built in release")
    parser.add_argument("--built", default="", help="how it was built, for the report, where that is not 'cargo build --release'")
    parser.add_argument("--scale", default="1", help="TPC-H scale factor [default: 1]")
    parser.add_argument("--rounds", type=int, default=3, help="runs of which the best counts [default: 3]")
    parser.add_argument("--only", choices=PARTS, action="append", help="run this part; may be repeated")
    parser.add_argument("--data", type=pathlib.Path, help="where to keep generated data between runs")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="where to write results [default: bench/]")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.data or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slipstream-bench-")))
        data = world.generate(folder, options.scale)
        for name in options.only or PARTS:
            print(f"== {name}", flush=True)
            began = time.monotonic()
            result = PARTS[name](options, data)
            result["versions"] = {"Slipstream": version(options.binary), **result.get("versions", {})}
            result["machine"] = machine()
            result["built"] = options.built
            (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
            print(f"== {name}: {time.monotonic() - began:.0f} s", flush=True)
    report.write(options.out)
    return 0


def version(binary: str) -> str:
    done = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True)
    return done.stdout.split()[-1]


def machine() -> dict:
    """What the figures were measured on."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": cpu, "cores": os.cpu_count(), "memory": f"{memory:.0f} GiB", "system": platform.system()}


if __name__ == "__main__":
    sys.exit(main())
