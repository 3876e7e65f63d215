"""Tables of data as CSV files, and their cells as an ONNX graph on raw columns reads them: without pandas."""

import csv
import datetime as dt
import math

import numpy as np

EPOCH = dt.date(1970, 1, 1)


def write_members(path, rows=1000, seed=0):
    """Members of a club, of whom a few leave: numbers, text, a date, a boolean, missing cells, a column of no use."""
    rng = np.random.default_rng(seed)
    age, visits = rng.integers(18, 80, rows), rng.gamma(2.0, 3.0, rows)
    city, member = rng.choice(["Rome", "Oslo", "Kyōto"], rows), rng.random(rows) < 0.4
    days = rng.integers(0, 2000, rows)
    score = 0.08 * (age - 50) - 0.25 * (visits - 6) + 1.5 * (city == "Oslo") - 0.001 * (days - 1000) - 1.0 * member
    leaves = score > np.quantile(score, 0.88)
    joined = [dt.date(2018, 3, 1) + dt.timedelta(days=int(day)) for day in days]
    gaps = rng.random((3, rows)) < 0.08
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "age", "visits", "city", "joined", "member", "leaves"])
        for i in range(rows):
            writer.writerow(
                [
                    f"m{i:05d}",
                    "" if gaps[0, i] else age[i],
                    f"{visits[i]:.3f}",
                    "" if gaps[1, i] else city[i],
                    joined[i].isoformat(),
                    "" if gaps[2, i] else bool(member[i]),
                    "yes" if leaves[i] else "no",
                ]
            )
    return path


def write_prices(path, rows=400, seed=1):
    """Flats and what they cost: far from 0 and large, so that the target's scale matters."""
    rng = np.random.default_rng(seed)
    area, floor = rng.uniform(20, 150, rows), rng.integers(0, 8, rows)
    price = 3000 * area + 5000 * floor + rng.normal(0, 4000, rows)
    lines = ["area,floor,price", *(f"{a:.1f},{f},{p:.0f}" for a, f, p in zip(area, floor, price, strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def raw_columns(path, kinds):
    """A CSV's cells for a graph: dates as whole days since 1970-01-01, text "" and all else NaN for a missing cell."""
    convert = {
        "number": lambda cell: float(cell) if cell else math.nan,
        "boolean": lambda cell: {"True": 1.0, "False": 0.0, "": math.nan}[cell],
        "date": lambda cell: float((dt.date.fromisoformat(cell) - EPOCH).days) if cell else math.nan,
        "text": str,
    }
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        name: np.array([[convert[kind](row[name])] for row in rows], object if kind == "text" else np.float32)
        for name, kind in kinds.items()
    }
